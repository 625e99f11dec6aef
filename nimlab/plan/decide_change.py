"""Decide what a sync changes on one object, and why.

In: a desired manifest, or a live object that no file specifies; the snapshot; the policy. Out: one `Change`.
`make_plan` contains the rules that concern several objects. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from nimlab.errors import ImmutableField, NimlabError, OwnershipConflict
from nimlab.files.spec import OnImmutableChange
from nimlab.objects.applyset import MEMBER, PART_OF, ApplySet, member_reference
from nimlab.objects.foreign_fields import foreign_fields
from nimlab.objects.managed_fields import own_entry
from nimlab.objects.manifest import Manifest, ObjectKey, annotations_of, key_of, labels_of
from nimlab.objects.prune_conditions import missing_proofs
from nimlab.objects.takeover import Takeover, after_takeover
from nimlab.objects.unchanged_check import compare
from nimlab.plan.change import Action, Change, must_keep_outdated_peers
from nimlab.plan.diff import diff_desired, diff_objects
from nimlab.plan.explain_stuck_deletion import describe_blockers, is_terminating
from nimlab.plan.immutable_fields import adopts_peers, immutable_changes
from nimlab.plan.kstatus import is_observed, peers_of, restart_pending
from nimlab.plan.pod_restarts import changes_template, is_restarted_by_sync, restarts_of
from nimlab.plan.predict_apply import predict
from nimlab.plan.snapshot import Desired, Prediction, Snapshot
from nimlab.plan.sync_policy import PlanInputs


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """A desired object and its live object.

    `base` is a change of this object with the action KEEP. Each decision returns `base` or a modified copy of
    it. `on_immutable_change` is the setting of the experiment for changes of immutable fields.
    """

    desired: Manifest
    live: Manifest
    base: Change
    on_immutable_change: OnImmutableChange


def decide_desired(desired: Manifest, group: Desired, snapshot: Snapshot, inputs: PlanInputs) -> Change:
    """Return the change for a desired object. `group` is the experiment or component of the object."""
    key = key_of(desired)
    live = snapshot.live.get(key)
    on_immutable_change = group.on_immutable_change
    base = Change(
        action=Action.KEEP,
        key=key,
        experiment=group.name,
        desired=desired,
        live=live,
        foreign=() if live is None else foreign_fields(desired, live),
    )
    if live is None or is_terminating(live):
        reason = "" if live is None else f"waits until the old object is deleted: {describe_blockers(live)}"
        orphaned_peers = on_immutable_change is OnImmutableChange.ORPHAN
        return replace(base, action=Action.CREATE, reason=reason, outdated_peers_possible=orphaned_peers)
    conflict = _ownership_conflict(key, live, snapshot, inputs)
    if conflict is not None:
        return replace(base, action=Action.UPDATE, error=conflict)
    pair = _Pair(desired=desired, live=live, base=base, on_immutable_change=on_immutable_change)
    if key not in snapshot.predicted:
        return _decide_unchanged(pair)
    return _decide_suspect(pair, snapshot.predicted[key], snapshot.apply_set)


def decide_orphan(live: Manifest, snapshot: Snapshot, inputs: PlanInputs) -> Change:
    """Return the change for an object with nimlab's label that no file specifies any more."""
    apply_set = snapshot.set_of(live)
    leaving = is_terminating(live) and not missing_proofs(_without_deletion(live), apply_set)
    reason = describe_blockers(live) if leaving else _reason_to_keep(live, apply_set, snapshot, inputs)
    return Change(
        action=Action.KEEP if reason else Action.PRUNE,
        key=key_of(live),
        experiment=apply_set.group_of(live),
        desired=None,
        live=live,
        reason=reason,
        former=None if apply_set == snapshot.apply_set else apply_set,
        leaving=leaving,
    )


def _without_deletion(live: Manifest) -> Manifest:
    """Return the object without its deletionTimestamp, so that only the other proofs are checked."""
    metadata = {name: value for name, value in live["metadata"].items() if name != "deletionTimestamp"}
    return {**live, "metadata": metadata}


def _reason_to_keep(live: Manifest, apply_set: ApplySet, snapshot: Snapshot, inputs: PlanInputs) -> str:
    """Return the reason why an orphan is not pruned; empty if it is pruned."""
    missing = missing_proofs(live, apply_set)
    if missing:
        return f"left alone: {missing[0]}"
    if live["kind"] == "Namespace":
        contents = snapshot.foreign_objects.get(live["metadata"]["name"], ())
        if contents is None:
            return "left alone: not all objects in it could be listed (no permission, or a server error)"
        if contents:
            names = ", ".join(str(key) for key in contents[:3])
            more = f" and {len(contents) - 3} more" if len(contents) > 3 else ""
            return f"left alone: it contains objects that nimlab does not manage: {names}{more}"
    return "" if inputs.policy.prune else "orphaned; left alone because of `--no-prune`"


