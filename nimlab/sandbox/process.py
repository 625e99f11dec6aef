"""Daemons: started so that they outlive us, told apart by pid and start time, stopped for good.

A process that isn't the one we started is never signalled, whatever its pid. Linux and macOS.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Final

import psutil

from nimlab.errors import SandboxError
from nimlab.sandbox.poll import wait_until
from nimlab.sandbox.state import PART_NAMES, Daemon

# The shell ends at once, so init adopts the daemon: it never becomes a zombie of ours. Its standard
# input is /dev/null and interrupts typed at the terminal don't reach it.
# Niceness alone is of no use between sessions: Linux gives each its own share of the cores, and each share
# its own niceness (sched(7), autogroup).
_LAUNCHER: Final = (
    "/bin/sh",
    "-c",
    '{ echo "$1" >/proc/self/autogroup; } 2>/dev/null; nice -n "$@" >&2 & echo $!',
    "nimlab-sandbox",
)

# The start time that the system reports follows corrections of its clock; pids don't come round
# that fast.
_CLOCK_SLACK_S: Final = 5.0


def start(argv: Sequence[str], *, log: Path, folder: Path, niceness: int = 0) -> Daemon | None:
    """Start a program as a daemon whose output is appended to `log`; None if it ended at once.

    The nicer it is, the more it lets others go first where there is more to do than there are cores. Its
    environment is bare: etcd reads ETCD_*, Go programs read proxies, kwok reads a file in HOME.
    """
    environment = {"PATH": os.defpath, "HOME": str(folder)}
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "ab") as output:
        answer = subprocess.run(  # noqa: S603 -- the programs are those that we found or built
            [*_LAUNCHER, str(niceness), *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            cwd=folder,
            env=environment,
            start_new_session=True,
            check=True,
        )
    return identify(int(answer.stdout))


def identify(pid: int) -> Daemon | None:
    """Return the running process with this pid; None if there is none."""
    try:
        return Daemon(pid=pid, started=psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def is_alive(daemon: Daemon) -> bool:
    """Tell whether this very process still runs; a zombie doesn't, however long init lets it."""
    process = _find(daemon)
    try:
        return process is not None and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def stop(daemons: Iterable[Daemon], *, grace_s: float) -> None:
    """End these processes: ask, wait, then kill. Raises SandboxError if one survives even that."""
    left = [daemon for daemon in daemons if is_alive(daemon)]
    for kill in (False, True):
        for daemon in left:
            _signal(daemon, kill=kill)
        left = _wait_for_end(left, within_s=grace_s)
    if left:
        pids = ", ".join(str(daemon.pid) for daemon in left)
        raise SandboxError(f"process {pids} doesn't end", hint="see what holds it, then try again")


def find_strays(pki: Path, known: Collection[Daemon]) -> tuple[Daemon, ...]:
    """Return the sandbox's processes that aren't in `known`, oldest first.

    There are some if `up` was killed between a start and its record, or if the folder was removed
    by hand. A part is known by its name and by an argument that points into this sandbox's own
    `pki` folder, which nobody else has a reason to name.
    """
    pids = {daemon.pid for daemon in known if is_alive(daemon)}
    found = []
    for process in psutil.process_iter(["cmdline", "uids"]):
        uids = process.info["uids"]
        mine = uids is not None and uids.real == os.getuid()
        if mine and process.pid not in pids and _is_part(process.info["cmdline"] or [], pki):
            found.append(identify(process.pid))
    return tuple(sorted((d for d in found if d is not None), key=lambda d: d.started))


def _is_part(cmdline: Sequence[str], pki: Path) -> bool:
    argv = list(cmdline)
    for head in (_LAUNCHER, ("nice", "-n")):  # what it is for a moment, each with its niceness after it
        if tuple(argv[: len(head)]) == head:
            argv = argv[len(head) + 1 :]
    if not argv or Path(argv[0]).name not in PART_NAMES:
        return False
    return any(f"={pki}/" in argument for argument in argv[1:])


def _find(daemon: Daemon) -> psutil.Process | None:
    try:
        process = psutil.Process(daemon.pid)
        same = abs(process.create_time() - daemon.started) < _CLOCK_SLACK_S
    except (psutil.Error, ValueError):  # none with this pid, or none that there could be
        return None
    return process if same else None


def _wait_for_end(daemons: Sequence[Daemon], *, within_s: float) -> list[Daemon]:
    """Return those that haven't ended by then."""
    wait_until(lambda: not any(map(is_alive, daemons)), within_s=within_s)
    return [daemon for daemon in daemons if is_alive(daemon)]


def _signal(daemon: Daemon, *, kill: bool) -> None:
    process = _find(daemon)
    try:
        if process is not None:
            process.kill() if kill else process.terminate()
    except psutil.NoSuchProcess:
        return  # it ended meanwhile, which is what we want
    except psutil.AccessDenied as error:
        raise SandboxError(f"process {daemon.pid} isn't ours to stop") from error
