"""The values that the sandbox reports: steps of progress, and the state of its parts.

Only the standard library is imported, because every start of the CLI imports this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

PART_NAMES: Final = (  # in the order in which they are started
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kwok",
)


class Phase(StrEnum):
    """The kind of a step; the CLI displays each kind in its own way."""

    NOTE = "note"  # a message, reported once
    BUILD = "build"  # a build begins; `log` is the path of its log
    DOWNLOAD = "download"  # sources are downloaded; `done` counts modules
    COMPILE = "compile"  # `text` is the program; `done` of `total` packages are compiled
    START = "start"  # `text` is the part that is started
    WAIT = "wait"  # all parts are started; `text` names the part that is not ready yet
    STOP = "stop"  # `text` is the part that is stopped
    UP = "up"  # the last step of `up`
    DOWN = "down"  # the last step of `down`


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of progress; `eta_s` is the remaining time of the whole phase, or None if unknown."""

    phase: Phase
    text: str
    done: int | None = None
    total: int | None = None
    eta_s: float | None = None
    log: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartState:
    """One of the five processes; `pid` is its last known pid, or None if the part never ran."""

    name: str
    pid: int | None
    alive: bool
    log: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxState:
    """The state of a sandbox.

    `running` is True if every part is alive and the API server reports that it is ready.
    """

    running: bool
    server: str | None
    kubeconfig: Path
    nodes: int
    parts: tuple[PartState, ...]
    version: str
