"""One object, desired and live -> the change to make, and the reason for it.

In: a desired manifest or an orphan, the snapshot, and the policy. Out: one `Change`. Each object is judged
alone; rules about several objects are in `make_plan`. Pure.
"""

from __future__ import annotations

from dataclasses import replace

from nimlab.errors import Conflict, ImmutableField, NimlabError, OwnershipConflict
from nimlab.files.spec import OnImmutableChange
from nimlab.objects.applyset import MEMBER, PART_OF, ApplySet, member_reference
from nimlab.objects.managed_fields import compare, foreign_fields, own_entry
from nimlab.objects.manifest import Manifest, ObjectKey, annotations_of, key_of, labels_of
from nimlab.objects.prune_proofs import missing_proofs
from nimlab.objects.takeover import Takeover, after_takeover
from nimlab.plan.change import Action, Change, _as_if_staying, _is_overlaid
from nimlab.plan.deletion_blockers import held_by, is_leaving
from nimlab.plan.diff import FieldChange, diff_desired, diff_objects
from nimlab.plan.kstatus import is_observed, peers_of, restart_pending
from nimlab.plan.predict import predict
from nimlab.plan.snapshot import Desired, Prediction, Snapshot
from nimlab.plan.sync_policy import PlanInputs
from nimlab.plan.workload import (
    adopts_peers,
    changes_template,
    immutable_changes,
    restarts_of,
    restarts_together,
)


def decide_desired(desired: Manifest, group: Desired, snapshot: Snapshot, inputs: PlanInputs) -> Change:
    """Return what is to be done with an object that an experiment wants."""
    key = key_of(desired)
    live = snapshot.live.get(key)
    if live is None or live["metadata"].get("deletionTimestamp"):
        reason = "" if live is None else f"waits until the former object is gone: {held_by(live)}"
        change = _change(Action.CREATE, desired, live, group, reason=reason)
        return replace(change, outdated_peers_possible=group.on_immutable_change is OnImmutableChange.ORPHAN)
    conflict = _ownership_conflict(key, live, snapshot, inputs)
    if conflict is not None:
        return _change(Action.UPDATE, desired, live, group, error=conflict)
    if key not in snapshot.predicted:
        return _decide_unchanged(desired, live, group)
    return _decide_suspect(desired, live, snapshot.predicted[key], group, snapshot.apply_set)


def decide_orphan(live: Manifest, snapshot: Snapshot, inputs: PlanInputs) -> Change:
    """Return what is to be done with an object that carries our label and that nothing wants any more."""
    apply_set = snapshot.set_of(live)
    missing = missing_proofs(live, apply_set)
    foreign_objects = snapshot.foreign_objects.get(live["metadata"]["name"], ())
    is_namespace = live["kind"] == "Namespace"
    leaving = is_leaving(live) and not missing_proofs(_as_if_staying(live), apply_set)
    if leaving:
        action, reason = Action.KEEP, held_by(live)
    elif missing:
        action, reason = Action.KEEP, f"left alone: {missing[0]}"
    elif is_namespace and foreign_objects is None:
        action, reason = (
            Action.KEEP,
            "left alone: these credentials, or the server just now, don't show all that is in it",
        )
    elif is_namespace and foreign_objects:
        names = ", ".join(str(key) for key in foreign_objects[:3])
        more = f" and {len(foreign_objects) - 3} more" if len(foreign_objects) > 3 else ""
        action, reason = Action.KEEP, f"left alone: it holds what is not ours: {names}{more}"
    elif not inputs.policy.prune:
        action, reason = Action.KEEP, "orphaned; left alone because of `--no-prune`"
    else:
        action, reason = Action.PRUNE, ""
    former = None if apply_set == snapshot.apply_set else apply_set
    return Change(
        action=action,
        key=key_of(live),
        experiment=apply_set.group_of(live),
        desired=None,
        live=live,
        reason=reason,
        former=former,
        leaving=leaving,
    )


def _change(
    action: Action,
    desired: Manifest,
    live: Manifest | None,
    group: Desired,
    *,
    reason: str = "",
    fields: tuple[FieldChange, ...] = (),
    error: NimlabError | None = None,
    restarts: int = 0,
    unverified: bool = False,
    replace_by: OnImmutableChange | None = None,
    taken: tuple[Conflict, ...] = (),
    takeover: Takeover | None = None,
) -> Change:
    going = takeover.removed if takeover else ()
    foreign = () if live is None else foreign_fields(desired, live)
    return Change(
        action=action,
        key=key_of(desired),
        experiment=group.name,
        desired=desired,
        live=live,
        reason=reason,
        fields=fields,
        foreign=tuple(f for f in foreign if f not in going),
        error=error,
        restarts=restarts,
        unverified=unverified,
        replace_by=replace_by,
        taken=taken,
        takeover=takeover,
    )


