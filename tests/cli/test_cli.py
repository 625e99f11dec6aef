"""The command line and its docs: help, usage, choice of the cluster, exit codes, bug reports."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import nimlab.errors
from nimlab.cli import main
from nimlab.cli.choose_cluster import choose_target
from nimlab.errors import ExitCode, NimlabError
from nimlab.files.load import load_lab
from nimlab.plan.sync_policy import SyncPolicy
from nimlab.workflow.observe_and_plan import prune_limit_of
from tests.files.test_load import CODES
from tests.support.golden import GOLDEN, assert_golden
from tests.support.lab import make_lab
from tests.support.paths import REPOSITORY, SAMPLE_LAB

OTHER_CODES = {"hidden", "secret"}  # problems that do not depend on the text of one file

COMMANDS = [
    "", "validate", "render", "sync", "list", "status", "logs", "rbac", "create", "scale", "delete",
    "sandbox", "sandbox up", "sandbox build", "sandbox down", "sandbox status",
]  # fmt: skip


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run nimlab as a program, with a narrow terminal and without colour."""
    return subprocess.run(
        [sys.executable, "-m", "nimlab", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=SAMPLE_LAB,
        env={"COLUMNS": "80", "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "PYTHONPATH": str(REPOSITORY)},
    )


@pytest.mark.process
@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.replace(" ", "-") or "nimlab")
def test_help_is_the_same_as_in_the_golden_file(command: str, update_golden: bool) -> None:
    done = run(*command.split(), "--help")
    assert done.returncode == 0
    text = done.stdout.replace("python -m nimlab", "nimlab")
    name = command.replace(" ", "-") or "nimlab"
    assert_golden(GOLDEN / "help" / f"{name}.txt", text, update=update_golden)


def test_docs_and_pipeline_contain_every_exit_code() -> None:
    text = (REPOSITORY / "docs" / "exit-codes.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([0-9]+) \| `([A-Z_]+)` \|", text, flags=re.MULTILINE)
    assert [(int(number), name) for number, name in rows] == [(code.value, code.name) for code in ExitCode]
    order = re.search(r"in this order: ([0-9, ]+)\.", text)
    assert order is not None
    assert {int(n) for n in order[1].split(",")} == set(ExitCode) - {ExitCode.USAGE, ExitCode.BUG}
    pipeline = (REPOSITORY / ".gitlab-ci.yml").read_text(encoding="utf-8")
    assert f"exit_codes: [{ExitCode.PENDING.value}]" in pipeline


def test_docs_name_every_command_problem_code_and_exit_code() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for command in COMMANDS:
        if command not in ("", "sandbox", "sandbox build", "sandbox status"):
            assert f"nimlab {command}" in readme, command
    for code in ("0", "1", "2", "3", "4", "70", "130"):
        assert re.search(rf"[·:\n*] ?\*{{0,2}}{code}\b", readme), code
    problems = (REPOSITORY / "docs" / "problems.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([a-z-]+)`", problems, re.MULTILINE)) == CODES | OTHER_CODES
    classes = [c for c in vars(nimlab.errors).values() if isinstance(c, type)]
    for cls in classes:
        if issubclass(cls, NimlabError) and cls is not NimlabError:
            assert f"`{cls.code}`" in problems, cls


