"""One object, desired and live -> what is to be done with it, and why.

In: what is desired, what the snapshot knows of the object, what this run may do. Out: one `Change`. Each
object is judged alone here; what concerns several of them is the plan's. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from nimlab.errors import Conflict, ImmutableField, NimlabError, OwnershipConflict
from nimlab.files.spec import OnImmutableChange
from nimlab.objects.applyset import MEMBER, PART_OF, ApplySet, member_reference, missing_proofs
from nimlab.objects.managed_fields import Foreign, compare, foreign_fields, own_entry
from nimlab.objects.manifest import Manifest, ObjectKey, annotations_of, key_of, labels_of
from nimlab.objects.takeover import Handover, handed_over
from nimlab.plan.deletion_blockers import held_by, is_leaving
from nimlab.plan.diff import FieldChange, diff_desired, diff_objects
from nimlab.plan.kstatus import is_observed, peers_of, restart_pending
from nimlab.plan.predict import forecast
from nimlab.plan.snapshot import Desired, Policy, Prediction, Snapshot
from nimlab.plan.workload import (
    adopts_peers,
    changes_template,
    estimate_restart_s,
    immutable_changes,
    restarts_of,
    restarts_together,
)


class Action(Enum):
    """What is to be done with one object."""

    CREATE = "create"
    UPDATE = "update"
    REPLACE = "replace"
    PRUNE = "prune"
    KEEP = "keep"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One object and what is to be done with it.

    `error` blocks it: it can't be done as things are. `restarts` counts the running peers that are deleted
    and made anew. `unverified` means that fields and restarts were told from here, not by the server.
    `handover` is done before the apply; the fields that it removes are among `fields`, not among `foreign`.
    With `may_lag`, a sync that ended halfway may have left peers of an older template, which nobody has
    counted yet. A KEEP with a reason is worth showing. `former` is the set in a former namespace of the lab
    that an orphan is a member of, None for the current set. With `leaving` the object was ours, no file asks
    for it any more, and it is being deleted: it still exists, so its end is awaited.
    """

    action: Action
    key: ObjectKey
    experiment: str
    desired: Manifest | None
    live: Manifest | None
    reason: str = ""
    fields: tuple[FieldChange, ...] = ()
    foreign: tuple[Foreign, ...] = ()
    error: NimlabError | None = None
    restarts: int = 0
    unverified: bool = False
    replace_by: OnImmutableChange | None = None
    taken: tuple[Conflict, ...] = ()
    handover: Handover | None = None
    may_lag: bool = False
    former: ApplySet | None = None
    leaving: bool = False

    @property
    def is_pending(self) -> bool:
        """True when the cluster isn't as the files say until something was done, or has ended."""
        return self.action is not Action.KEEP or self.leaving

    @property
    def restart_s(self) -> int:
        """About how many seconds the restart of its peers takes; 0 where none restart."""
        if not self.restarts or self.desired is None:
            return 0
        at_once = self.takes_peers or restarts_together(self.desired)
        return estimate_restart_s(self.desired, self.restarts, at_once=at_once)

    @property
    def takes_peers(self) -> bool:
        """True when the peers are deleted with the object that they belong to."""
        return self.action is Action.REPLACE and self.replace_by is not OnImmutableChange.ORPHAN

    @property
    def can_lag(self) -> bool:
        """True when peers of a former template can be there once this is done, counted or not.

        A StatefulSet's status is behind its pods: those that its controller is just making are in no count.
        """
        new_template = any(field.in_template for field in self.fields)
        return (self.restarts > 0 or self.may_lag or new_template) and not self.takes_peers

    @property
    def leaves_peers(self) -> bool:
        """True when peers of the former template are left alone, since the newer one isn't Git's alone."""
        return self.action is Action.KEEP and self.live is not None and _is_overlaid(self.live, self.foreign)


def decide_desired(desired: Manifest, group: Desired, snapshot: Snapshot, policy: Policy) -> Change:
    """Return what is to be done with an object that an experiment wants."""
    key = key_of(desired)
    live = snapshot.live.get(key)
    if live is None or live["metadata"].get("deletionTimestamp"):
        reason = "" if live is None else f"waits until the former object is gone: {held_by(live)}"
        change = _change(Action.CREATE, desired, live, group, reason=reason)
        return replace(change, may_lag=group.on_immutable_change is OnImmutableChange.ORPHAN)
    conflict = _ownership_conflict(key, live, snapshot, policy)
    if conflict is not None:
        return _change(Action.UPDATE, desired, live, group, error=conflict)
    if key not in snapshot.predicted:
        return _decide_unchanged(desired, live, group)
    return _decide_suspect(desired, live, snapshot.predicted[key], group, snapshot.apply_set)


