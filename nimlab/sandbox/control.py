"""The sandbox brought up, repaired, looked at and taken down.

Every start is recorded before the next one, so that whatever is killed, `bring_up` mends and
`take_down` clears. A lock on the folder above `home` keeps two of these from working at once.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Final

from nimlab.errors import SandboxError
from nimlab.sandbox import build, launch, lock, nodes, pki, process, programs
from nimlab.sandbox.api import Api
from nimlab.sandbox.programs import Programs
from nimlab.sandbox.state import (
    PART_NAMES,
    Layout,
    PartState,
    Phase,
    Record,
    SandboxState,
    Step,
    load_record,
    make_layout,
    save_record,
    write_private,
)

_SETTLE_S: Final = 120.0
_GRACE_S: Final = 5.0
# The clients first, etcd last: nobody is left talking to nothing.
_STOPPING: Final = (
    ("kwok", "kube-scheduler", "kube-controller-manager"),
    ("kube-apiserver",),
    ("etcd",),
)


def bring_up(
    home: Path, *, nodes: int, cache: Path, report: Callable[[Step], None]
) -> SandboxState:
    """See `nimlab.sandbox.up`."""
    if nodes < 1:
        raise SandboxError(f"{nodes} nodes can't run a pod", hint="ask for 1 or more")
    layout = make_layout(home)
    with _alone(layout, report):
        record = load_record(layout)
        if record is None or not _is_running(layout, record):
            record = _repair(layout, record, cache.resolve(), report)
        _settle(layout, record, nodes, report)
        state = _make_state(layout, replace(record, nodes=nodes), running=True)
    many = "node" if nodes == 1 else "nodes"
    text = f"up: {state.server}, {nodes} simulated {many}, kubeconfig {layout.kubeconfig}"
    report(Step(phase=Phase.UP, text=text))
    return state


def take_down(home: Path, *, report: Callable[[Step], None]) -> bool:
    """See `nimlab.sandbox.down`."""
    layout = make_layout(home)
    if not layout.home.parent.is_dir():
        return False
    with _alone(layout, report):
        record = load_record(layout)
        daemons = {} if record is None else dict(record.daemons)
        strays = process.find_strays(layout.pki, daemons.values())
        if not layout.home.exists() and not strays:
            return False
        _refuse_foreign(layout)
        for names in _STOPPING:
            alive = [daemons[n] for n in names if n in daemons and process.is_alive(daemons[n])]
            if alive:
                report(Step(phase=Phase.STOP, text=", ".join(names)))
            process.stop(alive, grace_s=_GRACE_S)
        process.stop(strays, grace_s=_GRACE_S)
        if layout.home.exists():
            shutil.rmtree(layout.home)
    report(Step(phase=Phase.DOWN, text="down"))
    return True


def look(home: Path) -> SandboxState | None:
    """See `nimlab.sandbox.read_state`."""
    layout = make_layout(home)
    record = load_record(layout)
    if record is None:
        return None
    return _make_state(layout, record, running=_is_running(layout, record))


@contextmanager
def _alone(layout: Layout, report: Callable[[Step], None]) -> Iterator[None]:
    """Keep others out, and say as an error of ours what the system refuses."""
    waiting = Step(
        phase=Phase.NOTE, text="another nimlab is at work on the sandbox; waiting for it"
    )
    try:
        layout.home.parent.mkdir(parents=True, exist_ok=True)
        with lock.hold(layout.home.parent, on_wait=lambda: report(waiting)):
            yield
    except OSError as error:
        where = error.filename or layout.home
        raise SandboxError(error.strerror or str(error), where=where) from error


def _repair(
    layout: Layout, record: Record | None, cache: Path, report: Callable[[Step], None]
) -> Record:
    """Start whatever doesn't run, having made what it needs."""
    _refuse_foreign(layout)
    chosen = _provide_programs(layout, cache, report)
    layout.home.mkdir(mode=0o700, exist_ok=True)
    layout.logs.mkdir(mode=0o700, exist_ok=True)
    known = () if record is None else tuple(record.daemons.values())
    process.stop(process.find_strays(layout.pki, known), grace_s=_GRACE_S)
    pki.ensure_pki(layout)
    write_private(layout.stages, (resources.files(__package__) / "stages.yaml").read_bytes())
    if record is None:
        ports = dict(zip(launch.SERVERS, launch.find_free_ports(2), strict=True))
        record = Record(version=chosen.version, nodes=0, ports=ports, daemons={})
        save_record(layout, record)
    return launch.Launch(layout, record, chosen, report).start_all()


def _provide_programs(layout: Layout, cache: Path, report: Callable[[Step], None]) -> Programs:
    """Find the programs, building them if they can't be found."""
    go_version = build.find_go_version()
    cached = programs.find_cached(cache, go_version)
    found = programs.find_programs(os.environ, cached, report)
    if found is not None:
        return found
    log = layout.home.parent / "build.log"
    built = build.build_programs(cache, go_version, log_path=log, report=report)
    return Programs(paths={name: built / name for name in PART_NAMES}, version=programs.VERSION)


def _settle(layout: Layout, record: Record, count: int, report: Callable[[Step], None]) -> None:
    """Make the nodes as many as asked for, and wait until the cluster can run pods."""
    with Api(layout, record.ports["kube-apiserver"]) as api:
        nodes.ensure_nodes(api, count)
        if record.nodes != count:
            save_record(layout, replace(record, nodes=count))
        report(Step(phase=Phase.WAIT, text=f"{count} simulated nodes"))
        settled = launch.wait_until(
            lambda: (
                _find_dead(record) is not None
                or (nodes.are_nodes_ready(api, count) and nodes.is_default_account_there(api))
            ),
            within_s=_SETTLE_S,
        )
    if (dead := _find_dead(record)) is not None:
        raise launch.explain_end(layout, dead)
    if not settled:
        what = f"the simulated nodes aren't ready after {_SETTLE_S:.0f} s"
        raise SandboxError(what, where=layout.logs, hint="its logs say why")


def _refuse_foreign(layout: Layout) -> None:
    """Keep our hands off a folder that isn't ours: all of it would be removed one day."""
    home = layout.home
    if not home.exists() and not home.is_symlink():
        return
    if home.is_symlink() or not home.is_dir():
        raise SandboxError("the sandbox's home has to be a folder of its own", where=home)
    if foreign := sorted({p.name for p in home.iterdir()} - layout.own_names):
        what = f"the folder has `{foreign[0]}` in it, which isn't the sandbox's"
        raise SandboxError(what, where=home, hint="move that elsewhere, or choose another folder")


def _find_dead(record: Record) -> str | None:
    for name in PART_NAMES:
        daemon = record.daemons.get(name)
        if daemon is None or not process.is_alive(daemon):
            return name
    return None


def _is_running(layout: Layout, record: Record) -> bool:
    if _find_dead(record) is not None or not layout.pki.is_dir():
        return False
    return launch.is_answering(layout, "kube-apiserver", record.ports["kube-apiserver"])


def _make_state(layout: Layout, record: Record, *, running: bool) -> SandboxState:
    parts = []
    for name in PART_NAMES:
        daemon = record.daemons.get(name)
        alive = daemon is not None and process.is_alive(daemon)
        pid = None if daemon is None else daemon.pid
        parts.append(PartState(name=name, pid=pid, alive=alive, log=layout.log(name)))
    return SandboxState(
        running=running,
        server=f"https://127.0.0.1:{record.ports['kube-apiserver']}",
        kubeconfig=layout.kubeconfig,
        nodes=record.nodes,
        parts=tuple(parts),
        version=record.version,
    )
