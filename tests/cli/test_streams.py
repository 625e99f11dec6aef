"""Output that cannot be written: the command is completed nevertheless, and the loss is reported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nimlab.cli.streams import replace_unencodable
from tests.files.test_safe_write import make_device, shell
from tests.support.lab import Lab
from tests.support.paths import REPOSITORY


@pytest.mark.process
@pytest.mark.parametrize(
    ("line", "code", "out", "error"),
    [
        ("nimlab validate >&-", 0, "", ""),
        ("nimlab validate 2>&-", 0, "2 experiments, no problems\n", ""),
        ("nimlab validate >&- 2>&- <&-", 0, "", ""),
        ("nimlab validate <&-", 0, "2 experiments, no problems\n", ""),
        ("nimlab validate --codequality report >&-; cat report", 0, "[]\n", ""),
        ("nimlab validate >/dev/full", 1, "", "cannot be written to stdout: No space left on device"),
        ("nimlab validate -o json >/dev/full", 1, "", "No space left on device"),
        ("nimlab render >/dev/full", 1, "", "No space left on device"),
        ("nimlab --help >/dev/full", 1, "", "No space left on device"),
        ("nimlab --version >/dev/full", 1, "", "No space left on device"),
        ("nimlab nonsense >/dev/full", 2, "", "No such command"),
        ("nimlab validate --lab /nowhere 2>/dev/full", 1, "", ""),
        ("nimlab nonsense 2>&-", 2, "", ""),
        ("nimlab --help | true; exit ${PIPESTATUS[0]}", 0, "", ""),
        ("nimlab render | true; exit ${PIPESTATUS[0]}", 0, "", ""),
        ("nimlab validate --lab /nowhere 2>&1 | true; exit ${PIPESTATUS[0]}", 1, "", ""),
    ],
)
def test_exit_code_changes_only_if_the_result_is_lost(
    lab_folder: Path, line: str, code: int, out: str, error: str
) -> None:
    done = shell(line, cwd=lab_folder)
    assert done.returncode == code, done
    assert done.stdout == out
    assert error in done.stderr
    if not error:
        assert done.stderr == ""


@pytest.mark.process
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "ascii:strict", "utf-8"])
def test_every_character_is_printed_in_every_encoding(lab_folder: Path, encoding: str) -> None:
    (lab_folder / "experiments" / "blue.yaml").write_text("peers: …→é\n", encoding="utf-8")
    done = shell(f"PYTHONIOENCODING={encoding} nimlab validate", cwd=lab_folder)
    assert done.returncode == 1
    assert done.stderr == ""
    assert "blue.yaml:1:1: error[missing-key]" in done.stdout


@pytest.mark.process
def test_document_is_the_same_in_every_encoding(lab_folder: Path) -> None:
    path = lab_folder / "experiments" / "blue.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("four constrained", "four … →"), encoding="utf-8")
    expected = shell("nimlab render blue", cwd=lab_folder).stdout
    assert "…" in expected
    assert shell("PYTHONIOENCODING=ascii nimlab render blue", cwd=lab_folder).stdout == expected


@pytest.mark.process
def test_output_is_ascii_in_a_locale_without_utf_8(lab_folder: Path) -> None:
    line = "LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 nimlab validate --lab /nowhere…"
    done = shell(line, cwd=lab_folder)
    assert done.returncode == 1
    assert "no lab found" in done.stderr


@pytest.mark.process
def test_file_name_that_is_not_utf_8_is_printed(lab_folder: Path) -> None:
    done = shell("nimlab validate --lab $'/nowhere\\xff'", cwd=lab_folder)
    assert done.returncode == 1
    assert "/nowhere" in done.stderr
    assert "no lab found" in done.stderr


def test_characters_are_replaced_by_similar_ascii() -> None:
    error = UnicodeEncodeError("ascii", "a…→é\udcff", 1, 5, "")
    assert replace_unencodable(error) == ("...->\\xe9\\udcff", 5)


@pytest.mark.process
def test_deleted_working_directory_is_an_error_only_without_lab_option(
    lab_folder: Path, tmp_path: Path
) -> None:
    deleted_folder = f"mkdir {tmp_path}/gone; cd {tmp_path}/gone; rmdir {tmp_path}/gone;"
    for line in (
        "nimlab validate",
        "nimlab validate --lab x",
        "nimlab sandbox status",
        "nimlab create --name a",
    ):
        done = shell(f"{deleted_folder} {line}", cwd=lab_folder)
        assert done.returncode == 1, done
        assert "the working directory was deleted" in done.stderr
    done = shell(f"{deleted_folder} nimlab validate --lab {lab_folder}", cwd=lab_folder)
    assert (done.returncode, done.stdout) == (0, "2 experiments, no problems\n")
    done = shell(f"{deleted_folder} nimlab render --lab {lab_folder} --out out", cwd=lab_folder)
    assert done.returncode == 1
    assert "bug" not in done.stderr


@pytest.mark.process
def test_bug_report_that_cannot_be_saved_is_printed(lab_folder: Path) -> None:
    program = "import nimlab.cli.find_lab_folder as r; r.find_root = lambda start: start / 0\n"
    program += "import tempfile; tempfile.tempdir = '/nowhere'\nfrom nimlab.cli import entry\nentry()"
    done = subprocess.run(
        [sys.executable, "-c", program, "validate"],
        check=False, capture_output=True, text=True, timeout=60, cwd=lab_folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert done.returncode == 70
    assert "cannot be saved" in done.stderr
    assert "TypeError" in done.stderr


@pytest.mark.live
def test_sync_completes_whether_or_not_its_output_is_read(lab: Lab) -> None:
    flags = f"--lab {lab.root} --kubeconfig {lab.kubeconfig}"
    done = shell(f"nimlab sync --dry-run --exit-code {flags} | true; exit ${{PIPESTATUS[0]}}", cwd=lab.root)
    assert done.returncode == 3, done.stderr
    done = shell(f"nimlab sync --dry-run --exit-code {flags} >&-", cwd=lab.root)
    assert done.returncode == 3, done.stderr
    done = shell(f"nimlab sync --dry-run --exit-code {flags} >/dev/full", cwd=lab.root)
    assert done.returncode == 1, done.stderr
    assert "the command itself ended with exit code 3" in done.stderr
    done = shell(f"nimlab sync {flags} 2>&1 | true; exit ${{PIPESTATUS[0]}}", cwd=lab.root)
    assert done.returncode == 0
    assert lab.names("StatefulSet") == ["nimp2p-exp-blue", "nimp2p-exp-purple"]
    done = shell(f"nimlab sync {flags} | grep -q x; exit ${{PIPESTATUS[0]}}", cwd=lab.root)
    assert done.returncode == 0, done.stderr
    full = make_device(lab.root.parent, "full")
    done = shell(f"nimlab sync {flags} --junit {full}", cwd=lab.root)
    assert done.returncode == 1
    assert "full: error[edit]" in done.stderr
    assert "unchanged" in done.stdout, "the changes are reported although the report file is lost"


@pytest.mark.process
def test_nohup_still_ignores_sighup() -> None:
    program = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    program += (
        "from nimlab.cli import signals; signals.raise_interrupt(); print(signal.getsignal(signal.SIGHUP))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=REPOSITORY,
    )
    assert str(signal.SIG_IGN) in done.stdout or "SIG_IGN" in done.stdout


@pytest.mark.live
def test_trouble_of_peers_is_printed_once_if_both_streams_are_the_same(lab: Lab) -> None:
    lab.edit("blue", "spec:", "spec:\n  nodeSelector: {example.org/none: here}")
    flags = f"blue --timeout 1s --lab {lab.root} --kubeconfig {lab.kubeconfig}"
    together = shell(f"nimlab sync {flags} 2>&1", cwd=lab.root)
    assert together.returncode == 4, together.stdout
    assert together.stdout.count("not ready") + together.stdout.count("Not ready") == 2, together.stdout
    apart = shell(f"nimlab sync {flags}", cwd=lab.root)
    assert "not ready" in apart.stdout, "stdout alone contains the complete result"
    assert "not ready" in apart.stderr