def decide_orphan(live: Manifest, snapshot: Snapshot, policy: Policy) -> Change:
    """Return what is to be done with an object that carries our label and that nothing wants any more."""
    apply_set = snapshot.set_of(live)
    missing = missing_proofs(live, apply_set)
    strangers = snapshot.strangers.get(live["metadata"]["name"], ())
    is_namespace = live["kind"] == "Namespace"
    leaving = is_leaving(live) and not missing_proofs(_as_if_staying(live), apply_set)
    if leaving:
        action, reason = Action.KEEP, held_by(live)
    elif missing:
        action, reason = Action.KEEP, f"left alone: {missing[0]}"
    elif is_namespace and strangers is None:
        action, reason = (
            Action.KEEP,
            "left alone: these credentials, or the server just now, don't show all that is in it",
        )
    elif is_namespace and strangers:
        names = ", ".join(str(key) for key in strangers[:3])
        more = f" and {len(strangers) - 3} more" if len(strangers) > 3 else ""
        action, reason = Action.KEEP, f"left alone: it holds what is not ours: {names}{more}"
    elif not policy.prune:
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


def _as_if_staying(live: Manifest) -> Manifest:
    """The object without its deletion: whose it was is judged by all other proofs."""
    metadata = {name: value for name, value in live["metadata"].items() if name != "deletionTimestamp"}
    return {**live, "metadata": metadata}


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
    handover: Handover | None = None,
) -> Change:
    going = handover.removed if handover else ()
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
        handover=handover,
    )


def _ownership_conflict(
    key: ObjectKey, live: Manifest, snapshot: Snapshot, policy: Policy
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
    if policy.take_ownership and owner in (None, apply_set.id):
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
        return replace(_change(Action.UPDATE, desired, live, group, reason=reason), may_lag=True)
    return _change(Action.KEEP, desired, live, group)


def _is_uncounted(live: Manifest, group: Desired) -> bool:
    """True after a sync that ended halfway: a whole one waits until its new template has been seen.

    Where no peers are to be, those of any template go.
    """
    if not restarts_together(live) or is_observed(live) or not peers_of(live).wanted:
        return False
    can_adopt = group.on_immutable_change is OnImmutableChange.ORPHAN
    return can_adopt or int(live["metadata"]["generation"]) > 1


def _is_overlaid(live: Manifest, foreign: tuple[Foreign, ...]) -> bool:
    """True when peers lag behind a template that others have added to; a restart would carry that in."""
    return live["kind"] == "StatefulSet" and restart_pending(live) and any(f.in_template for f in foreign)


def _decide_suspect(
    desired: Manifest, live: Manifest, prediction: Prediction, group: Desired, apply_set: ApplySet
) -> Change:
    immutable = immutable_changes(desired, live)
    if immutable:
        refused = prediction.error or _unproven(live, apply_set)
        return _decide_replace(desired, live, immutable, refused, group)
    handover = prediction.handover
    if prediction.error is not None:
        fields = diff_desired(live, desired)
        return _change(
            Action.UPDATE, desired, live, group, fields=fields, error=prediction.error, handover=handover
        )
    if prediction.manifest is None:
        return _decide_unverified(desired, live, prediction, group)
    if prediction.handed_over is not None:
        return _decide_handover(desired, live, prediction.manifest, prediction.handed_over, prediction, group)
    return _decide_predicted(desired, live, prediction.manifest, prediction.taken, group)


def _decide_unverified(desired: Manifest, live: Manifest, prediction: Prediction, group: Desired) -> Change:
    """The credentials only allow looking: what an apply would do is told from here.

    What isn't proven unchanged is never told as unchanged, even where no field is seen to differ.
    """
    made = forecast(desired, live)
    if prediction.handover is not None:
        handed = handed_over(prediction.handover, live)
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
        handover=prediction.handover,
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
    additions = Handover(managers=(), removed=foreign_fields(desired, live))
    handed = handed_over(additions, live)
    restarts = _handover_restarts(live, forecast(desired, live), handed)
    error = refused or _refused_replacement(desired, live, reason, how)
    peers = int((live.get("status") or {}).get("replicas") or 0)
    change = _change(
        Action.REPLACE,
        desired,
        live,
        group,
        reason=reason,
        fields=diff_objects(live, forecast(desired, handed)),
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
