"""After a rig has been killed, none of its processes and interfaces remains."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from tests.rig.running_rig import eventually
from tests.support.paths import REPOSITORY

ENTER = """
import sys
from pathlib import Path
from tests.rig.__main__ import _enter
home, seconds = sys.argv[1:]
_enter(Path(home), ["sh", "-c", f"ip link add left type dummy; setsid sleep {seconds} & sleep {seconds}"])
"""
SECONDS = f"98{os.getpid()}"  # identifies the processes of the rig under test


def sleepers() -> list[int]:
    """Return the pids of the rig's processes."""
    return [p.pid for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", SECONDS]]


def test_killing_the_rig_ends_all_its_processes(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ENTER, str(tmp_path), SECONDS], cwd=REPOSITORY) as rig:
        eventually(lambda: True if len(sleepers()) == 2 else None, within_s=30, what="the rig runs")
        rig.send_signal(signal.SIGKILL)  # no `finally` runs
    eventually(lambda: None if sleepers() else True, within_s=30, what="its daemons have ended too")
    assert not Path("/sys/class/net/left").exists()
