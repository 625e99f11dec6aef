"""The rules of a test run: a test without a mark gets no API server, and starts no program except Git."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import pytest

from tests.support.run_rules import turn


def test_unmarked_test_gets_no_api_server(request: pytest.FixtureRequest) -> None:
    with pytest.raises(pytest.fail.Exception, match="needs an API server"):
        request.getfixturevalue("sandbox")


@pytest.mark.process
def test_process_mark_gives_no_api_server(request: pytest.FixtureRequest) -> None:
    with pytest.raises(pytest.fail.Exception, match="needs an API server"):
        request.getfixturevalue("cluster")


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
