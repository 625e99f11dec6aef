"""Whatever becomes of a rig, nothing of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from tests.rig.cluster import eventually
from tests.support.paths import REPOSITORY

ENTER = """
import sys
from pathlib import Path
from tests.rig.__main__ import _enter
home, seconds = sys.argv[1:]
_enter(Path(home), ["sh", "-c", f"ip link add left type dummy; setsid sleep {seconds} & sleep {seconds}"])
"""
SECONDS = f"98{os.getpid()}"  # by which its processes are known


def sleepers() -> list[int]:
    """What the rig under test has started."""
    return [p.pid for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", SECONDS]]


def test_who_kills_the_rig_ends_all_that_it_has_started(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ENTER, str(tmp_path), SECONDS], cwd=REPOSITORY) as rig:
        eventually(lambda: True if len(sleepers()) == 2 else None, within_s=30, what="the rig runs")
        rig.send_signal(signal.SIGKILL)  # no `finally` runs
    eventually(lambda: None if sleepers() else True, within_s=30, what="its daemons are gone, too")
    assert not Path("/sys/class/net/left").exists()
