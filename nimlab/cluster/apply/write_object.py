"""One object written: applied, replaced, pruned; and the peers of an old revision deleted.

Each function does what one `Change` says, with the identity that the plan saw as its precondition, or
raises. None of them decides anything.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from nimlab.cluster.observe import apply_over, find_foreign_objects
from nimlab.cluster.port import Cluster, Propagation
from nimlab.errors import ClusterError, NimlabError, PreconditionFailed
from nimlab.files.spec import OnImmutableChange
from nimlab.objects.applyset import FIELD_MANAGER, ApplySet
from nimlab.objects.change_detector import compare
from nimlab.objects.manifest import Manifest, ObjectKey, key_of, labels_of
from nimlab.objects.prune_proofs import missing_proofs
from nimlab.objects.takeover import Takeover, only_at, takeover_patch
from nimlab.plan.change import Action, Change
from nimlab.plan.deletion_blockers import finalizers_of, held_by, is_leaving
from nimlab.plan.kstatus import peers_of
from nimlab.plan.sync_events import Event, Notice
from nimlab.plan.workload import restarts_together, trial_of

_POLL_S: Final = 0.2
_OBSERVED_S: Final = 60.0
NO_VERSION: Final = "1"  # etcd's first revision: older than any object
_ATTEMPTS: Final = 5
_PROPAGATION: Final = {"StatefulSet": Propagation.FOREGROUND}  # gone only when its peers are


def apply_object(
    change: Change,
    cluster: Cluster,
    apply_set: ApplySet,
    *,
    force: bool,
    timeout_s: float,
    stop: threading.Event,
    tell: Callable[[Event], None] = lambda _: None,
) -> Manifest:
    """Make the object as desired and return it as the server has it.

    An object that is being deleted is waited for: applying to it would vanish with it. Raises ClusterError.
    """
    desired = _desired(change)
    if change.action is Action.REPLACE:
        _remove_for_replacement(change, cluster, desired, apply_set, force=force)
    if change.action is Action.REPLACE or (change.action is Action.CREATE and change.live):
        _wait_until_gone(change, cluster, timeout_s, stop, tell)
    if change.action is not Action.UPDATE or change.live is None:
        return _create(desired, cluster, force=force)
    if change.takeover is not None:
        _hand_over(change, change.takeover, cluster)
    made, _ = apply_over(cluster, _bound_to(desired, change.live), force=force, dry_run=False)
    return made


def restart_peers(
    change: Change, made: Manifest, cluster: Cluster, *, parallel: int, stop: threading.Event
) -> int:
    """Delete all peers of older revisions together; return how many. Its controller removes what is too many.

    Under `OnDelete` the controller replaces none by itself: so no network runs half old, half new for longer
    than it takes to start the new ones. Peers that were kept through a replacement are adopted by now. Raises
    ClusterError.
    """
    if not (change.outdated_peers_after and restarts_together(made) and peers_of(made).wanted):
        return 0
    current = _observed(made, change.key, cluster, stop)
    revision = current["status"]["updateRevision"]
    selector = ",".join(f"{k}={v}" for k, v in current["spec"]["selector"]["matchLabels"].items())
    old: dict[ObjectKey, str] = {}
    for page in cluster.pages("Pod", namespace=change.key.namespace, labels=selector, metadata_only=True):
        old |= {key_of(p): p["metadata"]["uid"] for p in page.items if _is_old_peer(p, current, revision)}
    with ThreadPoolExecutor(max_workers=parallel) as pool:
        for _ in pool.map(lambda key: _delete_peer(key, old[key], cluster), old):
            pass
    return len(old)


def prune_object(
    change: Change, cluster: Cluster, apply_set: ApplySet, ours: Mapping[str, ObjectKey]
) -> None:
    """Delete the object that the plan saw, and no other, once it has proven again that it is ours.

    Raises ClusterError; Moved when it is no longer what the plan saw.
    """
    member_of = change.former or apply_set
    _delete_planned(
        change,
        cluster,
        lambda live: _check_prunable(change, live, cluster, member_of, ours),
        _PROPAGATION.get(change.key.kind, Propagation.BACKGROUND),
    )


def _delete_planned(
    change: Change, cluster: Cluster, check: Callable[[Manifest], None], propagation: Propagation
) -> None:
    """Delete exactly what the plan saw; done when that is gone or on its way out.

    A controller may touch it between the look and here (a status), or the answer to our own request may get
    lost: then it is read again and checked once more.
    """
    live = change.live
    for _ in range(_ATTEMPTS):
        if live is None or (live is not change.live and _is_leaving(live, change)):
            return
        check(live)
        try:
            cluster.delete(
                change.key,
                uid=live["metadata"]["uid"],
                resource_version=live["metadata"]["resourceVersion"],
                propagation=propagation,
            )
        except PreconditionFailed:
            live = cluster.get(change.key)
        else:
            return
    raise PreconditionFailed(
        "it changes faster than it can be deleted", where=change.key, hint="run it again"
    )


def _is_leaving(live: Manifest, change: Change) -> bool:
    return _is_same(live, change) and bool(live["metadata"].get("deletionTimestamp"))


def _is_same(live: Manifest, change: Change) -> bool:
    """True for the very object that the plan saw, not another one of its name."""
    return change.live is not None and live["metadata"]["uid"] == change.live["metadata"]["uid"]


def _check_prunable(
    change: Change,
    live: Manifest,
    cluster: Cluster,
    apply_set: ApplySet,
    ours: Mapping[str, ObjectKey],
) -> None:
    """Raise Moved unless this is the very object that was planned and it still proves to be ours.

    A namespace is looked through once more, since preconditions guard only its own object.
    """
    if not _is_same(live, change):
        raise PreconditionFailed("another object has its name now", where=change.key, hint="run it again")
    missing = missing_proofs(live, apply_set)
    if missing:
        raise PreconditionFailed(f"left alone: {missing[0]}", where=change.key, hint="run it again")
    if change.key.kind == "Namespace":
        foreign_objects = find_foreign_objects(cluster, change.key.name, apply_set, ours)
        if foreign_objects:
            raise PreconditionFailed(
                f"it holds what is not ours: {foreign_objects[0]}",
                where=change.key,
                hint="move or delete that, then sync again",
            )


def _desired(change: Change) -> Manifest:
    if change.desired is None:
        raise AssertionError(f"{change.key}: nothing desired to apply")
    return change.desired


def _create(desired: Manifest, cluster: Cluster, *, force: bool) -> Manifest:
    """Apply an object that isn't there; Moved when it is, made by somebody since the look.

    A resourceVersion that no object has makes an apply create only (docs/server-side-apply.md).
    An object that is already just as desired is our own: the answer to our first try got lost.
    """
    key = key_of(desired)
    new = {**desired, "metadata": {**desired["metadata"], "resourceVersion": NO_VERSION}}
    try:
        made, _ = apply_over(cluster, new, force=force, dry_run=False)
    except PreconditionFailed as moved:
        live = cluster.get(key)
        if live is not None and compare(desired, live).unchanged:
            return live
        raise PreconditionFailed(
            "somebody has made it since it was looked for", where=key, hint="run it again: it looks anew"
        ) from moved
    return made


def _hand_over(change: Change, takeover: Takeover, cluster: Cluster) -> None:
    """Take over or out what the plan says, from the very object that it saw."""
    live = change.live
    for _ in range(_ATTEMPTS):
        if live is None or not _is_same(live, change):
            raise PreconditionFailed("another object has its name now", where=change.key, hint="run it again")
        try:
            cluster.patch(change.key, [only_at(live), *takeover_patch(takeover, live)], dry_run=False)
        except PreconditionFailed:
            live = cluster.get(change.key)
        else:
            return
    raise PreconditionFailed(
        "it changes faster than it can be patched", where=change.key, hint="run it again"
    )


def _bound_to(desired: Manifest, live: Manifest) -> Manifest:
    """Bind an update to the object that was seen.

    With a uid in its body an apply never creates: if the object is gone, or is another one of the same name,
    it fails instead (docs/server-side-apply.md).
    """
    return {**desired, "metadata": {**desired["metadata"], "uid": live["metadata"]["uid"]}}


def _remove_for_replacement(
    change: Change, cluster: Cluster, desired: Manifest, apply_set: ApplySet, *, force: bool
) -> None:
    """Delete the old object once the server has accepted the new one."""
    cluster.apply(trial_of(desired), manager=FIELD_MANAGER, force=force, dry_run=True)
    orphan = change.replace_by is OnImmutableChange.ORPHAN
    propagation = Propagation.ORPHAN if orphan else Propagation.FOREGROUND
    _delete_planned(change, cluster, lambda live: _check_replaceable(change, live, apply_set), propagation)


def _check_replaceable(change: Change, live: Manifest, apply_set: ApplySet) -> None:
    """Raise Moved unless this is what was planned, with its spec, and it still proves to be ours."""
    missing = missing_proofs(live, apply_set)
    if missing:
        raise PreconditionFailed(f"left alone: {missing[0]}", where=change.key, hint="run it again")
    planned = change.live or {}
    same_spec = live["metadata"].get("generation") == planned["metadata"].get("generation")
    if not _is_same(live, change) or not same_spec:
        raise PreconditionFailed(
            "it has been changed since it was looked at", where=change.key, hint="run it again"
        )


def _wait_until_gone(
    change: Change,
    cluster: Cluster,
    timeout_s: float,
    stop: threading.Event,
    tell: Callable[[Event], None],
) -> None:
    """Wait until the former object is gone. Raises ClusterError with what holds it, at the timeout."""
    last = change.live

    def is_gone() -> bool:
        nonlocal last
        live = cluster.get(change.key)
        if live is None or not _is_same(live, change):
            return True
        if last is change.live:
            tell(Notice(text=f"waiting until {change.key} is gone: {held_by(live)}"))
        last = live
        return False

    try:
        _wait_until(is_gone, f"{change.key} still exists", timeout_s, stop)
    except ClusterError as error:
        if last is None or not is_leaving(last):
            raise
        holders = finalizers_of(last)
        name = holders[0] if holders else ""
        hint = f"find out why `{name}` isn't removed, then sync again" if name else error.hint
        raise ClusterError(
            f"the former object is still being deleted after {timeout_s:.0f} s: {held_by(last)}",
            where=change.key,
            hint=hint,
        ) from error


def _observed(made: Manifest, key: ObjectKey, cluster: Cluster, stop: threading.Event) -> Manifest:
    """Return the StatefulSet once its controller has seen the new template: then its revision is known."""
    found: list[Manifest] = []

    def has_seen() -> bool:
        """Held against what was made: a read that is behind shows an older object, which was seen."""
        live = cluster.get(key)
        if live is None:
            raise PreconditionFailed("it was deleted while its peers were restarted", where=key)
        seen = int((live.get("status") or {}).get("observedGeneration") or 0)
        found[:] = [live]
        return seen >= int(made["metadata"]["generation"])

    _wait_until(has_seen, f"the StatefulSet controller hasn't seen {key}", _OBSERVED_S, stop)
    return found[0]


def _is_old_peer(pod: Manifest, owner: Manifest, revision: str) -> bool:
    owners = pod["metadata"].get("ownerReferences") or ()
    first = int((owner["spec"].get("ordinals") or {}).get("start") or 0)
    number = pod["metadata"]["name"].rpartition("-")[2]
    return (
        number.isdecimal()
        and int(number) < first + peers_of(owner).wanted
        and any(o.get("uid") == owner["metadata"]["uid"] for o in owners)
        and labels_of(pod).get("controller-revision-hash") != revision
        and not pod["metadata"].get("deletionTimestamp")
    )


def _delete_peer(key: ObjectKey, uid: str, cluster: Cluster) -> None:
    """Delete one peer by its uid; one that is already another is new, and stays."""
    try:
        cluster.delete(key, uid=uid, resource_version=None, propagation=Propagation.BACKGROUND)
    except PreconditionFailed:
        return


def _wait_until(is_done: Callable[[], bool], what: str, timeout_s: float, stop: threading.Event) -> None:
    """Ask again until it is so. Raises ClusterError at the timeout, NimlabError when told to stop."""
    deadline = time.monotonic() + timeout_s
    while not is_done():
        if time.monotonic() > deadline:
            raise ClusterError(f"{what} after {timeout_s:.0f} s", hint="look what holds it, then sync again")
        if stop.wait(_POLL_S):
            raise NimlabError(f"interrupted while {what}", hint="run it again")
