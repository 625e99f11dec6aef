"""Wait until the peers of each experiment are running, or until it is certain that they will not run.

In: the experiments to wait for. Out: progress events, and for each experiment one final ExperimentSettled or
ExperimentStuck with the reasons. Watches report the changes. This module only reads from the cluster. The
caller passes the clock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from nimlab.cluster.apply.periodic_reads import PeriodicReads
from nimlab.cluster.apply.readiness import Readiness, WaitTarget, assess_readiness
from nimlab.cluster.apply.watcher import Watcher
from nimlab.cluster.interface import Cluster
from nimlab.objects.applyset import ApplySet
from nimlab.objects.kinds_and_order import WORKLOADS
from nimlab.objects.manifest import ObjectKey
from nimlab.plan.change import Action, Change
from nimlab.plan.kstatus import State, peers_of, status_of
from nimlab.plan.make_plan import ExperimentPlan, Plan
from nimlab.plan.snapshot import Snapshot
from nimlab.plan.sync_events import Event, ExperimentSettled, ExperimentStuck, PeersProgress

_EXTRA_READS_EVERY_S: Final = 2.0
_PACE_AFTER_S: Final = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The basis of an estimate: a start time, and the number of peers missing at that time."""

    since_s: float
    missing: int

    def left_s(self, missing: int, now_s: float) -> float | None:
        """Return the remaining time, estimated from the progress so far; None if it is too early. Pure."""
        done, spent_s = self.missing - missing, now_s - self.since_s
        return missing * spent_s / done if done > 0 and spent_s >= _PACE_AFTER_S else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """A clock that tests can replace: the time of day in UTC, and a monotonic count of seconds."""

    now: Callable[[], datetime]
    monotonic_s: Callable[[], float]


def system_clock() -> Clock:
    """Return the machine's clock."""
    return Clock(now=lambda: datetime.now(UTC), monotonic_s=time.monotonic)


def wait_targets(
    plan: Plan, snapshot: Snapshot, *, failed: frozenset[str], not_deleted: frozenset[ObjectKey]
) -> tuple[WaitTarget, ...]:
    """Return one target per experiment that must be awaited after the execution of the plan. Pure.

    An experiment has no target if it is in `failed`, if the plan holds it back, or if none of its objects
    must be awaited. Workloads are awaited until they have settled. Deleted objects of every kind are awaited
    until they no longer exist. `not_deleted` are objects that the plan prunes but that were not deleted.
    """
    targets = (
        _target_of(experiment, plan, snapshot, not_deleted)
        for experiment in plan.experiments
        if experiment.name not in failed and not experiment.held
    )
    return tuple(target for target in targets if target.workloads or target.terminating)


def _target_of(
    experiment: ExperimentPlan, plan: Plan, snapshot: Snapshot, not_deleted: frozenset[ObjectKey]
) -> WaitTarget:
    workloads = [c for c in experiment.changes if _is_awaited_workload(c)]
    terminating = [c for c in experiment.changes if _is_being_deleted(c, plan, not_deleted)]
    unchanged = [snapshot.live.get(c.key) for c in workloads if c.action is Action.KEEP]
    settled = [live for live in unchanged if live and status_of(live).state is State.CURRENT]
    is_settled = len(settled) == len(workloads)
    return WaitTarget(
        experiment=experiment.name,
        workloads=frozenset(c.key for c in workloads),
        terminating=frozenset(c.key for c in terminating),
        noun=plan.apply_set.noun,
        uids={c.key: c.live["metadata"]["uid"] for c in terminating if c.live is not None},
        needs_pods=not is_settled,
        settled_peers=sum(peers_of(live).running for live in settled)
        if is_settled and not terminating
        else None,
    )


def _is_awaited_workload(change: Change) -> bool:
    return bool(change.desired) and change.key.kind in WORKLOADS and not change.outdated_peers_kept


def _is_being_deleted(change: Change, plan: Plan, not_deleted: frozenset[ObjectKey]) -> bool:
    """Return True for an object that this sync has deleted, or that was already being deleted."""
    is_pruned = change.action is Action.PRUNE and not plan.stops and change.key not in not_deleted
    return is_pruned or change.leaving


def wait_until_settled(
    cluster: Cluster,
    targets: Sequence[WaitTarget],
    apply_set: ApplySet,
    *,
    timeout_s: float,
    clock: Clock,
    stop: threading.Event,
) -> Iterator[Event]:
    """Yield progress until every experiment has settled or is stuck, or `stop` is set.

    No request is sent for an experiment that has already settled in the snapshot. Raises ClusterError if the
    cluster cannot be watched at all.
    """
    readiness, shown, paces = Readiness(apply_set), dict[str, Event](), dict[str, Pace]()
    settled = [target for target in targets if target.settled_peers is not None]
    yield from filter(
        None, (assess_readiness(t, readiness, clock.now(), waited_s=0.0, timeout_s=0.0) for t in settled)
    )
    pending = {target.experiment: target for target in targets if target.settled_peers is None}
    if not pending:
        return
    extra_reads = PeriodicReads(cluster, apply_set)
    started_s = clock.monotonic_s()
    next_read_s = started_s
    with Watcher(cluster, tuple(pending.values()), apply_set) as watcher:
        while pending and not stop.is_set():
            watcher.drain(readiness, clock.now())
            if clock.monotonic_s() >= next_read_s:
                extra_reads.read(tuple(pending.values()), readiness, clock.now())
                next_read_s = clock.monotonic_s() + _EXTRA_READS_EVERY_S
            waited_s = clock.monotonic_s() - started_s
            for target in tuple(pending.values()):
                event = assess_readiness(
                    target, readiness, clock.now(), waited_s=waited_s, timeout_s=timeout_s
                )
                if event is None or shown.get(target.experiment) == event:
                    continue
                shown[target.experiment] = event
                yield _with_estimate(event, paces, waited_s)
                if isinstance(event, ExperimentSettled | ExperimentStuck):
                    del pending[target.experiment]


def _with_estimate(event: Event, paces: dict[str, Pace], waited_s: float) -> Event:
    """Add the estimated remaining time to a progress event; return any other event unchanged."""
    if not isinstance(event, PeersProgress):
        return event
    missing = max(event.wanted - event.running, 0) + event.leaving
    pace = paces.setdefault(event.experiment, Pace(since_s=waited_s, missing=missing))
    return replace(event, left_s=pace.left_s(missing, waited_s))
