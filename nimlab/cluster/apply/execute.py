"""The writes of a sync, in their order: scope, applies, prunes, scope again.

Experiments don't wait for each other and one's failure doesn't stop another; inside one, stage follows
stage. Nothing is pruned unless everything was applied.
"""

from __future__ import annotations

import queue
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeAlias

from nimlab.cluster.apply.terminating_namespace import with_reason
from nimlab.cluster.apply.write_object import NO_VERSION, apply_object, prune_object, restart_peers
from nimlab.cluster.port import Cluster, Propagation
from nimlab.errors import Forbidden, NimlabError, PreconditionFailed
from nimlab.objects.applyset import POD_SECURITY
from nimlab.objects.applyset_parent import PARENT_MANAGER, Parent, parent_manifest, parse_parent
from nimlab.objects.manifest import Manifest, ObjectKey
from nimlab.objects.masking import hide_secrets
from nimlab.plan.change import Action, Change
from nimlab.plan.make_plan import ExperimentPlan, Plan
from nimlab.plan.snapshot import Former
from nimlab.plan.sync_events import Event, Notice, ObjectDone, Outcome, PeersRestarted


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyOptions:
    """How a plan is carried out. `version` is recorded on the parent; `timeout_s` bounds each waiting."""

    parallel: int
    take_ownership: bool
    timeout_s: float
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What every worker needs."""

    cluster: Cluster
    plan: Plan
    options: ApplyOptions
    stop: threading.Event
    tell: Callable[[Event], None]


_ATTEMPTS: Final = 5
_AGAIN: Final = "run it again: it looks anew"
_Work: TypeAlias = Callable[[ExperimentPlan, Job], None]
_DONE = {
    Action.CREATE: Outcome.CREATED,
    Action.UPDATE: Outcome.UPDATED,
    Action.REPLACE: Outcome.REPLACED,
    Action.PRUNE: Outcome.PRUNED,
}


def create_namespace(cluster: Cluster, name: str) -> Notice:
    """Make the lab's namespace. Raises Forbidden with the command that an administrator runs."""
    try:
        metadata = {"name": name, "labels": dict(POD_SECURITY)}
        cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    except PreconditionFailed:
        return Notice(text=f"namespace {name} is there already")
    except Forbidden as error:
        raise Forbidden(
            f"the lab's namespace `{name}` doesn't exist, and these credentials may not create it",
            where=ObjectKey("Namespace", "", name),
            hint=f"an administrator runs `kubectl create namespace {name}`",
            status=error.status,
        ) from error
    return Notice(text=f"namespace {name} created")