@pytest.mark.parametrize(
    "arguments",
    [
        *(
            [flag, number]
            for flag in (
                "--peers",
                "--connections",
                "--msg-size",
                "--msg-rate",
                "--ram",
                "--uplink-bw",
                "--cpu",
            )
            for number in ("3.", "1e2", "0x5", "1_0", "\u0663", "nan", "inf", "+5", "05x", "", " 5", "-0")
        ),
        *(["--peers", number] for number in ("3.0", "05", "9" * 19)),
    ],
    ids="=".join,
)
def test_numbers_in_options_must_be_plain_digits(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_lab(tmp_path / "lab", "x")
    flag, number = arguments
    assert main(["create", "--name", "y", f"{flag}={number}", "--lab", str(root)]) == 2
    assert f"`{number}`" in capsys.readouterr().err
    if flag == "--peers":
        assert main(["scale", "blue", f"{flag}={number}", "--lab", str(root)]) == 2
    assert not (root / "experiments" / "y.yaml").exists()


@pytest.mark.parametrize(
    "flag", ["--peers", "--msg-size", "--msg-rate", "--ram", "--downlink-bw", "--uplink-bw"]
)
@pytest.mark.parametrize("number", ["0", "-1", "9" * 18])
def test_number_out_of_range_is_a_problem_of_the_new_file(
    flag: str, number: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_lab(tmp_path / "lab", "x")
    assert main(["create", "--name", "y", f"{flag}={number}", "--lab", str(root)]) == 1
    assert "experiments/y.yaml:" in capsys.readouterr().err
    assert not (root / "experiments" / "y.yaml").exists()


@pytest.mark.parametrize("arguments", [["nonsense"], ["sync", "--nonsense"], ["create"], ["scale", "x"]])
def test_wrong_usage_exits_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "Usage" in capsys.readouterr().err


def test_folder_without_a_lab_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "--lab", str(tmp_path)]) == 1
    assert "lab.yaml" in capsys.readouterr().err


def test_validate_prints_problems_on_stdout_and_exits_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_lab(tmp_path / "lab", "x")
    assert main(["validate", "--lab", str(root)]) == 0
    assert capsys.readouterr().out == "2 experiments, no problems\n"
    path = root / "experiments" / "blue.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("peers: 4", "peers: 0"), encoding="utf-8")
    assert main(["validate", "--lab", str(root)]) == 1
    assert "experiments/blue.yaml:7:10: error[bad-value]" in capsys.readouterr().out
    assert main(["validate", "--lab", str(root), "--output", "json"]) == 1
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert (problem["path"], problem["line"], problem["code"]) == ("experiments/blue.yaml", 7, "bad-value")


def test_render_prints_only_the_named_experiments_and_is_stable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_lab(tmp_path / "lab", "x")
    assert main(["render", "purple", "--lab", str(root)]) == 0
    first = capsys.readouterr().out
    assert main(["render", "purple", "--lab", str(root)]) == 0
    assert capsys.readouterr().out == first
    assert "nimp2p-exp-blue" not in first
    assert main(["render", "--lab", str(root), "--out", str(tmp_path / "out")]) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["blue.yaml", "purple.yaml"]
    assert (tmp_path / "out" / "purple.yaml").read_text(encoding="utf-8") == first
    assert main(["render", "purpel", "--lab", str(root)]) == 1
    assert "did you mean `purple`?" in capsys.readouterr().err


def test_options_of_nimp2p_lab_write_a_valid_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_lab(tmp_path / "lab", "x", experiments=())
    flags = "--peers 5 --msg-size 1440 --msg-rate 2000 --cpu 0.05 --ram 16 --downlink-bw 16 --uplink-bw 16"
    assert main(["create", "--name", "purple", *flags.split(), "--lab", str(root)]) == 0
    assert main(["create", "--name", "green", "--lab", str(root)]) == 0
    purple, green = load_lab(root).experiments[1], load_lab(root).experiments[0]
    assert (purple.peers, purple.cpu_m, purple.network.uplink_bit_per_s) == (5, 50, 16_000_000)
    assert green.settings == {
        "connectTo": 2,
        "message.interval": 2000,
        "message.size": 1440,
        "peers": 2,
    }
    assert main(["create", "--name", "purple", "--lab", str(root)]) == 1
    assert main(["create", "--name", "No_Name", "--lab", str(root)]) == 1
    assert main(["create", "--name", "lonely", "--peers", "1", "--lab", str(root)]) == 1
    assert sorted(p.name for p in (root / "experiments").iterdir()) == ["green.yaml", "purple.yaml"]
    assert "connectTo" in capsys.readouterr().err


def test_scale_and_delete_edit_only_the_named_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_lab(tmp_path / "lab", "x")
    path = root / "experiments" / "purple.yaml"
    before = path.read_text(encoding="utf-8")
    assert main(["scale", "purple", "--peers", "7", "--lab", str(root)]) == 0
    assert path.read_text(encoding="utf-8") == before.replace("peers: 5", "peers: 7")
    assert main(["scale", "purple", "--peers", "1", "--lab", str(root)]) == 1
    assert "peers: 7" in path.read_text(encoding="utf-8")
    assert main(["scale", "purpel", "--peers", "3", "--lab", str(root)]) == 1
    assert main(["delete", "purple", "--force", "--lab", str(root)]) == 0
    assert sorted(p.name for p in (root / "experiments").iterdir()) == ["blue.yaml"]
    assert "did you mean `purple`?" in capsys.readouterr().err


