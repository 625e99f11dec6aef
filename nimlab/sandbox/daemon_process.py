"""Daemon processes: start them, identify them by pid and start time, stop them.

A signal is sent to a process only if its start time matches the record, because the system reuses pids. The
module works on Linux and macOS.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Final

import psutil

from nimlab.errors import SandboxError
from nimlab.sandbox.saved_processes import Daemon
from nimlab.sandbox.state_values import PART_NAMES
from nimlab.sandbox.wait_until import wait_until

# The shell exits at once and init adopts the daemon, so the daemon never becomes a zombie of this process.
# Its standard input is /dev/null, and Ctrl-C at the terminal does not reach it.
# A process's niceness has no effect on other sessions: Linux gives each session a share of the cores, and
# each share has a niceness of its own (sched(7), autogroup). Therefore both are set.
_LAUNCHER: Final = (
    "/bin/sh",
    "-c",
    '{ echo "$1" >/proc/self/autogroup; } 2>/dev/null; nice -n "$@" >&2 & echo $!',
    "nimlab-sandbox",
)

# The reported start time shifts when the system clock is corrected. Pids are not reused within this time.
_CLOCK_SLACK_S: Final = 5.0


def start(argv: Sequence[str], *, log: Path, folder: Path, niceness: int = 0) -> Daemon | None:
    """Start a program as a daemon that appends its output to `log`; return None if it exited at once.

    The environment is minimal, because etcd reads ETCD_*, Go programs read proxy variables, and kwok reads
    a file in HOME.
    """
    environment = {"PATH": os.defpath, "HOME": str(folder)}
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "ab") as output:
        launcher = subprocess.run(  # noqa: S603 -- the programs are those that we found or built
            [*_LAUNCHER, str(niceness), *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            cwd=folder,
            env=environment,
            start_new_session=True,
            check=True,
        )
    return identify(int(launcher.stdout))


def identify(pid: int) -> Daemon | None:
    """Return the running process with this pid; None if there is none."""
    try:
        return Daemon(pid=pid, started=psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def is_alive(daemon: Daemon) -> bool:
    """Return True if this process is still running; a zombie is not running."""
    process = _find(daemon)
    try:
        return process is not None and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def stop(daemons: Iterable[Daemon], *, grace_s: float) -> None:
    """Terminate the processes; kill those that are still running after `grace_s`.

    Raises SandboxError if a process survives both signals.
    """
    running = [daemon for daemon in daemons if is_alive(daemon)]
    for kill in (False, True):
        for daemon in running:
            _signal(daemon, kill=kill)
        running = _wait_for_exit(running, within_s=grace_s)
    if running:
        pids = ", ".join(str(daemon.pid) for daemon in running)
        raise SandboxError(f"process {pids} does not exit", hint="find out what blocks it, then try again")


def find_strays(pki: Path, known: Collection[Daemon]) -> tuple[Daemon, ...]:
    """Return the sandbox's processes that are not in `known`, oldest first.

    Such processes exist if `up` was killed between a start and its record, or if the user removed the folder.
    A process belongs to this sandbox if it has the name of a part and an argument with a path in this
    sandbox's `pki` folder.
    """
    pids = {daemon.pid for daemon in known if is_alive(daemon)}
    strays = []
    for process in psutil.process_iter(["cmdline", "uids"]):
        uids = process.info["uids"]
        is_own = uids is not None and uids.real == os.getuid()
        if is_own and process.pid not in pids and _is_part(process.info["cmdline"] or [], pki):
            strays.append(identify(process.pid))
    return tuple(sorted((d for d in strays if d is not None), key=lambda d: d.started))


def _is_part(cmdline: Sequence[str], pki: Path) -> bool:
    argv = list(cmdline)
    for prefix in (_LAUNCHER, ("nice", "-n")):  # at first, the process runs the launcher, then `nice`
        if tuple(argv[: len(prefix)]) == prefix:
            argv = argv[len(prefix) + 1 :]  # the niceness follows the prefix
    if not argv or Path(argv[0]).name not in PART_NAMES:
        return False
    return any(f"={pki}/" in argument for argument in argv[1:])


def _find(daemon: Daemon) -> psutil.Process | None:
    try:
        process = psutil.Process(daemon.pid)
        is_same = abs(process.create_time() - daemon.started) < _CLOCK_SLACK_S
    except (psutil.Error, ValueError):  # no such process, or an invalid pid
        return None
    return process if is_same else None


def _wait_for_exit(daemons: Sequence[Daemon], *, within_s: float) -> list[Daemon]:
    """Return the processes that are still running at the end of the timeout."""
    wait_until(lambda: not any(map(is_alive, daemons)), within_s=within_s)
    return [daemon for daemon in daemons if is_alive(daemon)]


def _signal(daemon: Daemon, *, kill: bool) -> None:
    process = _find(daemon)
    try:
        if process is not None:
            process.kill() if kill else process.terminate()
    except psutil.NoSuchProcess:
        return  # it exited in the meantime
    except psutil.AccessDenied as error:
        raise SandboxError(f"no permission to stop process {daemon.pid}") from error
