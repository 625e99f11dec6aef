"""The writes of one object: apply, replace, prune.

Each function executes one `Change` or raises an error. Every write has a precondition, so that it cannot
affect another object than the planned one. This module makes no decisions.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from nimlab.cluster.apply.poll_object import poll
from nimlab.cluster.foreign_objects import find_foreign_objects
from nimlab.cluster.interface import RUN_AGAIN, Cluster, Propagation
from nimlab.cluster.reclaim_fields import reclaim_fields
from nimlab.errors import ClusterError, PreconditionFailed
from nimlab.files.spec import OnImmutableChange
from nimlab.objects.applyset import FIELD_MANAGER, ApplySet
from nimlab.objects.manifest import Manifest, ObjectKey, key_of
from nimlab.objects.prune_conditions import missing_proofs
from nimlab.objects.takeover import Takeover, require_version, takeover_patch
from nimlab.objects.unchanged_check import compare
from nimlab.plan.change import Action, Change
from nimlab.plan.explain_stuck_deletion import describe_blockers, finalizers_of, is_terminating
from nimlab.plan.immutable_fields import replacement_trial
from nimlab.plan.sync_events import Event, Notice

NO_VERSION: Final = "1"  # etcd's first revision: older than any object
_ATTEMPTS: Final = 5
_PROPAGATION: Final = {"StatefulSet": Propagation.FOREGROUND}  # deleted only after its peers


def apply_object(
    change: Change,
    cluster: Cluster,
    apply_set: ApplySet,
    *,
    force: bool,
    timeout_s: float,
    stop: threading.Event,
    emit: Callable[[Event], None] = lambda _: None,
) -> Manifest:
    """Create, update or replace the object, and return the server's response.

    If an object of this name is being deleted, wait until it no longer exists: an apply to it would be lost.
    Raises ClusterError.
    """
    desired = _desired(change)
    if change.action is Action.REPLACE:
        _delete_for_replacement(change, cluster, desired, apply_set, force=force)
    if change.action is Action.REPLACE or (change.action is Action.CREATE and change.live):
        _wait_until_deleted(change, cluster, timeout_s, stop, emit)
    if change.action is not Action.UPDATE or change.live is None:
        return _create(desired, cluster, force=force)
    if change.takeover is not None:
        _take_over(change, change.takeover, cluster)
    return _apply(_with_uid(desired, change.live), cluster, force=force)


def prune_object(
    change: Change, cluster: Cluster, apply_set: ApplySet, own_uids: Mapping[str, ObjectKey]
) -> None:
    """Delete exactly the planned object, after checking its prune proofs once more.

    Raises PreconditionFailed if another object has this name, or if a proof is missing. Raises ClusterError
    if a request fails.
    """
    member_of = change.former or apply_set
    _delete_planned(
        change,
        cluster,
        lambda live: _check_prunable(change, live, cluster, member_of, own_uids),
        _PROPAGATION.get(change.key.kind, Propagation.BACKGROUND),
    )


def _apply(manifest: Manifest, cluster: Cluster, *, force: bool) -> Manifest:
    """Apply the object and reclaim its fields from manual edits. No other function applies members."""
    apply = partial(cluster.apply, manifest, manager=FIELD_MANAGER, dry_run=False)
    applied, _ = reclaim_fields(apply, force=force)
    return applied


def _retry_on_conflict(
    change: Change,
    cluster: Cluster,
    is_needed: Callable[[Manifest | None], bool],
    send: Callable[[Manifest], object],
) -> None:
    """Send a write with the object's version as precondition; after a conflict, read the object and retry.

    A conflict occurs if a controller has updated the object (for example its status) after the plan was made,
    or if the response to an earlier attempt was lost. Before each attempt, `is_needed` checks the object. It
    returns False if nothing remains to be done, and raises an error if the write would be wrong.
    """
    live = change.live
    for _ in range(_ATTEMPTS):
        if not is_needed(live) or live is None:
            return
        try:
            send(live)
        except PreconditionFailed:
            live = cluster.get(change.key)
        else:
            return
    raise PreconditionFailed(
        f"the object kept changing; gave up after {_ATTEMPTS} attempts", where=change.key, hint=RUN_AGAIN
    )


def _delete_planned(
    change: Change, cluster: Cluster, check: Callable[[Manifest], None], propagation: Propagation
) -> None:
    """Delete exactly the planned object; succeed if it no longer exists or is already being deleted."""

    def is_needed(live: Manifest | None) -> bool:
        was_read_again = live is not change.live
        if live is None or (was_read_again and _is_planned(live, change) and is_terminating(live)):
            return False
        check(live)
        return True

    def send(live: Manifest) -> None:
        cluster.delete(
            change.key,
            uid=live["metadata"]["uid"],
            resource_version=live["metadata"]["resourceVersion"],
            propagation=propagation,
        )

    _retry_on_conflict(change, cluster, is_needed, send)


def _is_planned(live: Manifest, change: Change) -> bool:
    """Return True for the planned object, False for another object of the same name."""
    return change.live is not None and bool(live["metadata"]["uid"] == change.live["metadata"]["uid"])


def _check_planned(live: Manifest | None, change: Change) -> None:
    if live is None or not _is_planned(live, change):
        raise PreconditionFailed("another object has this name now", where=change.key, hint=RUN_AGAIN)


def _check_proofs(live: Manifest, change: Change, apply_set: ApplySet) -> None:
    missing = missing_proofs(live, apply_set)
    if missing:
        raise PreconditionFailed(f"not deleted: {missing[0]}", where=change.key, hint=RUN_AGAIN)


def _check_prunable(
    change: Change,
    live: Manifest,
    cluster: Cluster,
    apply_set: ApplySet,
    own_uids: Mapping[str, ObjectKey],
) -> None:
    """Raise PreconditionFailed unless this is the planned object and its prune proofs are complete.

    If the object is a namespace, its contents are read again, because preconditions protect only the
    Namespace object, not its contents.
    """
    _check_planned(live, change)
    _check_proofs(live, change, apply_set)
    if change.key.kind == "Namespace":
        foreign_objects = find_foreign_objects(cluster, change.key.name, apply_set, own_uids)
        if foreign_objects:
            raise PreconditionFailed(
                f"the namespace contains an object that does not belong to nimlab: {foreign_objects[0]}",
                where=change.key,
                hint="move or delete that object, then sync again",
            )


def _desired(change: Change) -> Manifest:
    if change.desired is None:
        raise AssertionError(f"{change.key}: the change has no desired object")
    return change.desired


def _create(desired: Manifest, cluster: Cluster, *, force: bool) -> Manifest:
    """Create the object. Raises PreconditionFailed if another client has created it.

    With a resourceVersion that no object has, an apply can only create (docs/server-side-apply.md). If the
    object already exists exactly as desired, an earlier attempt created it, and the response was lost.
    """
    key = key_of(desired)
    new = {**desired, "metadata": {**desired["metadata"], "resourceVersion": NO_VERSION}}
    try:
        return _apply(new, cluster, force=force)
    except PreconditionFailed as error:
        live = cluster.get(key)
        if live is not None and compare(desired, live).unchanged:
            return live
        raise PreconditionFailed(
            "another client created the object after the plan was made", where=key, hint=RUN_AGAIN
        ) from error


def _take_over(change: Change, takeover: Takeover, cluster: Cluster) -> None:
    """Change the managed fields of the planned object as the plan requires, before the apply."""

    def is_needed(live: Manifest | None) -> bool:
        _check_planned(live, change)
        return True

    def send(live: Manifest) -> None:
        cluster.patch(change.key, [require_version(live), *takeover_patch(takeover, live)], dry_run=False)

    _retry_on_conflict(change, cluster, is_needed, send)


def _with_uid(desired: Manifest, live: Manifest) -> Manifest:
    """Return the manifest with the uid of the object to update.

    With a uid, an apply never creates an object. It fails if the object does not exist, or if another object
    has this name (docs/server-side-apply.md).
    """
    return {**desired, "metadata": {**desired["metadata"], "uid": live["metadata"]["uid"]}}


def _delete_for_replacement(
    change: Change, cluster: Cluster, desired: Manifest, apply_set: ApplySet, *, force: bool
) -> None:
    """Delete the former object after a dry run has shown that the server accepts the new object."""
    cluster.apply(replacement_trial(desired), manager=FIELD_MANAGER, force=force, dry_run=True)
    orphan = change.replace_by is OnImmutableChange.ORPHAN
    propagation = Propagation.ORPHAN if orphan else Propagation.FOREGROUND
    _delete_planned(change, cluster, lambda live: _check_replaceable(change, live, apply_set), propagation)


def _check_replaceable(change: Change, live: Manifest, apply_set: ApplySet) -> None:
    """Raise PreconditionFailed unless this is the planned object, with the same spec and all prune proofs."""
    _check_proofs(live, change, apply_set)
    planned = change.live or {}
    same_spec = live["metadata"].get("generation") == planned["metadata"].get("generation")
    if not _is_planned(live, change) or not same_spec:
        raise PreconditionFailed(
            "the object was changed after the plan was made", where=change.key, hint=RUN_AGAIN
        )


def _wait_until_deleted(
    change: Change,
    cluster: Cluster,
    timeout_s: float,
    stop: threading.Event,
    emit: Callable[[Event], None],
) -> None:
    """Wait until the former object is deleted. At the timeout, raise ClusterError with the reason."""
    latest = change.live

    def is_deleted() -> bool:
        nonlocal latest
        live = cluster.get(change.key)
        if live is None or not _is_planned(live, change):
            return True
        if latest is change.live:
            emit(Notice(text=f"waiting until {change.key} is deleted: {describe_blockers(live)}"))
        latest = live
        return False

    try:
        poll(is_deleted, f"{change.key} still exists", timeout_s, stop)
    except ClusterError as error:
        if latest is None or not is_terminating(latest):
            raise
        raise _blocked_deletion(change.key, latest, timeout_s, error.hint) from error


def _blocked_deletion(key: ObjectKey, live: Manifest, timeout_s: float, hint: str | None) -> ClusterError:
    """Return the error for a former object that is still being deleted at the timeout."""
    finalizers = finalizers_of(live)
    if finalizers:
        hint = f"find out why the finalizer `{finalizers[0]}` is not removed, then sync again"
    return ClusterError(
        f"the former object is still being deleted after {timeout_s:.0f} s: {describe_blockers(live)}",
        where=key,
        hint=hint,
    )
