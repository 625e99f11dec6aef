"""One object written: applied, replaced, pruned; and the peers of an old revision deleted.

Each function does what one `Change` says, with the identity that the plan saw as its precondition, or
raises. None of them decides anything.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from nimlab.change import Action, Change
from nimlab.cluster import Cluster, Propagation, apply_over, find_strangers
from nimlab.errors import ClusterError, Moved, NimlabError
from nimlab.manifest import Manifest, ObjectKey, labels_of
from nimlab.owned import FIELD_MANAGER, ApplySet, missing_proofs
from nimlab.spec import OnImmutableChange
from nimlab.workload import restarts_together

_POLL_S: Final = 0.2
_PRUNE_ATTEMPTS: Final = 5
_PROPAGATION: Final = {"StatefulSet": Propagation.FOREGROUND}  # gone only when its peers are


def apply_object(
    change: Change, cluster: Cluster, *, force: bool, timeout_s: float, stop: threading.Event
) -> Manifest:
    """Make the object as desired and return it as the server has it.

    An object that is being deleted is waited for: applying to it would vanish with it. Raises ClusterError.
    """
    desired = _desired(change)
    if change.action is Action.REPLACE:
        _remove_for_replacement(change, cluster, desired, force=force)
    if change.action is Action.REPLACE or (change.action is Action.CREATE and change.live):
        _wait_until(
            lambda: cluster.get(change.key) is None,
            f"{change.key} is still being deleted",
            timeout_s,
            stop,
        )
    if change.action is Action.UPDATE and change.live is not None:
        desired = _bound_to(desired, change.live)
    made, _ = apply_over(cluster, desired, force=force, dry_run=False)
    return made


def restart_peers(
    change: Change, made: Manifest, cluster: Cluster, *, parallel: int, stop: threading.Event
) -> int:
    """Delete all peers of older revisions together; return how many.

    Under `OnDelete` the controller replaces none by itself: so no network runs half old, half new for longer
    than it takes to start the new ones. Raises ClusterError.
    """
    if not (change.restarts and change.action is Action.UPDATE and restarts_together(made)):
        return 0
    current = _observed(made, change.key, cluster, stop)
    revision = current["status"]["updateRevision"]
    selector = ",".join(f"{k}={v}" for k, v in current["spec"]["selector"]["matchLabels"].items())
    pods = cluster.list_objects("Pod", namespace=change.key.namespace, labels=selector).items
    old = [pod for pod in pods if _is_old_peer(pod, current, revision)]
    with ThreadPoolExecutor(max_workers=parallel) as pool:
        for _ in pool.map(lambda pod: _delete_peer(pod, cluster), old):
            pass
    return len(old)


def prune_object(change: Change, cluster: Cluster, apply_set: ApplySet, ours: frozenset[ObjectKey]) -> None:
    """Delete the object that the plan saw, and no other.

    A controller may touch it between the look and here (a status); then it is read again and has to prove
    once more that it is ours. Raises ClusterError; Moved when it is no longer what the plan saw.
    """
    live = change.live
    for _ in range(_PRUNE_ATTEMPTS):
        if live is None:
            return
        _check_prunable(change, live, cluster, apply_set, ours)
        try:
            cluster.delete(
                change.key,
                uid=live["metadata"]["uid"],
                resource_version=live["metadata"]["resourceVersion"],
                propagation=_PROPAGATION.get(change.key.kind, Propagation.BACKGROUND),
            )
        except Moved:
            live = cluster.get(change.key)
        else:
            return
    raise Moved("it changes faster than it can be deleted", where=change.key, hint="run it again")


def _check_prunable(
    change: Change,
    live: Manifest,
    cluster: Cluster,
    apply_set: ApplySet,
    ours: frozenset[ObjectKey],
) -> None:
    """Raise Moved unless this is the very object that was planned and it still proves to be ours.

    A namespace is looked through once more, since preconditions guard only its own object.
    """
    planned = change.live
    if planned is None or live["metadata"]["uid"] != planned["metadata"]["uid"]:
        raise Moved("another object has its name now", where=change.key, hint="run it again")
    missing = missing_proofs(live, apply_set)
    if missing:
        raise Moved(f"left alone: {missing[0]}", where=change.key, hint="run it again")
    if change.key.kind == "Namespace":
        strangers = find_strangers(cluster, change.key.name, ours)
        if strangers:
            raise Moved(
                f"it holds what is not ours: {strangers[0]}",
                where=change.key,
                hint="move or delete that, then sync again",
            )


def _desired(change: Change) -> Manifest:
    if change.desired is None:
        raise AssertionError(f"{change.key}: nothing desired to apply")
    return change.desired


def _bound_to(desired: Manifest, live: Manifest) -> Manifest:
    """Bind an update to the object that was seen.

    With a uid in its body an apply never creates: if the object is gone, or is another one of the same name,
    it fails instead (shared/reference/ssa-rule.md section 5).
    """
    return {**desired, "metadata": {**desired["metadata"], "uid": live["metadata"]["uid"]}}


def _remove_for_replacement(change: Change, cluster: Cluster, desired: Manifest, *, force: bool) -> None:
    """Delete the old object once the server has accepted the new one.

    The trial goes under another name: under its own the server would refuse the immutable field, or say that
    it exists.
    """
    trial = {**desired, "metadata": {**desired["metadata"], "name": f"{change.key.name}-new"}}
    cluster.apply(trial, manager=FIELD_MANAGER, force=force, dry_run=True)
    live = change.live
    if live is None:
        raise AssertionError(f"{change.key}: a replacement without an object")
    orphan = change.replace_by is OnImmutableChange.ORPHAN
    cluster.delete(
        change.key,
        uid=live["metadata"]["uid"],
        resource_version=live["metadata"]["resourceVersion"],
        propagation=Propagation.ORPHAN if orphan else Propagation.FOREGROUND,
    )


def _observed(made: Manifest, key: ObjectKey, cluster: Cluster, stop: threading.Event) -> Manifest:
    """Return the StatefulSet once its controller has seen the new template: then its revision is known."""
    found: list[Manifest] = []

    def is_observed() -> bool:
        live = cluster.get(key)
        if live is None:
            raise Moved("it was deleted while its peers were restarted", where=key)
        seen = int((live.get("status") or {}).get("observedGeneration") or 0)
        found[:] = [live]
        return seen >= int(made["metadata"]["generation"])

    _wait_until(is_observed, f"the StatefulSet controller hasn't seen {key}", 60, stop)
    return found[0]


def _is_old_peer(pod: Manifest, owner: Manifest, revision: str) -> bool:
    owners = pod["metadata"].get("ownerReferences") or ()
    return (
        any(o.get("uid") == owner["metadata"]["uid"] for o in owners)
        and labels_of(pod).get("controller-revision-hash") != revision
        and not pod["metadata"].get("deletionTimestamp")
    )


def _delete_peer(pod: Manifest, cluster: Cluster) -> None:
    """Delete one peer by its uid; one that is already another is new, and stays."""
    metadata = pod["metadata"]
    key = ObjectKey("Pod", metadata["namespace"], metadata["name"])
    try:
        cluster.delete(key, uid=metadata["uid"], resource_version=None, propagation=Propagation.BACKGROUND)
    except Moved:
        return


def _wait_until(is_done: Callable[[], bool], what: str, timeout_s: float, stop: threading.Event) -> None:
    """Ask again until it is so. Raises ClusterError at the timeout, NimlabError when told to stop."""
    deadline = time.monotonic() + timeout_s
    while not is_done():
        if time.monotonic() > deadline:
            raise ClusterError(f"{what} after {timeout_s:.0f} s", hint="look what holds it, then sync again")
        if stop.wait(_POLL_S):
            raise NimlabError(f"interrupted while {what}", hint="run it again")
