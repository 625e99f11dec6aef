"""Start the five parts of the control plane in order, except those that are running.

In: a record of the parts that should run. Out: the record of the parts that run, saved after every start. If
another program has taken a server's port, the server gets a new port and its clients are restarted.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from nimlab.errors import SandboxError
from nimlab.sandbox import daemon_process, pki, sandbox_status, simulated_nodes
from nimlab.sandbox.command_lines import format_command
from nimlab.sandbox.find_programs import Programs
from nimlab.sandbox.folder_layout import Layout
from nimlab.sandbox.http_client import SandboxClient
from nimlab.sandbox.saved_processes import Record, save_record
from nimlab.sandbox.state_values import PART_NAMES, Phase, Step
from nimlab.sandbox.wait_until import wait_until

SERVERS: Final = ("etcd", "kube-apiserver")

_CLIENTS: Final = {
    "etcd": ("kube-apiserver",),
    "kube-apiserver": ("kwok", "kube-scheduler", "kube-controller-manager"),
}
# Low priorities keep the machine usable while 10,000 pods start. The controllers have a lower priority than
# the servers, so that the API server stays responsive.
_SERVERS_NICE: Final = 5
_CONTROLLERS_NICE: Final = 15
_ATTEMPTS: Final = 3
_HEALTHY_WITHIN_S: Final = 90.0
_PORT_FREE_WITHIN_S: Final = 2.0
_GRACE_S: Final = 5.0
_LOG_LINES: Final = 8
_LOG_BYTES: Final = 8192
_HINT: Final = "`nimlab sandbox down`, then `nimlab sandbox up`, starts again with an empty cluster"


class Launcher:
    """The launcher of the parts of one sandbox; it keeps the record up to date."""

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
        """Start the parts that are not running, servers first; return the record. Raises SandboxError."""
        for name in SERVERS:
            self._ensure_server(name)
        port = self.record.ports["kube-apiserver"]
        pki.write_kubeconfigs(self._layout, port)
        for name in PART_NAMES:
            if sandbox_status.is_alive(self.record, name):
                continue
            if name == "kwok":
                with SandboxClient(self._layout, port) as client:
                    simulated_nodes.delete_leases(client)
            self._start(name)
        return self.record

    def _ensure_server(self, name: str) -> None:
        for _ in range(_ATTEMPTS):
            log_offset = 0
            if not sandbox_status.is_alive(self.record, name):
                self._ensure_port(name)
                log_offset = _size(self._layout.log(name))
                self._start(name)
            if self._wait_until_healthy(name):
                return
            if "address already in use" not in _read_log_end(self._layout.log(name), log_offset):
                break
            self._change_port(name)
        raise explain_exit(self._layout, name)

    def _wait_until_healthy(self, name: str) -> bool:
        """Return True once the server is healthy, False if it exited. Raises SandboxError on a timeout."""
        is_decided = wait_until(
            lambda: (
                not sandbox_status.is_alive(self.record, name)
                or sandbox_status.is_healthy(self._layout, self.record, name)
            ),
            within_s=_HEALTHY_WITHIN_S,
        )
        if not is_decided:
            what = f"{name} is running, but was not healthy within {_HEALTHY_WITHIN_S:.0f} s"
            raise SandboxError(what, where=self._layout.log(name), hint=_HINT)
        return sandbox_status.is_alive(self.record, name)

    def _ensure_port(self, name: str) -> None:
        """Record a new port for the server, unless its port is free or becomes free soon.

        A killed process may occupy its port for a moment.
        """
        port = self.record.ports[name]
        if not wait_until(lambda: is_port_free(port), within_s=_PORT_FREE_WITHIN_S):
            self._change_port(name)

    def _change_port(self, name: str) -> None:
        """Record a new port for the server, and stop its clients, because they use the old port."""
        clients = [self.record.daemons[n] for n in _CLIENTS[name] if n in self.record.daemons]
        daemon_process.stop(clients, grace_s=_GRACE_S)
        self._save(self.record.with_port(name, find_free_ports(1)[0]))

    def _start(self, name: str) -> None:
        self._report(Step(phase=Phase.START, text=name))
        program = self._programs.paths[name]
        command = format_command(name, program, self._layout, self.record.ports)
        daemon = daemon_process.start(
            command,
            log=self._layout.log(name),
            folder=self._layout.home,
            niceness=_SERVERS_NICE if name in SERVERS else _CONTROLLERS_NICE,
        )
        if daemon is None:  # the part exited at once; `_wait_until_healthy` and its caller report the reason
            return
        record = self.record.with_daemon(name, daemon)
        if name == "kube-apiserver":
            record = replace(record, version=self._programs.version)
        self._save(record)

    def _save(self, record: Record) -> None:
        self.record = record
        save_record(self._layout, record)


def explain_exit(layout: Layout, name: str) -> SandboxError:
    """Return the error for a part that exited unexpectedly, with the last lines of its log."""
    log = layout.log(name)
    lines = [line for line in _read_log_end(log, 0).splitlines() if line.strip()][-_LOG_LINES:]
    quoted = "".join(f"\n    {line}" for line in lines)
    what = f"{name} exited while the sandbox was starting; the last lines of its log are:{quoted}"
    return SandboxError(what, where=log, hint=_HINT)


def find_free_ports(count: int) -> tuple[int, ...]:
    """Return different free ports of the loopback interface."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return tuple(s.getsockname()[1] for s in sockets)
    finally:
        for s in sockets:
            s.close()


def is_port_free(port: int) -> bool:
    """Return True if a server can listen on the port."""
    try:
        socket.create_server(("127.0.0.1", port)).close()  # ignores connections in TIME_WAIT
    except OSError:
        return False
    return True


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


def _read_log_end(log: Path, offset: int) -> str:
    """Return the last part of the log, beginning at `offset` or later."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(offset, _size(log) - _LOG_BYTES))
        return file.read().decode(errors="replace")
