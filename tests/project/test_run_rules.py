"""The rules of a test run: a test without a mark gets no API server, and starts no program except Git."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support.paths import REPOSITORY
from tests.support.run_rules import turn

PROBE = """
import pytest

@pytest.mark.{mark}
def test_probe(request):
    request.getfixturevalue("{fixture}")
"""


@pytest.mark.process
@pytest.mark.parametrize(("mark", "fixture"), [("serial", "sandbox"), ("process", "cluster")])
def test_test_without_the_mark_live_gets_no_api_server(mark: str, fixture: str, tmp_path: Path) -> None:
    """In a run of its own, because an API server that already runs is not started again."""
    (tmp_path / "test_probe.py").write_text(PROBE.format(mark=mark, fixture=fixture), encoding="utf-8")
    options = ["-c", str(REPOSITORY / "pyproject.toml"), "-p", "tests.conftest", "-p", "no:cacheprovider"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1, run.stdout + run.stderr
    assert "needs an API server" in run.stdout
    assert "1 failed" in run.stdout


@pytest.mark.parametrize("arguments", [["go", "version"], ["/opt/etcd"], "kube-apiserver", [Path("python3")]])
def test_unmarked_test_starts_no_program(arguments: str | list[str | Path]) -> None:
    with pytest.raises(pytest.fail.Exception, match=r"starts .*; hint: mark it"):
        subprocess.run(arguments, check=False)


def test_unmarked_test_may_start_git() -> None:
    assert subprocess.run(["git", "--version"], check=True, capture_output=True).stdout


def test_serial_test_and_other_tests_never_run_at_the_same_time(tmp_path: Path) -> None:
    events: list[str] = []

    def run_serial() -> None:
        with turn(tmp_path, exclusive=True):
            events.append("serial")

    def run_other() -> None:
        with turn(tmp_path, exclusive=False):
            events.append("other")

    with turn(tmp_path, exclusive=False), turn(tmp_path, exclusive=False):
        serial = threading.Thread(target=run_serial)
        serial.start()
        serial.join(timeout=0.2)
        other = threading.Thread(target=run_other)
        other.start()
        other.join(timeout=0.2)
        assert events == [], (
            "the serial test waits for the running tests, and the other test waits for the serial test"
        )
    serial.join(timeout=10)
    other.join(timeout=10)
    assert events == ["serial", "other"]
