"""The sandbox brought up, repaired and taken down.

Every start is recorded before the next one, so that whatever is killed, `bring_up` mends and
`take_down` clears. A lock on the folder above `home` keeps two of these from working at once.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Final

from nimlab.errors import SandboxError
from nimlab.sandbox import build_programs as build
from nimlab.sandbox import folder_lock as lock
from nimlab.sandbox import inspect as view
from nimlab.sandbox import launch, nodes, pki, process, programs
from nimlab.sandbox.client import Api
from nimlab.sandbox.fair_queue import ensure_queue
from nimlab.sandbox.poll import wait_until
from nimlab.sandbox.programs import Programs
from nimlab.sandbox.state import (
    OWN_FOLDER,
    PART_NAMES,
    Daemon,
    Layout,
    Phase,
    Record,
    SandboxState,
    Step,
    exclude_from_git,
    keep_private,
    load_record,
    make_layout,
    save_record,
    write_private,
)

_SETTLE_S: Final = 120.0
_GRACE_S: Final = 5.0
_ATTEMPTS: Final = 2
# The clients first, etcd last: nobody is left talking to nothing.
_STOPPING: Final = (
    ("kwok", "kube-scheduler", "kube-controller-manager"),
    ("kube-apiserver",),
    ("etcd",),
)


def bring_up(home: Path, *, nodes: int, cache: Path, report: Callable[[Step], None]) -> SandboxState:
    """See `nimlab.sandbox.up`."""
    if nodes < 1:
        raise SandboxError(f"{nodes} nodes can't run a pod", hint="ask for 1 or more")
    layout = make_layout(home)
    with _alone(layout, report):
        state = _bring_up(layout, nodes, cache.resolve(), report)
    many = "node" if nodes == 1 else "nodes"
    text = f"up: {state.server}, {nodes} simulated {many}, kubeconfig {_shorten(layout.kubeconfig)}"
    report(Step(phase=Phase.UP, text=text))
    return state


def provide_programs(home: Path, *, cache: Path, report: Callable[[Step], None]) -> None:
    """See `nimlab.sandbox.build_programs`."""
    layout = make_layout(home)
    with _alone(layout, report):
        _provide_programs(layout, cache.resolve(), report)


def take_down(home: Path, *, report: Callable[[Step], None]) -> bool:
    """See `nimlab.sandbox.down`."""
    layout = make_layout(home)
    if not layout.home.parent.is_dir():  # removed by hand, and nothing to lock
        return _stop_all(layout, {}, report)
    with _alone(layout, report):
        record = load_record(layout)
        stopped = _stop_all(layout, {} if record is None else record.daemons, report)
        removed = _remove_own(layout)
    if stopped or removed:
        report(Step(phase=Phase.DOWN, text="down"))
    return stopped or removed


def _bring_up(layout: Layout, count: int, cache: Path, report: Callable[[Step], None]) -> SandboxState:
    """Repair and settle; once more if a part ended meanwhile.

    The controller-manager may, for one, some time after the API server that it watched was killed.
    """
    for _ in range(_ATTEMPTS):
        record = load_record(layout)
        if record is None or not view.make_state(layout, record).running:
            record = _repair(layout, record, cache, report)
        record = _settle(layout, record, count, report)
        if (dead := view.find_dead(record)) is None:
            return view.make_state(layout, record)
        end = launch.explain_end(layout, dead)
    raise end


@contextmanager
def _alone(layout: Layout, report: Callable[[Step], None]) -> Iterator[None]:
    """Keep others out, and say as an error of ours what the system refuses."""
    waiting = Step(phase=Phase.NOTE, text="another nimlab is at work on the sandbox; waiting for it")
    try:
        layout.home.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with lock.hold(layout.home.parent, on_wait=lambda: report(waiting)):
            if layout.home.parent.name == OWN_FOLDER or layout.record.exists():
                exclude_from_git(layout)
            if layout.record.exists():  # else the folder may be somebody else's
                keep_private(layout)
            yield
    except OSError as error:
        where = error.filename or layout.home
        raise SandboxError(error.strerror or str(error), where=where) from error


def _repair(layout: Layout, record: Record | None, cache: Path, report: Callable[[Step], None]) -> Record:
    """Start whatever doesn't run, having made what it needs."""
    _refuse_foreign(layout)
    chosen = _provide_programs(layout, cache, report)
    layout.home.mkdir(mode=0o700, exist_ok=True)
    exclude_from_git(layout)
    layout.logs.mkdir(mode=0o700, exist_ok=True)
    daemons = {} if record is None else record.daemons
    if pki.is_complete(layout.pki):
        process.stop(process.find_strays(layout.pki, daemons.values()), grace_s=_GRACE_S)
    else:  # who trusts the old certificates has to go
        _stop_all(layout, daemons, report)
        pki.make_pki(layout)
    for path in (layout.stages, layout.scheduler):
        write_private(path, (resources.files(__package__) / path.name).read_bytes())
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