def _ownership_conflict(
    key: ObjectKey, live: Manifest, snapshot: Snapshot, inputs: PlanInputs
) -> OwnershipConflict | None:
    """Return who owns the object if it isn't ours; None if it is ours or may be taken over.

    The label alone proves nothing, because anybody can set or copy it. A labelled object is ours if it names
    itself, as the output of `nimlab render` does, or if we applied it. An unlabelled object, and one of this
    lab's set in a former namespace, is ours if both hold.
    """
    apply_set = snapshot.apply_set
    owner = labels_of(live).get(PART_OF)
    if snapshot.set_of(live) != apply_set:
        owner = None
    names_itself = annotations_of(live).get(MEMBER) == member_reference(key, apply_set)
    applied = own_entry(live) is not None
    if inputs.policy.take_ownership and owner in (None, apply_set.id):
        return None
    if owner == apply_set.id and (names_itself or applied):
        return None
    if owner not in (None, apply_set.id):
        return OwnershipConflict(
            f"it is a member of another apply-set, {owner}",
            where=key,
            hint="two labs want the same object: rename one, or delete the object from the other first",
        )
    if names_itself and applied:
        return None
    return OwnershipConflict(
        "it exists, and nimlab did not make it",
        where=key,
        hint="rename the experiment, delete the object, or take it over with `--take-ownership`",
    )


def _decide_unchanged(desired: Manifest, live: Manifest, group: Desired) -> Change:
    """An object that is as desired; only its peers may lag, when a sync was interrupted."""
    foreign = foreign_fields(desired, live)
    if _is_overlaid(live, foreign):
        reason = "its peers are left as they are: the newer template has foreign additions"
        return _change(Action.KEEP, desired, live, group, reason=reason)
    behind = restarts_of(live, None)
    if behind and restarts_together(desired):
        reason = "peers of an older revision are still there"
        return _change(Action.UPDATE, desired, live, group, reason=reason, restarts=behind)
    if _is_uncounted(live, group) and not any(f.in_template for f in foreign):
        reason = "its controller hasn't seen the last change yet: peers of an older template may be left"
        return replace(
            _change(Action.UPDATE, desired, live, group, reason=reason), outdated_peers_possible=True
        )
    return _change(Action.KEEP, desired, live, group)


def _is_uncounted(live: Manifest, group: Desired) -> bool:
    """True after a sync that ended halfway: a whole one waits until its new template has been seen.

    Where no peers are to be, those of any template go.
    """
    if not restarts_together(live) or is_observed(live) or not peers_of(live).wanted:
        return False
    can_adopt = group.on_immutable_change is OnImmutableChange.ORPHAN
    return can_adopt or int(live["metadata"]["generation"]) > 1


def _decide_suspect(
    desired: Manifest, live: Manifest, prediction: Prediction, group: Desired, apply_set: ApplySet
) -> Change:
    immutable = immutable_changes(desired, live)
    if immutable:
        refused = prediction.error or _unproven(live, apply_set)
        return _decide_replace(desired, live, immutable, refused, group)
    takeover = prediction.takeover
    if prediction.error is not None:
        fields = diff_desired(live, desired)
        return _change(
            Action.UPDATE, desired, live, group, fields=fields, error=prediction.error, takeover=takeover
        )
    if prediction.manifest is None:
        return _decide_unverified(desired, live, prediction, group)
    if prediction.after_takeover is not None:
        return _decide_handover(
            desired, live, prediction.manifest, prediction.after_takeover, prediction, group
        )
    return _decide_predicted(desired, live, prediction.manifest, prediction.taken, group)


def _decide_unverified(desired: Manifest, live: Manifest, prediction: Prediction, group: Desired) -> Change:
    """The credentials only allow looking: what an apply would do is told from here.

    What isn't proven unchanged is never told as unchanged, even where no field is seen to differ.
    """
    made = predict(desired, live)
    if prediction.takeover is not None:
        handed = after_takeover(prediction.takeover, live)
        return replace(_decide_handover(desired, live, made, handed, prediction, group), unverified=True)
    fields = diff_objects(live, made)
    reason = "" if fields else f"not proven to be as desired: {compare(desired, live).reason}"
    restarts = restarts_of(live, made)
    return _change(
        Action.UPDATE, desired, live, group, reason=reason, fields=fields, restarts=restarts, unverified=True
    )


