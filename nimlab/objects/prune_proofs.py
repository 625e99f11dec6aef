"""Proofs that an object must have before it is pruned.

In: a live object and the apply-set. Out: the proofs that it lacks. A malformed mark proves nothing. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from nimlab.objects.applyset import MEMBER, PART_OF, PROTECT, ApplySet, member_reference
from nimlab.objects.kinds_and_order import KINDS
from nimlab.objects.managed_fields import entries_of, is_own_entry
from nimlab.objects.manifest import Manifest, annotations_of, key_of, labels_of

_LABELS: Final = ("f:metadata", "f:labels")


def missing_proofs(live: Manifest, apply_set: ApplySet) -> tuple[str, ...]:
    """Return in words why an object may not be pruned; empty if it has all proofs.

    The label must name the set. The annotation must name the object itself, so a copy of an object has no
    proof. nimlab's Apply entry must own the label. There must be no owner reference, since controllers set
    one on the objects that they create. The kind must be prunable, and no annotation may protect the object.

    A field manager is only a name: any client that applies an object with `--field-manager=nimlab`, the label
    and the annotation makes it a member.
    """
    key = key_of(live)
    metadata = live["metadata"]
    missing = []
    if labels_of(live).get(PART_OF) != apply_set.id:
        missing.append("it does not have the set's label")
    if annotations_of(live).get(MEMBER) != _own_reference(live, apply_set):
        missing.append(f"its annotation {MEMBER} does not name it: it is a copy, or not created by nimlab")
    if not has_applied_label(live, PART_OF):
        missing.append("nimlab has not applied it")
    if metadata.get("ownerReferences"):
        missing.append("it is owned by another object")
    if key.kind not in apply_set.kinds:
        missing.append("its kind is never pruned")
    if str(annotations_of(live).get(PROTECT, "false")).lower() != "false":  # a malformed value protects too
        missing.append(f"it is protected by the annotation {PROTECT}")
    if metadata.get("deletionTimestamp"):
        missing.append("it is already being deleted")
    return tuple(missing)


def _own_reference(live: Manifest, apply_set: ApplySet) -> str | None:
    """Return the member annotation that the object must have; None if its API group is not its kind's."""
    key = key_of(live)
    kind = KINDS.get(key.kind)
    if kind is None or str(live.get("apiVersion", "")).rpartition("/")[0] != kind.group:
        return None
    return member_reference(key, apply_set)


def has_applied_label(live: Manifest, name: str) -> bool:
    """Return True if nimlab's Apply entry owns a label: no other manager has changed its value since."""
    return any(is_own_entry(entry) and _has_label(entry.get("fieldsV1"), name) for entry in entries_of(live))


def _has_label(fields: object, label: str) -> bool:
    for name in (*_LABELS, f"f:{label}"):
        if not isinstance(fields, Mapping) or name not in fields:
            return False
        fields = fields[name]
    return True
