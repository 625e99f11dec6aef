"""The five parts brought to life in their order; those that live are left alone.

In: a record of what should run. Out: the record of what runs, saved after every start. A server
whose port was taken meanwhile moves to another one, and what depends on it is started anew.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from nimlab.errors import SandboxError
from nimlab.sandbox import inspect as view
from nimlab.sandbox import nodes, pki, process
from nimlab.sandbox.client import Api
from nimlab.sandbox.command_lines import format_command
from nimlab.sandbox.poll import wait_until
from nimlab.sandbox.programs import Programs
from nimlab.sandbox.state import PART_NAMES, Layout, Phase, Record, Step, save_record

SERVERS: Final = ("etcd", "kube-apiserver")

_DEPENDENTS: Final = {
    "etcd": ("kube-apiserver",),
    "kube-apiserver": ("kwok", "kube-scheduler", "kube-controller-manager"),
}
# Ten thousand pods that start would else leave no time to who asks for them, nor to the server that answers.
_SERVERS_NICE: Final = 5
_CONTROLLERS_NICE: Final = 15
_ATTEMPTS: Final = 3
_ANSWER_S: Final = 90.0
_PORT_S: Final = 2.0
_GRACE_S: Final = 5.0
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
            if view.is_alive(self.record, name):
                continue
            if name == "kwok":
                with Api(self._layout, port) as api:
                    nodes.forget_leases(api)
            self._start(name)
        return self.record

    def _ensure_server(self, name: str) -> None:
        for _ in range(_ATTEMPTS):
            began = 0
            if not view.is_alive(self.record, name):
                self._ensure_port(name)
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
        ended = wait_until(
            lambda: (
                not view.is_alive(self.record, name) or view.is_answering(self._layout, self.record, name)
            ),
            within_s=_ANSWER_S,
        )
        if not ended:
            what = f"{name} runs, and gives no good answer for {_ANSWER_S:.0f} s"
            raise SandboxError(what, where=self._layout.log(name), hint=_HINT)
        return view.is_alive(self.record, name)

    def _ensure_port(self, name: str) -> None:
        """Keep the port if it is free; one that was killed holds it until its memory is cleared."""
        port = self.record.ports[name]
        if not wait_until(lambda: is_port_free(port), within_s=_PORT_S):
            self._move(name)

    def _move(self, name: str) -> None:
        """Choose another port; who still uses the old one is stopped first."""
        using = [self.record.daemons[n] for n in _DEPENDENTS[name] if n in self.record.daemons]
        process.stop(using, grace_s=_GRACE_S)
        self._save(self.record.with_port(name, find_free_ports(1)[0]))

    def _start(self, name: str) -> None:
        self._report(Step(phase=Phase.START, text=name))
        program = self._programs.paths[name]
        command = format_command(name, program, self._layout, self.record.ports)
        daemon = process.start(
            command,
            log=self._layout.log(name),
            folder=self._layout.home,
            niceness=_SERVERS_NICE if name in SERVERS else _CONTROLLERS_NICE,
        )
        if daemon is None:  # whoever waits for it will find it dead, and say why
            return
        record = self.record.with_daemon(name, daemon)
        if name == "kube-apiserver":
            record = replace(record, version=self._programs.version)
        self._save(record)

    def _save(self, record: Record) -> None:
        self.record = record
        save_record(self._layout, record)


def explain_end(layout: Layout, name: str) -> SandboxError:
    """Return the error for a part that ended by itself, with its last words."""
    log = layout.log(name)
    lines = [line for line in _read_tail(log, 0).splitlines() if line.strip()][-_LAST_LINES:]
    tail = "".join(f"\n    {line}" for line in lines)
    what = f"{name} ended while the sandbox was starting; the last lines of its log are:{tail}"
    return SandboxError(what, where=log, hint=_HINT)


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
