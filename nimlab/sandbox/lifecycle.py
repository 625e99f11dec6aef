"""Start, repair and stop the sandbox: the implementation of `up`, `build` and `down`.

The start of each process is recorded before the next process is started. After any crash, `bring_up` repairs
the sandbox and `take_down` removes it. A lock on the folder above `home` prevents two of these commands from
running at the same time.
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
from nimlab.sandbox import (
    build_programs,
    daemon_process,
    find_programs,
    folder_lock,
    pki,
    sandbox_status,
    simulated_nodes,
    start_parts,
)
from nimlab.sandbox.find_programs import Programs
from nimlab.sandbox.folder_layout import (
    OWN_FOLDER,
    Layout,
    exclude_from_git,
    make_layout,
    restrict_permissions,
    write_private,
)
from nimlab.sandbox.http_client import SandboxClient
from nimlab.sandbox.request_queue import ensure_queue
from nimlab.sandbox.saved_processes import Daemon, Record, load_record, save_record
from nimlab.sandbox.state_values import PART_NAMES, Phase, SandboxState, Step
from nimlab.sandbox.wait_until import wait_until

_READY_WITHIN_S: Final = 120.0
_GRACE_S: Final = 5.0
_ATTEMPTS: Final = 2
# Clients are stopped before their servers, so that no client reports a missing server.
_STOP_ORDER: Final = (
    ("kwok", "kube-scheduler", "kube-controller-manager"),
    ("kube-apiserver",),
    ("etcd",),
)


def bring_up(home: Path, *, nodes: int, cache: Path, report: Callable[[Step], None]) -> SandboxState:
    """See `nimlab.sandbox.up`."""
    if nodes < 1:
        raise SandboxError(f"a sandbox with {nodes} nodes cannot run pods", hint="request at least 1 node")
    layout = make_layout(home)
    with _locked(layout, report):
        state = _bring_up(layout, nodes, cache.resolve(), report)
    noun = "node" if nodes == 1 else "nodes"
    text = f"up: {state.server}, {nodes} simulated {noun}, kubeconfig {_shorten(layout.kubeconfig)}"
    report(Step(phase=Phase.UP, text=text))
    return state


def provide_programs(home: Path, *, cache: Path, report: Callable[[Step], None]) -> None:
    """See `nimlab.sandbox.provide_programs`."""
    layout = make_layout(home)
    with _locked(layout, report):
        _provide_programs(layout, cache.resolve(), report)


def take_down(home: Path, *, report: Callable[[Step], None]) -> bool:
    """See `nimlab.sandbox.down`."""
    layout = make_layout(home)
    if not layout.home.parent.is_dir():  # the user removed the parent folder, so there is no folder to lock
        return _stop_all(layout, {}, report)
    with _locked(layout, report):
        record = load_record(layout)
        stopped = _stop_all(layout, {} if record is None else record.daemons, report)
        removed = _remove_home(layout)
    if stopped or removed:
        report(Step(phase=Phase.DOWN, text="down"))
    return stopped or removed


def _bring_up(layout: Layout, count: int, cache: Path, report: Callable[[Step], None]) -> SandboxState:
    """Repair the sandbox and wait until it is ready; try once more if a part exited in the meantime.

    The controller-manager, for example, may exit some time after its API server was killed.
    """
    for _ in range(_ATTEMPTS):
        record = load_record(layout)
        if record is None or not sandbox_status.inspect_record(layout, record).running:
            record = _repair(layout, record, cache, report)
        record = _wait_until_ready(layout, record, count, report)
        if (exited := sandbox_status.find_dead(record)) is None:
            return sandbox_status.inspect_record(layout, record)
        error = start_parts.explain_exit(layout, exited)
    raise error


@contextmanager
def _locked(layout: Layout, report: Callable[[Step], None]) -> Iterator[None]:
    """Hold the sandbox's lock, and convert each OSError to a SandboxError."""
    text = "another nimlab process is using the sandbox; waiting for it"
    waiting = Step(phase=Phase.NOTE, text=text)
    try:
        layout.home.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with folder_lock.lock_folder(layout.home.parent, on_wait=lambda: report(waiting)):
            if layout.home.parent.name == OWN_FOLDER or layout.record.exists():
                exclude_from_git(layout)
            if layout.record.exists():  # without a record, the folder may not be a sandbox
                restrict_permissions(layout)
            yield
    except OSError as error:
        where = error.filename or layout.home
        raise SandboxError(error.strerror or str(error), where=where) from error


