"""The five parts brought to life in their order; those that live are left alone.

In: a record of what should run. Out: the record of what runs, saved after every start. A server
whose port was taken meanwhile moves to another one, and what depends on it is started anew.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from nimlab.errors import SandboxError
from nimlab.sandbox import nodes, pki, process
from nimlab.sandbox.api import Api
from nimlab.sandbox.parts import format_command
from nimlab.sandbox.programs import Programs
from nimlab.sandbox.state import PART_NAMES, Layout, Phase, Record, Step, save_record

SERVERS: Final = ("etcd", "kube-apiserver")

_HEALTH: Final = {"etcd": ("/health", "etcd-client"), "kube-apiserver": ("/readyz", "admin")}
_DEPENDENTS: Final = {
    "etcd": ("kube-apiserver",),
    "kube-apiserver": ("kwok", "kube-scheduler", "kube-controller-manager"),
}
_ATTEMPTS: Final = 3
_ANSWER_S: Final = 90.0
_GRACE_S: Final = 5.0
_PAUSE_S: Final = 0.05
_LAST_LINES: Final = 8
_TAIL_BYTES: Final = 8192
_HINT: Final = "`nimlab sandbox down` and `nimlab sandbox up` begin anew, with an empty cluster"


class Launch:
    """One bringing-up: holds the record and keeps it true."""

    def __init__(
        self,
        layout: Layout,
        record: Record,
        programs: Programs,
        report: Callable[[Step], None],
    ) -> None:
        self.record = record
        self._layout = layout
        self._programs = programs
        self._report = report

    def start_all(self) -> Record:
        """Start what is dead, servers first; return the record as saved. Raises SandboxError."""
        for name in SERVERS:
            self._ensure_server(name)
        port = self.record.ports["kube-apiserver"]
        pki.write_kubeconfigs(self._layout, port)
        for name in PART_NAMES:
            if self._is_alive(name):
                continue
            if name == "kwok":
                with Api(self._layout, port) as api:
                    nodes.forget_leases(api)
            self._start(name)
        return self.record

    def _ensure_server(self, name: str) -> None:
        for _ in range(_ATTEMPTS):
            began = 0
            if not self._is_alive(name):
                if not is_port_free(self.record.ports[name]):
                    self._move(name)
                began = _size(self._layout.log(name))
                self._start(name)
            if self._wait_for_answer(name):
                return
            if "address already in use" not in _read_tail(self._layout.log(name), began):
                break
            self._move(name)
        raise explain_end(self._layout, name)

    def _wait_for_answer(self, name: str) -> bool:
        """Wait for a good answer; False if it ended. Raises SandboxError if it does neither."""
        port = self.record.ports[name]
        ended = wait_until(
            lambda: not self._is_alive(name) or is_answering(self._layout, name, port),
            within_s=_ANSWER_S,
        )
        if not ended:
            what = f"{name} runs, and gives no good answer for {_ANSWER_S:.0f} s"
            raise SandboxError(what, where=self._layout.log(name), hint=_HINT)
        return self._is_alive(name)

    def _move(self, name: str) -> None:
        """Choose another port; who still uses the old one is stopped first."""
        using = [self.record.daemons[n] for n in _DEPENDENTS[name] if n in self.record.daemons]
        process.stop(using, grace_s=_GRACE_S)
        self._save(self.record.with_port(name, find_free_ports(1)[0]))

    def _start(self, name: str) -> None:
        self._report(Step(phase=Phase.START, text=name))
        program = self._programs.paths[name]
        command = format_command(name, program, self._layout, self.record.ports)
        daemon = process.start(command, log=self._layout.log(name), folder=self._layout.home)
        if daemon is None:
            raise explain_end(self._layout, name)
        record = self.record.with_daemon(name, daemon)
        if name == "kube-apiserver":
            record = replace(record, version=self._programs.version)
        self._save(record)

    def _save(self, record: Record) -> None:
        self.record = record
        save_record(self._layout, record)

    def _is_alive(self, name: str) -> bool:
        daemon = self.record.daemons.get(name)
        return daemon is not None and process.is_alive(daemon)


def is_answering(layout: Layout, name: str, port: int) -> bool:
    """Tell whether the server says that it is well."""
    path, user = _HEALTH[name]
    with Api(layout, port, user=user) as api:
        return api.call("GET", path).ok


def explain_end(layout: Layout, name: str) -> SandboxError:
    """Return the error for a part that ended by itself, with its last words."""
    log = layout.log(name)
    lines = [line for line in _read_tail(log, 0).splitlines() if line.strip()][-_LAST_LINES:]
    tail = "".join(f"\n    {line}" for line in lines)
    what = f"{name} ended while the sandbox was starting; the last lines of its log are:{tail}"
    return SandboxError(what, where=log, hint=_HINT)


def wait_until(check: Callable[[], bool], *, within_s: float) -> bool:
    """Ask again and again; False if the time is over before the answer is yes."""
    deadline = time.monotonic() + within_s
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE_S)
    return True


def find_free_ports(count: int) -> tuple[int, ...]:
    """Return ports of the loopback that nobody listens on, all different."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return tuple(s.getsockname()[1] for s in sockets)
    finally:
        for s in sockets:
            s.close()


def is_port_free(port: int) -> bool:
    """Tell whether the port can be listened on."""
    try:
        socket.create_server(("127.0.0.1", port)).close()  # reuses what only lingers in TIME_WAIT
    except OSError:
        return False
    return True


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


def _read_tail(log: Path, offset: int) -> str:
    """Return the end of the log, from `offset` on at the earliest."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(offset, _size(log) - _TAIL_BYTES))
        return file.read().decode(errors="replace")
