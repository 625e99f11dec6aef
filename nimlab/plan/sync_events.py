"""Events of a sync: one value for each step, from the plan to the last experiment that settles.

All events are plain values. The receiver of the events decides which events it shows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

from nimlab.errors import NimlabError
from nimlab.objects.manifest import ObjectKey
from nimlab.plan.pod_trouble import Trouble

if TYPE_CHECKING:  # `nimlab --help` imports this module, but does not need the planning code
    from nimlab.plan.make_plan import Plan


class Outcome(Enum):
    """The result of a sync for one object."""

    CREATED = "created"
    UPDATED = "updated"
    REPLACED = "replaced"
    PRUNED = "pruned"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    NOT_ATTEMPTED = "not-attempted"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanMade:
    """The cluster was read and a plan was made.

    If another sync changed the cluster before this sync acquired the lock, a second PlanMade replaces the
    first one. If the plan has a `refusal`, this event is the last one, because nothing is executed.
    """

    plan: Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class LockAwaited:
    """Another sync holds the lock, and this sync waits for it; `holder` names the other sync."""

    holder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionStarted:
    """Execution of the last plan begins. If the plan writes anything, this sync holds the lock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LockLost:
    """This sync stopped because its lock expired during execution; another sync may be writing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectDone:
    """The sync has finished with one object; `error` explains the outcomes FAILED and NOT_ATTEMPTED."""

    experiment: str
    key: ObjectKey
    outcome: Outcome
    error: NimlabError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PeersRestarted:
    """All peers of the old revision were deleted at once, so that their controller creates them again."""

    experiment: str
    peers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PeersProgress:
    """The number of running peers of an experiment. The sync sends this event whenever a value changes.

    `leaving` counts the existing peers that will be deleted. `why` describes what the sync waits for; it is
    empty if the numbers already show this. `left_s` is the estimated remaining time in seconds; None if there
    is no estimate.
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
    """All peers of an experiment are as its file describes them.

    `after_s` is the time in seconds since the sync began to wait; it is 0 if the experiment was already
    settled in the snapshot.
    """

    experiment: str
    running: int
    after_s: float
    noun: str = "peer"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentStuck:
    """An experiment did not settle: more waiting would not help, or the timeout expired.

    `held` are objects that the sync has deleted but that still exist.
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
    """A line of text about a step that is not a change of the plan, such as a new namespace of the lab."""

    text: str


Event: TypeAlias = (
    PlanMade
    | LockAwaited
    | ExecutionStarted
    | LockLost
    | ObjectDone
    | PeersRestarted
    | PeersProgress
    | ExperimentSettled
    | ExperimentStuck
    | Notice
)
