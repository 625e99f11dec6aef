"""Run programs and measure their cost on the client: seconds, CPU seconds, peak memory.

In: commands, an environment, a file for the output of the commands. Out: a `Cost`, or a RunError with the end
of the output. The module `server` counts the requests on the API server.
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

_LAUNCHER: Final = Path(__file__).with_name("resource_usage.py")
_QUOTED_CHARACTERS: Final = 400


class RunError(Exception):
    """A program failed; the message contains its exit code and the end of its output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command line, and the exit codes that mean success."""

    argv: tuple[str, ...]
    success_codes: frozenset[int] = frozenset({0})


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The total cost of one or more programs; `peak_bytes` is the peak memory of the largest program."""

    wall_s: float
    cpu_s: float
    peak_bytes: int


def run_all(
    commands: Sequence[Command], *, environment: Mapping[str, str], log: Path, timeout_s: float
) -> Cost:
    """Run the commands one after another and return their cost. Raises RunError."""
    costs = [_run(command, environment, log, timeout_s) for command in commands]
    return Cost(
        wall_s=sum(cost.wall_s for cost in costs),
        cpu_s=sum(cost.cpu_s for cost in costs),
        peak_bytes=max(cost.peak_bytes for cost in costs),
    )


def _run(command: Command, environment: Mapping[str, str], log: Path, timeout_s: float) -> Cost:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, log.open("ab") as output:
        result_file = Path(folder) / "cost.json"
        log_offset = output.tell()
        launcher = subprocess.Popen(  # noqa: S603 -- the programs are those that we built
            [sys.executable, "-I", "-S", str(_LAUNCHER), str(result_file), *command.argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,
        )
        _wait(launcher, command, timeout_s)
        program = Path(command.argv[0]).name
        if not result_file.exists():
            raise RunError(f"{program} cannot be started: {_output_end(log, log_offset)}")
        result = json.loads(result_file.read_text(encoding="ascii"))
    if result["code"] not in command.success_codes:
        raise RunError(f"{program} failed with exit code {result['code']}: {_output_end(log, log_offset)}")
    return Cost(wall_s=result["wall_s"], cpu_s=result["cpu_s"], peak_bytes=result["peak_bytes"])


def _wait(launcher: subprocess.Popen[bytes], command: Command, timeout_s: float) -> None:
    """Wait for the program; kill it and its children on a timeout or any exception. Raises RunError."""
    try:
        launcher.wait(timeout_s)
    except subprocess.TimeoutExpired as error:
        _kill(launcher)
        name = Path(command.argv[0]).name
        raise RunError(f"{name} did not finish within {timeout_s:.0f} s") from error
    except BaseException:
        _kill(launcher)
        raise


def _kill(launcher: subprocess.Popen[bytes]) -> None:
    os.killpg(launcher.pid, signal.SIGKILL)
    launcher.wait()


def _output_end(log: Path, offset: int) -> str:
    with log.open("rb") as file:
        file.seek(offset)
        text = file.read().decode(errors="replace")
    return " ".join(text.split())[-_QUOTED_CHARACTERS:] or "it printed nothing"
