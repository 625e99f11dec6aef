"""A plan and the events of its sync -> the result: the outcome of each object and the state of the peers.

In: a plan, and the events in their order. Out: a `SyncResult`, on which the summary, the JSON output, the
JUnit report and the exit code are based. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from nimlab.objects.manifest import ObjectKey
from nimlab.plan.change import Action, Change
from nimlab.plan.make_plan import Plan
from nimlab.plan.sync_events import (
    Event,
    ExperimentSettled,
    ExperimentStuck,
    ObjectDone,
    Outcome,
    PeersProgress,
)

PeersEvent: TypeAlias = PeersProgress | ExperimentSettled | ExperimentStuck

_NOT_DONE = frozenset({Outcome.FAILED, Outcome.NOT_ATTEMPTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Peers:
    """The state of an experiment's peers in its last event; `settled` is True if all peers are as desired."""

    running: int
    wanted: int
    settled: bool
    waited_s: float
    event: PeersEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncResult:
    """The result of a sync.

    `outcomes` contains every object of the plan, including objects without an event. `peers` contains each
    experiment for which the sync has waited. `stuck` contains the event of each experiment that did not
    become ready.
    """

    outcomes: Mapping[ObjectKey, ObjectDone]
    peers: Mapping[str, Peers]
    stuck: Mapping[str, ExperimentStuck]

    @property
    def outcome_counts(self) -> Mapping[Outcome, int]:
        """The number of objects with each outcome; 0 for an outcome that did not occur."""
        return Counter(done.outcome for done in self.outcomes.values())

    @property
    def not_ready(self) -> tuple[str, ...]:
        """The names of the experiments that are not settled, sorted."""
        return tuple(sorted(name for name, peers in self.peers.items() if not peers.settled))


def result_of(plan: Plan, events: Sequence[Event]) -> SyncResult:
    """Return the result of a sync from its plan and its events."""
    reported = {event.key: event for event in events if isinstance(event, ObjectDone)}
    return SyncResult(
        outcomes={change.key: reported.get(change.key) or _unreported(change) for change in plan.changes},
        peers={event.experiment: _peers(event) for event in events if isinstance(event, PeersEvent)},
        stuck={event.experiment: event for event in events if isinstance(event, ExperimentStuck)},
    )


def is_not_done(done: ObjectDone) -> bool:
    """Return True if the change of the object failed or was not attempted."""
    return done.outcome in _NOT_DONE


def _unreported(change: Change) -> ObjectDone:
    """Return the outcome of a change for which the sync sent no ObjectDone event."""
    if change.error is not None:
        outcome = Outcome.FAILED
    elif change.action is Action.KEEP:
        outcome = Outcome.UNCHANGED
    else:
        outcome = Outcome.NOT_ATTEMPTED
    return ObjectDone(experiment=change.experiment, key=change.key, outcome=outcome, error=change.error)


def _peers(event: PeersEvent) -> Peers:
    match event:
        case ExperimentSettled():
            wanted, waited_s = event.running, event.after_s
        case ExperimentStuck():
            wanted, waited_s = event.wanted, event.waited_s
        case PeersProgress():
            wanted, waited_s = event.wanted, 0.0
    settled = isinstance(event, ExperimentSettled)
    return Peers(running=event.running, wanted=wanted, settled=settled, waited_s=waited_s, event=event)