def _ownership_conflict(
    key: ObjectKey, live: Manifest, snapshot: Snapshot, inputs: PlanInputs
) -> OwnershipConflict | None:
    """Return the conflict with the owner of the object; None if nimlab owns it or may take it over.

    The label alone proves nothing, because any client can set or copy it. nimlab owns an object with the
    label of this apply-set if at least one of two conditions is true. First, the annotation names the object
    itself; this is also true for the output of `nimlab render`. Second, nimlab has applied the object. Both
    conditions are required if the object does not have the label, or if it is a member of this lab's set in a
    former namespace.
    """
    apply_set = snapshot.apply_set
    owner = labels_of(live).get(PART_OF)
    if snapshot.set_of(live) != apply_set:
        owner = None
    names_itself = annotations_of(live).get(MEMBER) == member_reference(key, apply_set)
    is_applied = own_entry(live) is not None
    if inputs.policy.take_ownership and owner in (None, apply_set.id):
        return None
    if owner == apply_set.id and (names_itself or is_applied):
        return None
    if owner not in (None, apply_set.id):
        return OwnershipConflict(
            f"the object is a member of another apply-set, {owner}",
            where=key,
            hint="two labs specify the same object: rename one of the experiments, or delete the object from"
            " the other lab first",
        )
    if names_itself and is_applied:
        return None
    return OwnershipConflict(
        "the object already exists and was not created by nimlab",
        where=key,
        hint="rename the experiment, delete the object, or take it over with `--take-ownership`",
    )


def _decide_unchanged(pair: _Pair) -> Change:
    """Decide about an object that is as desired, but may have outdated peers after an interrupted sync."""
    base, live = pair.base, pair.live
    if must_keep_outdated_peers(live, base.foreign):
        return replace(
            base, reason="its peers are not restarted: the newer pod template contains foreign fields"
        )
    outdated = restarts_of(live, None)
    if outdated and is_restarted_by_sync(pair.desired):
        reason = "some peers still run an older revision"
        return replace(base, action=Action.UPDATE, reason=reason, restarts=outdated)
    if _may_have_uncounted_peers(pair) and not any(f.in_template for f in base.foreign):
        reason = "its controller has not observed the last change yet: some peers may run an older template"
        return replace(base, action=Action.UPDATE, reason=reason, outdated_peers_possible=True)
    return base


def _may_have_uncounted_peers(pair: _Pair) -> bool:
    """Return True if outdated peers may exist that the status does not count yet.

    Such peers can exist only after an interrupted sync, because a complete sync waits until the controller
    has observed the new template. With zero replicas they cannot exist, because the controller deletes all
    peers.
    """
    live = pair.live
    if not is_restarted_by_sync(live) or is_observed(live) or not peers_of(live).wanted:
        return False
    can_adopt = pair.on_immutable_change is OnImmutableChange.ORPHAN
    return can_adopt or int(live["metadata"]["generation"]) > 1


def _decide_suspect(pair: _Pair, prediction: Prediction, apply_set: ApplySet) -> Change:
    """Decide about an object that is not proven to be as desired."""
    desired, live = pair.desired, pair.live
    immutable = immutable_changes(desired, live)
    if immutable:
        return _decide_replace(pair, immutable, prediction.error or _unproven(live, apply_set))
    if prediction.error is not None:
        change = _with_takeover(pair.base, prediction.takeover)
        fields = diff_desired(live, desired)
        return replace(change, action=Action.UPDATE, fields=fields, error=prediction.error)
    if prediction.manifest is None:
        return _decide_unverified(pair, prediction)
    if prediction.after_takeover is not None:
        return _decide_takeover(pair, prediction.manifest, prediction.after_takeover, prediction)
    return _decide_predicted(pair, prediction, prediction.manifest)


def _with_takeover(base: Change, takeover: Takeover | None) -> Change:
    """Return the change with the takeover, and without the foreign fields that the takeover removes."""
    if takeover is None:
        return base
    foreign = tuple(f for f in base.foreign if f not in takeover.removed)
    return replace(base, takeover=takeover, foreign=foreign)


def _decide_unverified(pair: _Pair, prediction: Prediction) -> Change:
    """Decide without a dry run, because the credentials only allow reads; nimlab predicts the apply itself.

    An object that is not proven unchanged is never reported as unchanged, even if no field differs.
    """
    desired, live = pair.desired, pair.live
    predicted = predict(desired, live)
    if prediction.takeover is not None:
        taken_over = after_takeover(prediction.takeover, live)
        return replace(_decide_takeover(pair, predicted, taken_over, prediction), unverified=True)
    fields = diff_objects(live, predicted)
    return replace(
        pair.base,
        action=Action.UPDATE,
        reason="" if fields else f"not proven to be as desired: {compare(desired, live).reason}",
        fields=fields,
        restarts=restarts_of(live, predicted),
        unverified=True,
    )