def test_cluster_is_never_taken_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config"
    config.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: production\n"
        "contexts: [{name: production, context: {cluster: c, user: u}}]\n"
        "clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\nusers: [{name: u, user: {}}]\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("KUBECONFIG", str(config))
    with pytest.raises(NimlabError) as caught:
        choose_target(tmp_path, None, None)
    assert "--context" in str(caught.value.hint)
    assert choose_target(tmp_path, None, "production").why == "context `production`, from --context"
    assert choose_target(tmp_path, config, None).kubeconfig == config


@pytest.mark.parametrize(("text", "objects", "percent"), [("5", 5, None), ("30%", None, 30), (None, 20, 50)])
def test_prune_limit_is_a_count_or_a_percentage(
    text: str | None, objects: int | None, percent: float | None
) -> None:
    limit = prune_limit_of(SyncPolicy(max_prune=text), load_lab(SAMPLE_LAB).lab.sync)
    assert (limit.objects, limit.percent) == (objects, percent)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--max-prune", "many"],
        ["--max-prune", "101%"],
        ["--max-prune", "3.0"],
        ["--max-prune", "1_0"],
        ["--timeout", "5"],
        ["--timeout", "1e2s"],
        ["--timeout", "999999999h"],
        ["--lock-timeout", "x"],
        ["--lock-timeout", "25h"],
    ],
)
def test_wrong_values_are_usage_errors(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_lab(tmp_path / "lab", "x")
    config = tmp_path / "k"
    config.write_text(
        "contexts: [{name: a, context: {cluster: c, user: u}}]\ncurrent-context: a\n"
        "clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\nusers: [{name: u, user: {}}]\n",
        encoding="utf-8",
    )
    assert main(["sync", *arguments, "--lab", str(root), "--kubeconfig", str(config)]) == 2
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.process
def test_bug_is_reported_with_a_saved_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("nimlab.cli.find_lab_folder.find_root", lambda start: start / 0)
    assert main(["validate"]) == ExitCode.BUG
    errors = capsys.readouterr().err
    assert "bug in nimlab" in errors
    (saved,) = tmp_path.glob("nimlab-bug-*.txt")
    assert "Traceback" in saved.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PermissionError(13, "Permission denied", "/a"), ExitCode.ERROR),
        (FileNotFoundError(2, "No such file or directory", "/a"), ExitCode.ERROR),
        (OSError(28, "No space left on device"), ExitCode.ERROR),
        (OSError(24, "Too many open files"), ExitCode.ERROR),
        (OSError("no number"), ExitCode.BUG),
        (ConnectionResetError(104, "Connection reset by peer"), ExitCode.BUG),
    ],
    ids=str,
)
@pytest.mark.process
def test_refusal_by_the_operating_system_is_not_a_bug(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    error: OSError,
    code: ExitCode,
) -> None:
    def find_root(start: Path) -> Path:
        del start
        raise error

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("nimlab.cli.find_lab_folder.find_root", find_root)
    assert main(["validate"]) == code
    errors = capsys.readouterr().err
    assert ("bug in nimlab" in errors) == (code == ExitCode.BUG)
    if error.filename:
        assert errors.startswith("/a: error: ")


@pytest.mark.process
@pytest.mark.serial
def test_help_and_validate_are_fast() -> None:
    """The time limit is high, because machines may be busy; importing a cluster client exceeds it."""
    started = time.monotonic()
    assert run("--help").returncode == 0
    assert time.monotonic() - started < 3
    assert run("validate").returncode == 0  # the following runs use the cache
    loaded = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "nimlab", "validate"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=SAMPLE_LAB,
    ).stderr
    for heavy in ("kubernetes", "deepdiff", "cryptography", "psutil", "jinja2"):
        assert f" {heavy}\n" not in loaded, heavy
