"""A plan and its events -> what they amount to: counts, an outcome for each object, the exit code.

Text and JSON take their numbers from here, so they can't disagree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nimlab.errors import ExitCode
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
from nimlab.report.list_rows import Row, RowState

_NOT_DONE = frozenset({Outcome.FAILED, Outcome.NOT_ATTEMPTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanTotals:
    """How many objects a sync of this plan treats how; each object counts once.

    `blocked` would be created, updated or replaced, but an error stands against them or their experiment;
    `withheld` would be pruned, but this sync prunes nothing; `held` would be created, but belongs to a new
    experiment that is not created until the withheld prunes are done.
    """

    create: int
    update: int
    replace: int
    prune: int
    keep: int
    blocked: int
    withheld: int
    held: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Peers:
    """How many of an experiment's peers run, as far as the events tell; `settled` when all is as wanted."""

    running: int
    wanted: int
    settled: bool
    waited_s: float


def blocked_experiments(plan: Plan) -> frozenset[str]:
    """Return the experiments of which nothing is applied, since one of their objects can't be."""
    return frozenset(change.experiment for change in plan.changes if change.error is not None)


def totals_of(plan: Plan) -> PlanTotals:
    """Return what a sync of this plan does, by number of objects."""
    blocked = blocked_experiments(plan)
    held = frozenset(plan.held)
    classes = [_class(change, plan, blocked, held) for change in plan.changes]
    names = ("create", "update", "replace", "prune", "keep", "blocked", "withheld", "held")
    return PlanTotals(**{name: classes.count(name) for name in names})


def _class(change: Change, plan: Plan, blocked: frozenset[str], held: frozenset[str]) -> str:
    if change.action is Action.PRUNE:
        return "withheld" if plan.stops or plan.refusal else "prune"
    if change.error is not None:
        return "blocked"
    if change.action is not Action.KEEP and (plan.refusal or change.experiment in blocked):
        return "blocked"
    if change.experiment in held and change.action is Action.CREATE:
        return "held"
    return str(change.action.value)


def outcomes_of(plan: Plan, events: Sequence[Event]) -> Mapping[ObjectKey, ObjectDone]:
    """Return what became of each object of the plan, also of those that no event tells of."""
    told = {event.key: event for event in events if isinstance(event, ObjectDone)}
    return {change.key: told.get(change.key) or _untold(change) for change in plan.changes}


def _untold(change: Change) -> ObjectDone:
    if change.error is not None:
        outcome = Outcome.FAILED
    elif change.action is Action.KEEP:
        outcome = Outcome.UNCHANGED
    else:
        outcome = Outcome.NOT_ATTEMPTED
    return ObjectDone(experiment=change.experiment, key=change.key, outcome=outcome, error=change.error)


def is_not_done(done: ObjectDone) -> bool:
    """Return True for what failed or was not attempted."""
    return done.outcome in _NOT_DONE


def peers_by_experiment(events: Sequence[Event]) -> Mapping[str, Peers]:
    """Return how the peers were when last heard of, for each experiment that was waited for."""
    found: dict[str, Peers] = {}
    for event in events:
        if isinstance(event, ExperimentSettled):
            found[event.experiment] = Peers(
                running=event.running, wanted=event.running, settled=True, waited_s=event.after_s
            )
        elif isinstance(event, PeersProgress | ExperimentStuck):
            found[event.experiment] = Peers(
                running=event.running,
                wanted=event.wanted,
                settled=False,
                waited_s=event.waited_s if isinstance(event, ExperimentStuck) else 0.0,
            )
    return found


def exit_code_of(
    plan: Plan, events: Sequence[Event], *, dry_run: bool, exit_code: bool, strict: bool = False
) -> int:
    """Return the exit code of a sync or, with `dry_run`, of its plan.

    0 done or in sync; 1 an error: not everything was, or would be, done; 3 changes are pending (only for a
    dry run that asks with `exit_code`), or with `strict` something foreign stays; 4 synced, but not all peers
    are ready.
    """
    foreign = strict and any(change.foreign for change in plan.changes)
    if plan.refusal or plan.broken or plan.file_errors or plan.stops or blocked_experiments(plan):
        return ExitCode.ERROR
    if dry_run:
        pending = any(change.is_pending for change in plan.changes)
        return ExitCode.PENDING if (exit_code and pending) or foreign else ExitCode.DONE
    if any(is_not_done(done) for done in outcomes_of(plan, events).values()):
        return ExitCode.ERROR
    if not all(peers.settled for peers in peers_by_experiment(events).values()):
        return ExitCode.NOT_READY
    return ExitCode.PENDING if foreign else ExitCode.DONE


def exit_code_of_rows(rows: Sequence[Row]) -> int:
    """Return the exit code of `list` and `status` with `--exit-code`; the worst row decides.

    1 a file or an object is in the way; 4 not all pods run as asked; 3 Git and cluster differ; else 0.
    """
    if any(row.state in (RowState.BROKEN, RowState.BLOCKED) for row in rows):
        return ExitCode.ERROR
    if any(row.verdict.is_bad for row in rows):
        return ExitCode.NOT_READY
    return ExitCode.PENDING if any(row.is_pending for row in rows) else ExitCode.DONE
