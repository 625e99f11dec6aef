"""Read the current state of the sandbox: compare its record with the running processes and the API server.

This module starts no process, stops no process and writes no file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from nimlab.errors import NimlabError
from nimlab.sandbox import daemon_process
from nimlab.sandbox.folder_layout import Layout, make_layout
from nimlab.sandbox.http_client import SandboxClient
from nimlab.sandbox.saved_processes import Record, load_record
from nimlab.sandbox.state_values import PART_NAMES, PartState, SandboxState

_TIMEOUT_S: Final = 2.0
# Each server has a health endpoint, and a request to it needs the client certificate with this name.
_HEALTH: Final = {"etcd": ("/health", "etcd-client"), "kube-apiserver": ("/readyz", "admin")}


def read_state(home: Path) -> SandboxState | None:
    """See `nimlab.sandbox.read_state`."""
    layout = make_layout(home)
    record = load_record(layout)
    return None if record is None else inspect_record(layout, record)


def inspect_record(layout: Layout, record: Record) -> SandboxState:
    """Return the current state of a recorded sandbox. Send at most one request."""
    parts = []
    for name in PART_NAMES:
        daemon = record.daemons.get(name)
        pid = None if daemon is None else daemon.pid
        alive = is_alive(record, name)
        parts.append(PartState(name=name, pid=pid, alive=alive, log=layout.log(name)))
    return SandboxState(
        running=all(part.alive for part in parts) and is_healthy(layout, record, "kube-apiserver"),
        server=f"https://127.0.0.1:{record.ports['kube-apiserver']}",
        kubeconfig=layout.kubeconfig,
        nodes=record.nodes,
        parts=tuple(parts),
        version=record.version,
    )


def is_alive(record: Record, name: str) -> bool:
    """Return True if the recorded process of the part is running."""
    daemon = record.daemons.get(name)
    return daemon is not None and daemon_process.is_alive(daemon)


def find_dead(record: Record) -> str | None:
    """Return the name of the first part that is not running; None if all parts are running."""
    return next((name for name in PART_NAMES if not is_alive(record, name)), None)


def is_healthy(layout: Layout, record: Record, name: str) -> bool:
    """Return True if the health endpoint of the server reports success."""
    path, user = _HEALTH[name]
    try:
        with SandboxClient(layout, record.ports[name], user=user, timeout_s=_TIMEOUT_S) as client:
            return client.request("GET", path).ok
    except (OSError, NimlabError):  # a certificate is missing or damaged
        return False
