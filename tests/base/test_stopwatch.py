"""Timings: each moment of a command is counted for exactly one stage, and `--timings` prints the stages."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nimlab.stopwatch import OTHER, Stopwatch
from tests.support.lab import Lab
from tests.support.paths import SAMPLE_LAB

SYNC = [
    "start", "load", "validate", "render", "guard", "connect", "look", "compare", "plan", "act", "wait",
]  # fmt: skip


def test_sum_of_nested_stages_is_the_total_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [10.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    watch = Stopwatch()

    def work(seconds: float) -> None:
        now[0] += seconds

    work(1)
    with watch.stage("load"):
        work(2)
        with watch.stage("validate"):
            work(4)
        work(8)
    with pytest.raises(ZeroDivisionError), watch.stage("load"):
        work(16 / (1 - len(now)))
    with watch.stage("load"):
        work(16)
    work(32)
    assert watch.spent() == {OTHER: 33, "load": 26, "validate": 4}


def shown(text: str) -> tuple[dict[str, float], float]:
    """Return the stages and the total that a command printed."""
    (line,) = [line for line in text.splitlines() if line.startswith("timings")]
    stages = {name: float(seconds) for name, seconds in re.findall(r"([a-z]+) ([0-9.]+)[,:]", line)}
    return stages, float(line.rpartition(": ")[2].split()[0])


@pytest.mark.process
@pytest.mark.parametrize("command", ["validate", "render"])
def test_commands_without_a_cluster_print_their_stages(command: str) -> None:
    started_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "nimlab", command, "--timings"],
        cwd=SAMPLE_LAB,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    wall_s = time.monotonic() - started_s
    stages, total_s = shown(done.stderr)
    assert {"start", OTHER, "load", "validate"} <= set(stages)
    assert abs(sum(stages.values()) - total_s) < 0.01
    assert 0.5 * wall_s < total_s < wall_s + 0.05


@pytest.mark.live
def test_sync_prints_all_its_stages(lab: Lab) -> None:
    answer = lab.run("sync", "--timings")
    assert answer.code == 0, answer.err
    stages, _ = shown(answer.err)
    assert [name for name in SYNC if name not in stages] == []


@pytest.mark.process
def test_a_failed_sync_prints_its_stages(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nimlab", "sync", "--timings", "--kubeconfig", str(tmp_path / "none")],
        cwd=SAMPLE_LAB,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert {"start", "load", "connect"} <= set(shown(done.stderr)[0])