def _settle(layout: Layout, record: Record, count: int, report: Callable[[Step], None]) -> Record:
    """Make the nodes as many as asked for, and wait until pods can run or a part has ended."""
    with Api(layout, record.ports["kube-apiserver"]) as api:
        ensure_queue(api)
        nodes.ensure_nodes(api, count)
        if record.nodes != count:
            record = replace(record, nodes=count)
            save_record(layout, record)
        report(Step(phase=Phase.WAIT, text=f"{count} simulated nodes"))
        settled = wait_until(
            lambda: (
                (nodes.are_nodes_ready(api, count) and nodes.is_default_account_there(api))
                or view.find_dead(record) is not None
            ),
            within_s=_SETTLE_S,
        )
    if not settled:
        what = f"the simulated nodes aren't ready after {_SETTLE_S:.0f} s"
        raise SandboxError(what, where=layout.logs, hint="see kwok.log there")
    return record


def _stop_all(layout: Layout, daemons: Mapping[str, Daemon], report: Callable[[Step], None]) -> bool:
    """Stop every process of the sandbox, strays too; False if there was none."""
    strays = process.find_strays(layout.pki, daemons.values())
    found = bool(strays)
    for names in _STOPPING:
        alive = [n for n in names if n in daemons and process.is_alive(daemons[n])]
        found = found or bool(alive)
        for name in alive:
            report(Step(phase=Phase.STOP, text=name))
        process.stop([daemons[n] for n in alive], grace_s=_GRACE_S)
    process.stop(strays, grace_s=_GRACE_S)
    return found


def _remove_own(layout: Layout) -> bool:
    """Remove the folder; False if there was none. Raises SandboxError if it isn't all ours."""
    if not layout.home.is_dir():
        return False
    for name in sorted(layout.own_names):
        path = layout.home / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    if left := sorted(p.name for p in layout.home.iterdir()):
        what = f"the sandbox is down; `{left[0]}` was left, which isn't its own"
        raise SandboxError(what, where=layout.home, hint="remove it yourself if it isn't needed")
    layout.home.rmdir()
    return True


def _refuse_foreign(layout: Layout) -> None:
    """Keep our hands off a folder that is somebody else's: `down` removes things there."""
    home = layout.home
    if home.is_symlink() or (home.exists() and not home.is_dir()):
        raise SandboxError("the sandbox's home has to be a folder of its own", where=home)
    if layout.record.exists() or not home.exists():
        return
    if foreign := sorted({p.name for p in home.iterdir()} - layout.own_names):
        what = f"the folder has `{foreign[0]}` in it, which isn't the sandbox's"
        raise SandboxError(what, where=home, hint="choose an empty folder, or one that isn't there")


def _shorten(path: Path) -> Path:
    """Return the path as people write it: relative to the current folder if it is below it."""
    try:
        here = Path.cwd()
    except OSError:  # it has been deleted
        return path
    return path.relative_to(here) if path.is_relative_to(here) else path
