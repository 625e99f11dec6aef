"""Execute a plan: record the scope, apply the objects, prune the objects, record the final scope.

Experiments are executed in parallel, and a failure of one experiment does not stop the others. Within an
experiment, objects are applied in order. Nothing is pruned unless everything was applied.
"""

from __future__ import annotations

import queue
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeAlias

from nimlab.cluster.apply.explain_rejected_write import explain_terminating_namespace
from nimlab.cluster.apply.restart_peers import restart_peers
from nimlab.cluster.apply.write_object import NO_VERSION, apply_object, prune_object
from nimlab.cluster.interface import RUN_AGAIN, Cluster, Propagation
from nimlab.errors import Forbidden, NimlabError, PreconditionFailed
from nimlab.objects.applyset import POD_SECURITY
from nimlab.objects.applyset_parent import PARENT_MANAGER, Parent, parent_manifest, parse_parent
from nimlab.objects.manifest import Manifest, ObjectKey
from nimlab.objects.mask_secrets import hide_secrets
from nimlab.plan.change import Action, Change
from nimlab.plan.make_plan import ExperimentPlan, Plan
from nimlab.plan.snapshot import Former
from nimlab.plan.sync_events import Event, Notice, ObjectDone, Outcome, PeersRestarted


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyOptions:
    """Options for an execution.

    `parallel` is the number of threads. `timeout_s` limits each wait for a deletion. `version` is the version
    of nimlab, which is recorded on the parent.
    """

    parallel: int
    take_ownership: bool
    timeout_s: float
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The inputs that all workers share. Every thread may call `emit`, which queues an event."""

    cluster: Cluster
    plan: Plan
    options: ApplyOptions
    stop: threading.Event
    emit: Callable[[Event], None]


_ATTEMPTS: Final = 5
_Work: TypeAlias = Callable[[ExperimentPlan, Job], None]
_OUTCOMES: Final = {
    Action.CREATE: Outcome.CREATED,
    Action.UPDATE: Outcome.UPDATED,
    Action.REPLACE: Outcome.REPLACED,
    Action.PRUNE: Outcome.PRUNED,
}


def create_namespace(cluster: Cluster, name: str) -> Notice:
    """Create the lab's namespace.

    Raises Forbidden if the credentials may not create it. The hint contains the command for an administrator.
    """
    try:
        metadata = {"name": name, "labels": dict(POD_SECURITY)}
        cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    except PreconditionFailed:
        return Notice(text=f"namespace {name} already exists")
    except Forbidden as error:
        raise Forbidden(
            f"the lab's namespace `{name}` does not exist, and these credentials may not create it",
            where=ObjectKey("Namespace", "", name),
            hint=f"an administrator must run `kubectl create namespace {name}`",
            status=error.status,
        ) from error
    return Notice(text=f"namespace {name} created")


def create_password(cluster: Cluster, namespace: str, name: str) -> Notice | None:
    """Create a Secret with a random password; return None if the Secret already exists.

    nimlab never reads, changes or deletes this Secret. It is not a member of an apply-set. Raises
    ClusterError.
    """
    manifest: Manifest = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "stringData": {"password": secrets.token_urlsafe(24)},
    }
    try:
        with hide_secrets(manifest):
            cluster.create(manifest)
    except PreconditionFailed:
        return None
    return Notice(text=f"Secret/{namespace}/{name} created: Grafana's password, in its key `password`")


def execute(plan: Plan, cluster: Cluster, options: ApplyOptions, *, stop: threading.Event) -> Iterator[Event]:
    """Execute the plan and yield its events, with exactly one ObjectDone per change that is not a `keep`.

    Once `stop` is set, no further change is started; the remaining changes are reported as not attempted.
    Errors of single objects are events. Raises NimlabError only if the parent cannot be written, or if the
    parent of a former apply-set cannot be deleted.
    """
    recorded = plan.before
    if plan.during != plan.before:
        recorded = _record(plan.during, recorded, cluster, plan, options)
    failed = False
    for event in _in_parallel(plan, _apply_experiment, cluster, options, stop):
        failed |= _is_failure(event)
        yield event
    withhold_prunes = failed or bool(plan.stops)
    prune = _withhold_prunes if withhold_prunes else _prune_experiment
    for event in _in_parallel(plan, prune, cluster, options, stop):
        failed |= _is_failure(event)
        yield event
    is_complete = not (failed or plan.stops or stop.is_set())
    if is_complete:
        for former in plan.retired:
            yield _delete_former_parent(former, cluster)
    if is_complete and plan.after != plan.during:
        _record(plan.after, recorded, cluster, plan, options)


def _delete_former_parent(former: Former, cluster: Cluster) -> Notice:
    """Delete the parent of a former apply-set that has no members any more.

    Raises PreconditionFailed if the parent has changed since it was read.
    """
    metadata, key = former.manifest["metadata"], former.apply_set.parent_key
    cluster.delete(
        key,
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        propagation=Propagation.BACKGROUND,
    )
    return Notice(text=f"{key} deleted: the lab has moved; the namespace {key.namespace} itself is kept")


def _record(wanted: Parent, recorded: Parent, cluster: Cluster, plan: Plan, options: ApplyOptions) -> Parent:
    """Write the record `wanted` to the parent if the parent still contains `recorded`; return the new record.

    The apply is forced, because all these annotations belong to nimlab. If a user has added an annotation by
    hand, a first apply takes it over and a second apply removes it. Raises PreconditionFailed if another sync
    has changed the record in the meantime. Changes to the parent that do not concern the record are ignored.
    """
    with_empty = False
    for _ in range(_ATTEMPTS):
        manifest = parent_manifest(plan.apply_set, wanted, options.version, with_empty=with_empty)
        metadata = {**manifest["metadata"], "resourceVersion": recorded.version or NO_VERSION}
        versioned = {**manifest, "metadata": metadata}
        try:
            applied = cluster.apply(versioned, manager=PARENT_MANAGER, force=True, dry_run=False)
        except PreconditionFailed:
            live = parse_parent(cluster.get(plan.apply_set.parent_key), plan.apply_set) or Parent.none()
            if live == wanted:
                return live
            if live != recorded:
                raise
            recorded = live
        else:
            recorded = parse_parent(applied, plan.apply_set) or Parent.none()
            is_as_wanted = recorded == wanted
            if is_as_wanted and not with_empty:
                return recorded
            with_empty = not is_as_wanted
    raise PreconditionFailed(
        f"the parent kept changing; gave up after {_ATTEMPTS} attempts",
        where=plan.apply_set.parent_key,
        hint=RUN_AGAIN,
    )


def _in_parallel(
    plan: Plan, work: _Work, cluster: Cluster, options: ApplyOptions, stop: threading.Event
) -> Iterator[Event]:
    """Run `work` for every experiment; yield its events as they arrive, and raise its exceptions."""
    events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
    with ThreadPoolExecutor(max_workers=options.parallel) as pool:
        job = Job(cluster=cluster, plan=plan, options=options, stop=stop, emit=events.put)
        futures = [pool.submit(work, experiment, job) for experiment in plan.experiments]
        for future in futures:
            future.add_done_callback(lambda _: events.put(None))
        for _ in futures:
            while (event := events.get()) is not None:
                yield event
        for future in futures:
            future.result()


def _apply_experiment(experiment: ExperimentPlan, job: Job) -> None:
    """Apply one experiment's objects in order; after a failure, skip the remaining objects.

    If the plan contains an error for an object of the experiment, no object of the experiment is applied,
    because a partial change would be worse than no change. A new experiment that the plan holds back is not
    started.
    """
    changes = [c for c in experiment.changes if c.action is not Action.PRUNE and c.action is not Action.KEEP]
    error = next((change.error for change in changes if change.error is not None), None)
    for change in changes:
        if change.error is not None:
            job.emit(_done(change, Outcome.FAILED, change.error))
        elif error is not None or experiment.held or job.stop.is_set():
            job.emit(_done(change, Outcome.NOT_ATTEMPTED, error))
        else:
            error = _apply_change(change, job)


def _apply_change(change: Change, job: Job) -> NimlabError | None:
    """Apply one object and restart its peers if the plan requires it; return the error, if any."""
    options = job.options
    try:
        with hide_secrets(change.desired, change.live):
            applied = apply_object(
                change,
                job.cluster,
                job.plan.apply_set,
                force=options.take_ownership,
                timeout_s=options.timeout_s,
                stop=job.stop,
                emit=job.emit,
            )
        restarted = restart_peers(change, applied, job.cluster, parallel=options.parallel, stop=job.stop)
    except NimlabError as error:
        explained = explain_terminating_namespace(error, job.cluster, change.key.namespace)
        job.emit(_done(change, Outcome.FAILED, explained))
        return explained
    job.emit(_done(change, _OUTCOMES[change.action]))
    if restarted:
        job.emit(PeersRestarted(experiment=change.experiment, peers=restarted))
    return None


def _prune_experiment(experiment: ExperimentPlan, job: Job) -> None:
    """Delete the objects of one experiment that the plan prunes; after a failure, skip the other objects."""
    prunes = [change for change in experiment.changes if change.action is Action.PRUNE]
    own_uids = {change.live["metadata"]["uid"]: change.key for change in prunes if change.live is not None}
    error: NimlabError | None = None
    for change in prunes:
        if error is not None or job.stop.is_set():
            job.emit(_done(change, Outcome.NOT_ATTEMPTED, error))
            continue
        try:
            prune_object(change, job.cluster, job.plan.apply_set, own_uids)
        except NimlabError as failure:
            error = failure
            job.emit(_done(change, Outcome.FAILED, failure))
        else:
            job.emit(_done(change, Outcome.PRUNED))


def _withhold_prunes(experiment: ExperimentPlan, job: Job) -> None:
    """Report each prune of an experiment as not attempted."""
    for change in experiment.changes:
        if change.action is Action.PRUNE:
            job.emit(_done(change, Outcome.NOT_ATTEMPTED))


def _done(change: Change, outcome: Outcome, error: NimlabError | None = None) -> ObjectDone:
    return ObjectDone(experiment=change.experiment, key=change.key, outcome=outcome, error=error)


def _is_failure(event: Event) -> bool:
    return isinstance(event, ObjectDone) and event.outcome in (
        Outcome.FAILED,
        Outcome.NOT_ATTEMPTED,
    )