def create_password(cluster: Cluster, namespace: str, name: str) -> Notice | None:
    """Make a Secret with a password that nobody has seen; None if there is one already.

    It is never read, changed or deleted here, and is no member of any set. Raises ClusterError.
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
    """Carry out the plan and yield what happens; exactly one ObjectDone for each change that isn't KEEP.

    When `stop` is set, no further object is begun; the rest is told as not attempted. Errors of single
    objects are events; a NimlabError is raised only where the parent itself can't be written.
    """
    recorded = plan.before
    if plan.during != plan.before:
        recorded = _record(plan.during, recorded, cluster, plan, options)
    failed = False
    for event in _in_parallel(plan, _apply_experiment, cluster, options, stop):
        failed |= _is_failure(event)
        yield event
    withheld = failed or bool(plan.stops)
    for event in _in_parallel(
        plan, _leave_experiment if withheld else _prune_experiment, cluster, options, stop
    ):
        failed |= _is_failure(event)
        yield event
    clean = not (failed or plan.stops or stop.is_set())
    if clean:
        for former in plan.retired:
            yield _retire(former, cluster)
    if clean and plan.after != plan.during:
        _record(plan.after, recorded, cluster, plan, options)


def _retire(former: Former, cluster: Cluster) -> Notice:
    """Delete the parent of a former set, exactly as it was read, once no member is left. Raises Moved."""
    metadata, key = former.manifest["metadata"], former.apply_set.parent_key
    cluster.delete(
        key,
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        propagation=Propagation.BACKGROUND,
    )
    return Notice(text=f"{key} deleted: the lab has moved; namespace {key.namespace} itself is kept")


def _record(wanted: Parent, recorded: Parent, cluster: Cluster, plan: Plan, options: ApplyOptions) -> Parent:
    """Write the parent's record over the one that was read, and return it as written.

    The apply is forced, because the annotations are ours alone. An annotation that somebody has set by hand
    is taken over first, then removed. Raises Moved when another sync has written the record meanwhile;
    changes beside the record don't matter.
    """
    with_empty = False
    for _ in range(_ATTEMPTS):
        manifest = parent_manifest(plan.apply_set, wanted, options.version, with_empty=with_empty)
        bound = {**manifest["metadata"], "resourceVersion": recorded.version or NO_VERSION}
        try:
            made = cluster.apply(
                {**manifest, "metadata": bound}, manager=PARENT_MANAGER, force=True, dry_run=False
            )
        except PreconditionFailed:
            live = parse_parent(cluster.get(plan.apply_set.parent_key), plan.apply_set) or Parent.none()
            if live == wanted:
                return live
            if live != recorded:
                raise
            recorded = live
        else:
            recorded = parse_parent(made, plan.apply_set) or Parent.none()
            is_as_wanted = recorded == wanted
            if is_as_wanted and not with_empty:
                return recorded
            with_empty = not is_as_wanted
    raise PreconditionFailed(
        "it changes faster than it can be written", where=plan.apply_set.parent_key, hint=_AGAIN
    )


def _in_parallel(
    plan: Plan, work: _Work, cluster: Cluster, options: ApplyOptions, stop: threading.Event
) -> Iterator[Event]:
    """Run the work for every experiment and yield its events as they come; a bug in it is raised here."""
    told: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
    with ThreadPoolExecutor(max_workers=options.parallel) as pool:
        job = Job(cluster=cluster, plan=plan, options=options, stop=stop, tell=told.put)
        futures = [pool.submit(work, one, job) for one in plan.experiments]
        for future in futures:
            future.add_done_callback(lambda _: told.put(None))
        for _ in futures:
            while (event := told.get()) is not None:
                yield event
        for future in futures:
            future.result()


def _apply_experiment(one: ExperimentPlan, job: Job) -> None:
    """Apply one experiment's objects in their order; after a failure the later stages are left out.

    An object that the plan already knows to be blocked blocks its whole experiment: half a change is worse
    than none. A new experiment that the plan holds back is not begun.
    """
    changes = [c for c in one.changes if c.action is not Action.PRUNE and c.action is not Action.KEEP]
    error = next((c.error for c in changes if c.error is not None), None)
    for change in changes:
        if change.error is not None:
            job.tell(_done(change, Outcome.FAILED, change.error))
        elif error is not None or one.held or job.stop.is_set():
            job.tell(_done(change, Outcome.NOT_ATTEMPTED, error))
        else:
            error = _apply_change(change, job)


def _apply_change(change: Change, job: Job) -> NimlabError | None:
    """Apply one object and restart its peers where the plan says so; return what went wrong."""
    options = job.options
    try:
        with hide_secrets(change.desired, change.live):
            made = apply_object(
                change,
                job.cluster,
                job.plan.apply_set,
                force=options.take_ownership,
                timeout_s=options.timeout_s,
                stop=job.stop,
                tell=job.tell,
            )
        restarted = restart_peers(change, made, job.cluster, parallel=options.parallel, stop=job.stop)
    except NimlabError as error:
        told = with_reason(error, job.cluster, change.key.namespace)
        job.tell(_done(change, Outcome.FAILED, told))
        return told
    job.tell(_done(change, _DONE[change.action]))
    if restarted:
        job.tell(PeersRestarted(experiment=change.experiment, peers=restarted))
    return None


def _prune_experiment(one: ExperimentPlan, job: Job) -> None:
    """Delete one experiment's leftovers; after a failure the rest of them stay for the next sync."""
    pruned = [c for c in one.changes if c.action is Action.PRUNE]
    ours = {c.live["metadata"]["uid"]: c.key for c in pruned if c.live is not None}
    error: NimlabError | None = None
    for change in pruned:
        if error is not None or job.stop.is_set():
            job.tell(_done(change, Outcome.NOT_ATTEMPTED, error))
            continue
        try:
            prune_object(change, job.cluster, job.plan.apply_set, ours)
        except NimlabError as problem:
            error = problem
            job.tell(_done(change, Outcome.FAILED, problem))
        else:
            job.tell(_done(change, Outcome.PRUNED))


def _leave_experiment(one: ExperimentPlan, job: Job) -> None:
    """Tell of each withheld prune that it was not attempted."""
    for change in one.changes:
        if change.action is Action.PRUNE:
            job.tell(_done(change, Outcome.NOT_ATTEMPTED))


def _done(change: Change, outcome: Outcome, error: NimlabError | None = None) -> ObjectDone:
    return ObjectDone(experiment=change.experiment, key=change.key, outcome=outcome, error=error)


def _is_failure(event: Event) -> bool:
    return isinstance(event, ObjectDone) and event.outcome in (
        Outcome.FAILED,
        Outcome.NOT_ATTEMPTED,
    )
