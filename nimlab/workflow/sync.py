"""Sync: observe, plan, acquire the lock, execute, wait. Each step is yielded as an event.

The lock can be acquired only if no other sync has written since the observation. Otherwise, the cluster is
observed again.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from typing import Final

from nimlab import __version__
from nimlab.cluster.apply import (
    ApplyOptions,
    Event,
    Locks,
    ObjectDone,
    Outcome,
    create_namespace,
    create_password,
    execute,
    system_clock,
    wait_targets,
    wait_until_settled,
)
from nimlab.errors import LockHeld, PreconditionFailed
from nimlab.files.spec import GRAFANA_SECRET
from nimlab.objects.applyset import PLATFORM
from nimlab.plan.change import Action
from nimlab.plan.make_plan import Plan
from nimlab.plan.snapshot import Snapshot
from nimlab.plan.sync_events import ExecutionStarted, LockLost, PlanMade
from nimlab.stopwatch import stage
from nimlab.workflow.observe_and_plan import observe_and_plan
from nimlab.workflow.read_write_plan_file import reject_changed_plan
from nimlab.workflow.session import Session
from nimlab.workflow.sync_options import SyncOptions
from nimlab.workflow.wait_for_lock import acquire_lock, wait_for_lock

_ATTEMPTS: Final = 5  # an attempt fails if another sync has changed the cluster


def sync(session: Session, options: SyncOptions) -> Generator[Event, None, None]:
    """Make the cluster equal to the lab's files, and yield each step as an event.

    The first event is PlanMade. Notice and LockAwaited may follow until the lock is held. If another sync has
    changed the cluster, PlanMade is repeated. ExecutionStarted, the events of the execution and the events of
    the wait follow. If a plan is refused, its PlanMade is the last event. Close the iterator
    (`contextlib.closing`) if you do not exhaust it, so that the lock is released.

    Errors of single objects are events. Raises NimlabError before anything is written, or if a parent cannot
    be written. Raises PlanError if the plan differs from `options.saved_plan`. Raises Interrupted if `stop`
    is set before the execution. If `stop` is set later, the execution ends without an error.
    """
    deadline_s = time.monotonic() + options.lock_timeout_s
    conflicts = 0
    while True:
        snapshot, plan = observe_and_plan(session, options.policy)
        if options.saved_plan is not None:
            reject_changed_plan(options.saved_plan, plan, options.policy, session.cluster)
        yield PlanMade(plan=plan)
        if plan.refusal is not None:
            return
        if not has_writes(plan):
            yield from _execute_and_wait(session, options, snapshot, plan, None)
            return
        try:
            yield from _create_prerequisites(session, plan)
            lock = acquire_lock(session, snapshot)
        except (PreconditionFailed, LockHeld) as error:
            conflicts += isinstance(error, PreconditionFailed)
            if conflicts == _ATTEMPTS:
                raise
            yield from wait_for_lock(session, snapshot, error, deadline_s)
            continue
        try:
            yield from _execute_and_wait(session, options, snapshot, plan, lock)
        finally:
            lock.release()
        return


def has_writes(plan: Plan) -> bool:
    """Return True if the execution writes anything. A parent is not created only to record a scope."""
    pruning = not plan.stops
    is_worth_a_parent = plan.before.version is not None or plan.after.commit is not None
    return (
        bool(plan.retired)
        or (pruning and is_worth_a_parent and plan.after != plan.before)
        or any(
            change.action is not Action.KEEP
            and change.error is None
            and (pruning or change.action is not Action.PRUNE)
            for experiment in plan.experiments
            if not experiment.held
            for change in experiment.changes
        )
    )


def _create_prerequisites(session: Session, plan: Plan) -> Iterator[Event]:
    """Create the lab's namespace, and the password of the monitoring stack, if they do not exist yet."""
    session.raise_if_stopped()
    namespace = plan.apply_set.namespace
    if plan.create_namespace:
        yield create_namespace(session.cluster, namespace)
    if plan.apply_set.name == PLATFORM:
        notice = create_password(session.cluster, namespace, GRAFANA_SECRET)
        if notice is not None:
            yield notice


def _execute_and_wait(
    session: Session, options: SyncOptions, snapshot: Snapshot, plan: Plan, lock: Locks | None
) -> Iterator[Event]:
    """If `lock` is given, execute the plan and release the lock. Then wait for the experiments."""
    yield ExecutionStarted()
    settings = session.lab.desired.files.lab.sync
    timeout_s = settings.timeout_s if options.timeout_s is None else options.timeout_s
    done: list[ObjectDone] = []
    if lock is not None:
        apply_options = ApplyOptions(
            parallel=settings.parallel,
            take_ownership=options.policy.take_ownership,
            timeout_s=timeout_s,
            version=__version__,
        )
        with stage("act"):
            for event in execute(plan, session.cluster.fenced(lock.check), apply_options, stop=session.stop):
                if isinstance(event, ObjectDone):
                    done.append(event)
                yield event
        lock.release()
        if lock.is_lost:
            yield LockLost()
    if options.wait and not session.stop.is_set():
        yield from _wait(session, snapshot, plan, done, timeout_s)


def _wait(
    session: Session, snapshot: Snapshot, plan: Plan, done: Sequence[ObjectDone], timeout_s: float
) -> Iterator[Event]:
    """Wait for every experiment in which no object failed."""
    not_pruned = [event for event in done if event.outcome is not Outcome.PRUNED]
    targets = wait_targets(
        plan,
        snapshot,
        failed=frozenset(event.experiment for event in not_pruned if event.error),
        not_deleted=frozenset(event.key for event in not_pruned),
    )
    with stage("wait"):
        yield from wait_until_settled(
            session.cluster,
            targets,
            plan.apply_set,
            timeout_s=timeout_s,
            clock=system_clock(),
            stop=session.stop,
        )
