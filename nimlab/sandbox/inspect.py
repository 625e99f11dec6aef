"""How the sandbox is now: its record held against the processes and the API server.

Only looks: nothing is started, stopped or written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from nimlab.sandbox import process
from nimlab.sandbox.client import Api
from nimlab.sandbox.state import (
    PART_NAMES,
    Layout,
    PartState,
    Record,
    SandboxState,
    load_record,
    make_layout,
)

_TIMEOUT_S: Final = 2.0
# Where a server says how it is, and the certificate that is shown to it.
_HEALTH: Final = {"etcd": ("/health", "etcd-client"), "kube-apiserver": ("/readyz", "admin")}


def look(home: Path) -> SandboxState | None:
    """See `nimlab.sandbox.read_state`."""
    layout = make_layout(home)
    record = load_record(layout)
    return None if record is None else make_state(layout, record)


def make_state(layout: Layout, record: Record) -> SandboxState:
    """Return what can be said of the sandbox now; costs one request."""
    parts = []
    for name in PART_NAMES:
        daemon = record.daemons.get(name)
        pid = None if daemon is None else daemon.pid
        alive = is_alive(record, name)
        parts.append(PartState(name=name, pid=pid, alive=alive, log=layout.log(name)))
    return SandboxState(
        running=all(part.alive for part in parts) and is_answering(layout, record, "kube-apiserver"),
        server=f"https://127.0.0.1:{record.ports['kube-apiserver']}",
        kubeconfig=layout.kubeconfig,
        nodes=record.nodes,
        parts=tuple(parts),
        version=record.version,
    )


def is_alive(record: Record, name: str) -> bool:
    """Tell whether the part's own process runs."""
    daemon = record.daemons.get(name)
    return daemon is not None and process.is_alive(daemon)


def find_dead(record: Record) -> str | None:
    """Return the first part that doesn't run."""
    return next((name for name in PART_NAMES if not is_alive(record, name)), None)


def is_answering(layout: Layout, record: Record, name: str) -> bool:
    """Tell whether the server says that it is well."""
    path, user = _HEALTH[name]
    try:
        with Api(layout, record.ports[name], user=user, timeout_s=_TIMEOUT_S) as api:
            return api.call("GET", path).ok
    except OSError:  # no certificate to ask it with
        return False
