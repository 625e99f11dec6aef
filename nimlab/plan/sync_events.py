"""What is told while a plan is carried out: one value for each thing that happened.

Values only; whoever receives them decides what a person or a program gets to see.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from nimlab.errors import NimlabError
from nimlab.objects.manifest import ObjectKey
from nimlab.plan.pod_trouble import Trouble


class Outcome(Enum):
    """What became of one object."""

    CREATED = "created"
    UPDATED = "updated"
    REPLACED = "replaced"
    PRUNED = "pruned"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    NOT_ATTEMPTED = "not-attempted"


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectDone:
    """One object is dealt with; `error` says why it failed or was not attempted."""

    experiment: str
    key: ObjectKey
    outcome: Outcome
    error: NimlabError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PeersRestarted:
    """The peers of the old revision were deleted together."""

    experiment: str
    peers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PeersProgress:
    """How far an experiment's peers are; sent whenever it changes. `leaving` counts peers still to go.

    `why` says what is still awaited where the counts don't show it. `left_s` is about how long it takes at
    the pace so far; None as long as there is none.
    """

    experiment: str
    running: int
    wanted: int
    leaving: int
    noun: str = "peer"
    why: str = ""
    left_s: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentSettled:
    """All of an experiment's peers are as wanted; `after_s` is the time since its waiting began."""

    experiment: str
    running: int
    after_s: float
    noun: str = "peer"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentStuck:
    """An experiment will not be ready: trouble that waiting doesn't mend, or the timeout.

    `held` are objects that were deleted and still exist.
    """

    experiment: str
    running: int
    wanted: int
    troubles: tuple[Trouble, ...]
    timed_out: bool
    waited_s: float
    noun: str = "peer"
    held: tuple[ObjectKey, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something worth a line that concerns no single object: a namespace made, a lock waited for."""

    text: str


Event: TypeAlias = ObjectDone | PeersRestarted | PeersProgress | ExperimentSettled | ExperimentStuck | Notice