def _decide_takeover(
    pair: _Pair, predicted: Manifest, taken_over: Manifest, prediction: Prediction
) -> Change:
    """Combine the field changes of two writes: the takeover and the apply."""
    live = pair.live
    fields = {field.path: field for result in (taken_over, predicted) for field in diff_objects(live, result)}
    return replace(
        _with_takeover(pair.base, prediction.takeover),
        action=Action.UPDATE,
        fields=tuple(fields[path] for path in sorted(fields)),
        restarts=_takeover_restarts(live, predicted, taken_over),
        reclaimed_fields=prediction.reclaimed_fields,
    )


def _takeover_restarts(live: Manifest, predicted: Manifest, taken_over: Manifest) -> int:
    """Return how many peers restart.

    If the apply changes the template, all peers restart. Otherwise, only peers that lose foreign fields in
    the takeover restart.
    """
    is_changed = changes_template(live, predicted)
    if not is_changed and changes_template(live, taken_over) and restart_pending(live):
        return peers_of(live).updated
    return restarts_of(live, predicted if is_changed else taken_over)


def _decide_predicted(pair: _Pair, prediction: Prediction, predicted: Manifest) -> Change:
    """Decide by comparing the live object with `predicted`, the result of the server's dry run."""
    live = pair.live
    update = replace(pair.base, action=Action.UPDATE)
    fields = diff_objects(live, predicted)
    if fields:
        restarts = restarts_of(live, predicted)
        return replace(update, fields=fields, restarts=restarts, reclaimed_fields=prediction.reclaimed_fields)
    if own_entry(live) != own_entry(predicted):
        return replace(update, reason="no value differs, but nimlab takes back the ownership of some fields")
    unchanged = _decide_unchanged(pair)
    kept_fields = ", ".join(field.path for field in diff_desired(live, pair.desired)[:3])
    if unchanged.action is Action.UPDATE or not kept_fields:
        return unchanged
    return replace(pair.base, reason=f"the server keeps its own value of {kept_fields}")


def _unproven(live: Manifest, apply_set: ApplySet) -> OwnershipConflict | None:
    """Return the reason why an object must not be replaced; None if it has all proofs.

    A replacement deletes the object, so it requires the same proofs as a prune.
    """
    missing = missing_proofs(live, apply_set)
    if not missing:
        return None
    return OwnershipConflict(
        f"the object cannot be replaced: {missing[0]}",
        where=key_of(live),
        hint="make sure that nobody needs it, then delete it by hand; the next sync creates it again",
    )


def _decide_replace(pair: _Pair, immutable: tuple[str, ...], refused: NimlabError | None) -> Change:
    """Decide about an object that must be deleted and created again; its foreign fields are lost.

    `immutable` are the changed fields. `refused` is the error that forbids the replacement, if there is one.
    """
    desired, live, policy = pair.desired, pair.live, pair.on_immutable_change
    reason = f"{', '.join(immutable)} cannot be changed in place"
    without_foreign = after_takeover(Takeover(managers=(), removed=pair.base.foreign), live)
    if policy is OnImmutableChange.ORPHAN:
        restarts = _takeover_restarts(live, predict(desired, live), without_foreign)
    else:
        restarts = int((live.get("status") or {}).get("replicas") or 0)
    error = refused or _replacement_error(desired, live, reason, policy)
    return replace(
        pair.base,
        action=Action.REPLACE,
        reason=reason,
        fields=diff_objects(live, predict(desired, without_foreign)),
        foreign=pair.base.foreign if error else (),
        error=error,
        restarts=restarts,
        replace_by=policy,
    )


def _replacement_error(
    desired: Manifest, live: Manifest, reason: str, policy: OnImmutableChange
) -> ImmutableField | None:
    """Return the error if the policy forbids the replacement, or if the new object would not adopt the peers.

    The second case concerns only the policy ORPHAN, which keeps the peers.
    """
    if policy is OnImmutableChange.FAIL:
        return ImmutableField(
            reason,
            where=key_of(desired),
            hint="allow it with `onImmutableChange: recreate` (peers restart) or `orphan` in the experiment",
        )
    if policy is OnImmutableChange.ORPHAN and not adopts_peers(desired, live):
        return ImmutableField(
            f"{reason}, and the new object would not adopt the peers: they lack the labels of its selector",
            where=key_of(desired),
            hint="set `onImmutableChange: recreate` (peers restart), or keep the selector",
        )
    return None
