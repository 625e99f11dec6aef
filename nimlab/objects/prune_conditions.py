"""Proofs that nimlab requires before it prunes an object.

In: a live object and the apply-set. Out: the missing proofs, as text. Pure.
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
    """Return the reasons why an object must not be pruned, as text; empty if no proof is missing.

    The label must contain the ID of the apply-set. The annotation must contain the object's own kind,
    namespace and name, so a copy under another name is not pruned. nimlab's Apply entry must own the label.
    The object must have no owner reference, because controllers set owner references on the objects that they
    create. The kind must be prunable, and no annotation may protect the object. The deletion of the object
    must not have begun. A malformed label or annotation is not a proof.

    The proofs do not detect a client that imitates nimlab: an object becomes a member if a client applies it
    with the label, the annotation and `--field-manager=nimlab`.
    """
    key = key_of(live)
    metadata = live["metadata"]
    missing = []
    if labels_of(live).get(PART_OF) != apply_set.id:
        missing.append("it does not have the label of the apply-set")
    if annotations_of(live).get(MEMBER) != _own_reference(live, apply_set):
        missing.append(f"its annotation {MEMBER} does not name this object, so it may be a copy of another")
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
    """Return the required member annotation; None if nimlab does not use the object's kind and API group."""
    key = key_of(live)
    kind = KINDS.get(key.kind)
    if kind is None or str(live.get("apiVersion", "")).rpartition("/")[0] != kind.group:
        return None
    return member_reference(key, apply_set)


def has_applied_label(live: Manifest, name: str) -> bool:
    """Return True if nimlab's Apply entry owns a label.

    In this case, no other manager has changed the label since nimlab's last apply.
    """
    return any(is_own_entry(entry) and _has_label(entry.get("fieldsV1"), name) for entry in entries_of(live))


def _has_label(fields: object, label: str) -> bool:
    for name in (*_LABELS, f"f:{label}"):
        if not isinstance(fields, Mapping) or name not in fields:
            return False
        fields = fields[name]
    return True