def _repair(layout: Layout, record: Record | None, cache: Path, report: Callable[[Step], None]) -> Record:
    """Provide missing programs, folders and certificates, then start the parts that are not running."""
    _reject_foreign_folder(layout)
    programs = _provide_programs(layout, cache, report)
    layout.home.mkdir(mode=0o700, exist_ok=True)
    exclude_from_git(layout)
    layout.logs.mkdir(mode=0o700, exist_ok=True)
    daemons = {} if record is None else record.daemons
    if pki.is_complete(layout.pki):
        daemon_process.stop(daemon_process.find_strays(layout.pki, daemons.values()), grace_s=_GRACE_S)
    else:  # running parts accept only the old certificates
        _stop_all(layout, daemons, report)
        pki.make_pki(layout)
    for path in (layout.stages, layout.scheduler):
        write_private(path, (resources.files(__package__) / path.name).read_bytes())
    if record is None:
        ports = dict(zip(start_parts.SERVERS, start_parts.find_free_ports(2), strict=True))
        record = Record(version=programs.version, nodes=0, ports=ports, daemons={})
        save_record(layout, record)
    return start_parts.Launcher(layout, record, programs, report).start_all()


def _provide_programs(layout: Layout, cache: Path, report: Callable[[Step], None]) -> Programs:
    """Find the programs, or build them."""
    go_version = build_programs.find_go_version()
    cached = find_programs.find_cached(cache, go_version)
    existing = find_programs.find_programs(os.environ, cached, report)
    if existing is not None:
        return existing
    log = layout.home.parent / "build.log"
    built = build_programs.build_programs(cache, go_version, log_path=log, report=report)
    return Programs(paths={name: built / name for name in PART_NAMES}, version=find_programs.VERSION)


def _wait_until_ready(layout: Layout, record: Record, count: int, report: Callable[[Step], None]) -> Record:
    """Create or delete nodes to reach `count`, and wait until pods can run or a part has exited."""
    with SandboxClient(layout, record.ports["kube-apiserver"]) as client:
        ensure_queue(client)
        simulated_nodes.ensure_nodes(client, count)
        if record.nodes != count:
            record = replace(record, nodes=count)
            save_record(layout, record)
        report(Step(phase=Phase.WAIT, text=f"{count} simulated nodes"))
        is_decided = wait_until(
            lambda: _can_run_pods(client, count) or sandbox_status.find_dead(record) is not None,
            within_s=_READY_WITHIN_S,
        )
    if not is_decided:
        what = f"the simulated nodes are not ready after {_READY_WITHIN_S:.0f} s"
        raise SandboxError(what, where=layout.logs, hint="read kwok.log in this folder")
    return record


def _can_run_pods(client: SandboxClient, count: int) -> bool:
    return simulated_nodes.are_nodes_ready(client, count) and simulated_nodes.has_default_service_account(
        client
    )


def _stop_all(layout: Layout, daemons: Mapping[str, Daemon], report: Callable[[Step], None]) -> bool:
    """Stop every process of the sandbox, even if it is not recorded; return False if there was none."""
    strays = daemon_process.find_strays(layout.pki, daemons.values())
    stopped = bool(strays)
    for names in _STOP_ORDER:
        alive = [name for name in names if name in daemons and daemon_process.is_alive(daemons[name])]
        stopped = stopped or bool(alive)
        for name in alive:
            report(Step(phase=Phase.STOP, text=name))
        daemon_process.stop([daemons[name] for name in alive], grace_s=_GRACE_S)
    daemon_process.stop(strays, grace_s=_GRACE_S)
    return stopped


def _remove_home(layout: Layout) -> bool:
    """Remove the sandbox's folder; return False if there was none.

    Raises SandboxError if the folder contains foreign files, which are kept.
    """
    if not layout.home.is_dir():
        return False
    for name in sorted(layout.own_names):
        path = layout.home / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    if foreign := sorted(path.name for path in layout.home.iterdir()):
        what = f"the sandbox is down; `{foreign[0]}` was kept, because nimlab did not create it"
        raise SandboxError(what, where=layout.home, hint="remove it yourself if you do not need it")
    layout.home.rmdir()
    return True


def _reject_foreign_folder(layout: Layout) -> None:
    """Raise SandboxError if the folder is not a sandbox, because `down` would delete files in it."""
    home = layout.home
    if home.is_symlink() or (home.exists() and not home.is_dir()):
        raise SandboxError("the sandbox's path is not a folder", where=home, hint="remove or rename it")
    if layout.record.exists() or not home.exists():
        return
    if foreign := sorted({path.name for path in home.iterdir()} - layout.own_names):
        what = f"the folder contains `{foreign[0]}`, which does not belong to the sandbox"
        raise SandboxError(what, where=home, hint="choose an empty folder or a new one")


def _shorten(path: Path) -> Path:
    """Return the path relative to the current folder if it is inside that folder."""
    try:
        here = Path.cwd()
    except OSError:  # the current folder has been deleted
        return path
    return path.relative_to(here) if path.is_relative_to(here) else path
