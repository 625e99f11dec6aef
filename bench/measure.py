"""One program run, and what it cost on this side: seconds, CPU seconds, peak memory.

In: a command, an environment, a file for its output. Out: a `Cost`, or a RunError with the program's last
words. What the run cost the server is counted by the server.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_LAUNCH: Final = Path(__file__).with_name("launch.py")
_TAIL_CHARACTERS: Final = 400


class RunError(Exception):
    """A program ended otherwise than well; says with what, and its last words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What is run, and with which exit codes it has done its work."""

    argv: tuple[str, ...]
    good: frozenset[int] = frozenset({0})


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one or several programs cost together; `peak_bytes` is the largest of them."""

    wall_s: float
    cpu_s: float
    peak_bytes: int


def run_all(
    commands: Sequence[Command], *, environment: Mapping[str, str], log: Path, timeout_s: float
) -> Cost:
    """Run the commands one after another and return their cost. Raises RunError."""
    costs = [_run(one, environment, log, timeout_s) for one in commands]
    return Cost(
        wall_s=sum(c.wall_s for c in costs),
        cpu_s=sum(c.cpu_s for c in costs),
        peak_bytes=max(c.peak_bytes for c in costs),
    )


def _run(command: Command, environment: Mapping[str, str], log: Path, timeout_s: float) -> Cost:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, log.open("ab") as output:
        result = Path(folder) / "cost.json"
        began = output.tell()
        launcher = subprocess.Popen(  # noqa: S603 -- the programs are those that we built
            [sys.executable, "-I", "-S", str(_LAUNCH), str(result), *command.argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,
        )
        _await(launcher, command, timeout_s)
        if not result.exists():
            raise RunError(f"{Path(command.argv[0]).name} can't be run: {_tail(log, began)}")
        said = json.loads(result.read_text(encoding="ascii"))
    if said["code"] not in command.good:
        raise RunError(f"{Path(command.argv[0]).name} ended with {said['code']}: {_tail(log, began)}")
    return Cost(wall_s=said["wall_s"], cpu_s=said["cpu_s"], peak_bytes=said["peak_bytes"])


def _await(launcher: subprocess.Popen[bytes], command: Command, timeout_s: float) -> None:
    """Wait for the end; whatever keeps us from it, nothing that was started is left behind."""
    try:
        launcher.wait(timeout_s)
    except subprocess.TimeoutExpired as error:
        _end(launcher)
        name = Path(command.argv[0]).name
        raise RunError(f"{name} hasn't ended after {timeout_s:.0f} s") from error
    except BaseException:
        _end(launcher)
        raise


def _end(launcher: subprocess.Popen[bytes]) -> None:
    os.killpg(launcher.pid, signal.SIGKILL)
    launcher.wait()


def _tail(log: Path, began: int) -> str:
    with log.open("rb") as file:
        file.seek(began)
        text = file.read().decode(errors="replace")
    return " ".join(text.split())[-_TAIL_CHARACTERS:] or "it said nothing"