def _decide_handover(
    desired: Manifest,
    live: Manifest,
    made: Manifest,
    handed: Manifest,
    prediction: Prediction,
    group: Desired,
) -> Change:
    """Two writes, the handover and the apply: their changes together are the change."""
    changes = {change.path: change for after in (handed, made) for change in diff_objects(live, after)}
    return _change(
        Action.UPDATE,
        desired,
        live,
        group,
        fields=tuple(changes[path] for path in sorted(changes)),
        restarts=_handover_restarts(live, made, handed),
        taken=prediction.taken,
        takeover=prediction.takeover,
    )


def _handover_restarts(live: Manifest, made: Manifest, handed: Manifest) -> int:
    """All peers, when the template changes; where only foreign additions go, those that run with them."""
    changed = changes_template(live, made)
    if not changed and changes_template(live, handed) and restart_pending(live):
        return peers_of(live).updated
    return restarts_of(live, made if changed else handed)


def _decide_predicted(
    desired: Manifest,
    live: Manifest,
    predicted: Manifest,
    taken: tuple[Conflict, ...],
    group: Desired,
) -> Change:
    """The server has told what an apply would give: the difference to live is the change."""
    fields = diff_objects(live, predicted)
    if fields:
        restarts = restarts_of(live, predicted)
        return _change(Action.UPDATE, desired, live, group, fields=fields, restarts=restarts, taken=taken)
    if own_entry(live) != own_entry(predicted):
        reason = "the fields are as desired, but not all are ours: takes them back"
        return _change(Action.UPDATE, desired, live, group, reason=reason)
    kept = ", ".join(change.path for change in diff_desired(live, desired)[:3])
    reason = f"the server keeps its own {kept}" if kept else ""
    unchanged = _decide_unchanged(desired, live, group)
    if unchanged.action is Action.UPDATE or not reason:
        return unchanged
    return _change(Action.KEEP, desired, live, group, reason=reason)


def _unproven(live: Manifest, apply_set: ApplySet) -> OwnershipConflict | None:
    """Say why an object may not be replaced: that deletes it, so it takes all proofs of a prune."""
    missing = missing_proofs(live, apply_set)
    if not missing:
        return None
    return OwnershipConflict(
        f"it can't be replaced: {missing[0]}",
        where=key_of(live),
        hint="delete it yourself, once you know that nobody needs it; the next sync makes it anew",
    )


def _decide_replace(
    desired: Manifest,
    live: Manifest,
    immutable: tuple[str, ...],
    refused: NimlabError | None,
    group: Desired,
) -> Change:
    """The object is deleted and made anew; what others have added to it goes with it."""
    paths = ", ".join(immutable)
    reason = f"{paths} can't be changed in place"
    how = group.on_immutable_change
    additions = Takeover(managers=(), removed=foreign_fields(desired, live))
    handed = after_takeover(additions, live)
    restarts = _handover_restarts(live, predict(desired, live), handed)
    error = refused or _refused_replacement(desired, live, reason, how)
    peers = int((live.get("status") or {}).get("replicas") or 0)
    change = _change(
        Action.REPLACE,
        desired,
        live,
        group,
        reason=reason,
        fields=diff_objects(live, predict(desired, handed)),
        error=error,
        restarts=restarts if how is OnImmutableChange.ORPHAN else peers,
        replace_by=how,
    )
    return change if error else replace(change, foreign=())


def _refused_replacement(
    desired: Manifest, live: Manifest, reason: str, how: OnImmutableChange
) -> ImmutableField | None:
    """Say why the experiment doesn't allow the replacement, or why peers can't outlive it."""
    if how is OnImmutableChange.FAIL:
        return ImmutableField(
            reason,
            where=key_of(desired),
            hint="allow it with `onImmutableChange: recreate` (peers restart) or `orphan` in the experiment",
        )
    if how is OnImmutableChange.ORPHAN and not adopts_peers(desired, live):
        return ImmutableField(
            f"{reason}, and the new object wouldn't adopt the peers: they don't have its selector's labels",
            where=key_of(desired),
            hint="say `onImmutableChange: recreate` (peers restart), or keep the selector",
        )
    return None
