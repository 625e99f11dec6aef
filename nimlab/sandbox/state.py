"""The sandbox as values, and what is remembered of it on disk.

The record is written whole and at once after every start of a process, so that a crash at any point
leaves one that `up` can repair. Imported on every start of the CLI, hence nothing heavy here; no
process is started or stopped, and of the network only one TCP connect is used (`is_up`).
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

PART_NAMES: Final = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kwok",
)  # in the order of starting

OWN_FOLDER: Final = ".nimlab"
"""Name of the folder that nimlab makes in a lab."""
_FORMAT: Final = 1
_CONNECT_TIMEOUT_S: Final = 0.3


class Phase(StrEnum):
    """What a step is about; the CLI chooses by it how the step is drawn."""

    NOTE = "note"  # something worth knowing, once
    BUILD = "build"  # a build begins; `log` is its log
    DOWNLOAD = "download"  # sources are fetched; `done` counts modules
    COMPILE = "compile"  # `text` is the program; `done` of `total` packages
    START = "start"  # `text` is the part that is started
    WAIT = "wait"  # all is started, `text` says what is waited for
    STOP = "stop"  # `text` is the part that is stopped
    UP = "up"  # the last step of `up`
    DOWN = "down"  # the last step of `down`


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of progress; `eta_s` is for the whole phase, None while it can't be told."""

    phase: Phase
    text: str
    done: int | None = None
    total: int | None = None
    eta_s: float | None = None
    log: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartState:
    """One of the five processes; `pid` is the last known one, None if it never ran."""

    name: str
    pid: int | None
    alive: bool
    log: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxState:
    """What `status` shows. `running`: every part is alive and the API server says it is ready."""

    running: bool
    server: str | None
    kubeconfig: Path
    nodes: int
    parts: tuple[PartState, ...]
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """A process that we started; its pid alone may be somebody else's by now.

    `started` is in seconds since 1970.
    """

    pid: int
    started: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What has to outlive the process that started the sandbox."""

    version: str
    nodes: int
    ports: Mapping[str, int]  # by part: etcd, kube-apiserver
    daemons: Mapping[str, Daemon]  # by part

    def with_daemon(self, name: str, daemon: Daemon) -> Record:
        """Return the record with this part's process."""
        return replace(self, daemons={**self.daemons, name: daemon})

    def with_port(self, name: str, port: int) -> Record:
        """Return the record with this part's port."""
        return replace(self, ports={**self.ports, name: port})


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where things are in the sandbox's folder."""

    home: Path

    @property
    def record(self) -> Path:
        """What is remembered: the ports and the processes."""
        return self.home / "state.json"

    @property
    def kubeconfig(self) -> Path:
        """The user's own, with all rights."""
        return self.home / "kubeconfig"

    @property
    def pki(self) -> Path:
        """Keys, certificates and the parts' kubeconfigs."""
        return self.home / "pki"

    @property
    def data(self) -> Path:
        """Etcd's own folder."""
        return self.home / "etcd"

    @property
    def logs(self) -> Path:
        """One log a part."""
        return self.home / "logs"

    @property
    def stages(self) -> Path:
        """How simulated nodes and pods live."""
        return self.home / "stages.yaml"

    @property
    def scheduler(self) -> Path:
        """How the scheduler places peers."""
        return self.home / "scheduler.yaml"

    @property
    def own_names(self) -> frozenset[str]:
        """All that we ever put into the folder; whatever else is in it belongs to somebody else."""
        files = {p.name for p in (self.record, self.kubeconfig, self.stages, self.scheduler)}
        files.add(".gitignore")
        folders = {p.name for p in (self.pki, self.data, self.logs)}
        return frozenset(n + tail for n in files | folders for tail in ("", ".new"))

    def log(self, part: str) -> Path:
        """Return the part's log file."""
        return self.logs / f"{part}.log"


def make_layout(home: Path) -> Layout:
    """Return the layout with an absolute path; the processes' command lines depend on it."""
    return Layout(home=home.parent.resolve() / home.name)


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    fresh.replace(path)


def exclude_from_git(layout: Layout) -> None:
    """Write a `.gitignore` that excludes `.nimlab` from Git, also one that an older nimlab made.

    A home elsewhere gets a file of its own: the folder above is the user's.
    """
    above = layout.home.parent
    folder = above if above.name == OWN_FOLDER else layout.home
    if folder.is_symlink() or not folder.is_dir():
        return
    ignore = folder / ".gitignore"
    if ignore.is_symlink() or not ignore.is_file() or b"*" not in ignore.read_bytes().split():
        write_private(ignore, b"*\n")
    if folder == above:
        folder.chmod(0o700)


def keep_private(layout: Layout) -> None:
    """Let nobody but the owner read the sandbox's folders, keys and kubeconfigs."""
    for folder in (layout.home, layout.pki, layout.logs, layout.data):
        if folder.is_dir() and not folder.is_symlink():
            folder.chmod(0o700)
    for path in (layout.kubeconfig, layout.record, *sorted(layout.pki.glob("*"))):
        if path.is_file() and not path.is_symlink():
            path.chmod(0o600)


def save_record(layout: Layout, record: Record) -> None:
    """Remember; whole or not at all."""
    document = {"format": _FORMAT, **asdict(record)}
    write_private(layout.record, json.dumps(document, indent=2).encode())


def load_record(layout: Layout) -> Record | None:
    """Return what was remembered; None if there is nothing, or nothing that can be understood."""
    try:
        document: Any = json.loads(layout.record.read_bytes())
        if document["format"] != _FORMAT:
            return None
        return Record(
            version=str(document["version"]),
            nodes=int(document["nodes"]),
            ports={str(name): int(port) for name, port in document["ports"].items()},
            daemons={
                str(name): Daemon(pid=int(d["pid"]), started=float(d["started"]))
                for name, d in document["daemons"].items()
            },
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def is_up(home: Path) -> bool:
    """Tell whether the sandbox can be talked to: every recorded pid exists, and the port answers.

    Costs a millisecond. A pid that now is somebody else's passes here; `read_state` looks closer.
    """
    record = load_record(make_layout(home))
    if record is None or set(record.daemons) != set(PART_NAMES):
        return False
    if not all(_exists(daemon.pid) for daemon in record.daemons.values()):
        return False
    try:
        address = ("127.0.0.1", record.ports["kube-apiserver"])
        with socket.create_connection(address, timeout=_CONNECT_TIMEOUT_S):
            return True
    except (OSError, KeyError):
        return False


def _exists(pid: int) -> bool:
    """Tell whether there is such a process of ours that isn't a zombie, as cheaply as can be."""
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat").read_bytes()
    except FileNotFoundError:
        return pid > 0  # a system without /proc
    except (OSError, OverflowError):  # not there, or not ours to signal
        return False
    return status.rpartition(b")")[2].split()[0] not in (b"Z", b"X")
