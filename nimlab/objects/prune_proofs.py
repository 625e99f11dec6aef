"""The five proofs that an object must have before it is pruned.

In: a live object and the apply-set. Out: the proofs that it lacks. A malformed mark proves nothing. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from nimlab.objects.applyset import FIELD_MANAGER, MEMBER, PART_OF, PROTECT, ApplySet, member_reference
from nimlab.objects.manifest import KINDS, Manifest, annotations_of, key_of, labels_of

_HAND_TOOLS: Final = ("kubectl", "before-first-apply", "k9s", "rancher")


def is_hand_tool(manager: str) -> bool:
    """Return True for the managers of tools that people type with.

    What a person changed by hand is drift, and is put back; what a controller changed is its business, and a
    conflict. kubectl's managers are named after its commands (`kubectl-edit`), its `scale` just `kubectl`.
    """
    return manager.startswith(_HAND_TOOLS)


def missing_proofs(live: Manifest, apply_set: ApplySet) -> tuple[str, ...]:
    """Return why an object may not be pruned, in words; empty if it has all five proofs.

    The label names the set. The annotation names the object itself, so a copy proves nothing. The Apply entry
    of our field manager owns the label. No owner reference means that no controller made it. Its kind may be
    pruned, and no annotation protects it.

    A field manager is only a name: whoever applies an object with `--field-manager=nimlab` and our marks
    makes it a member.
    """
    key = key_of(live)
    metadata = live["metadata"]
    missing = []
    if labels_of(live).get(PART_OF) != apply_set.id:
        missing.append("it doesn't carry the set's label")
    if annotations_of(live).get(MEMBER) != _own_reference(live, apply_set):
        missing.append(f"its annotation {MEMBER} doesn't name it: it is a copy, or not ours")
    if not has_applied_label(live, PART_OF):
        missing.append("nimlab has not applied it")
    if metadata.get("ownerReferences"):
        missing.append("it is owned by another object")
    if key.kind not in apply_set.kinds:
        missing.append("its kind is never pruned")
    if str(annotations_of(live).get(PROTECT, "false")).lower() != "false":  # doubt never deletes
        missing.append(f"it is protected by the annotation {PROTECT}")
    if metadata.get("deletionTimestamp"):
        missing.append("it is being deleted already")
    return tuple(missing)


def _own_reference(live: Manifest, apply_set: ApplySet) -> str | None:
    """What the object would say of itself; None when its group isn't the kind's."""
    key = key_of(live)
    facts = KINDS.get(key.kind)
    if facts is None or str(live.get("apiVersion", "")).rpartition("/")[0] != facts.group:
        return None
    return member_reference(key, apply_set)


def has_applied_label(live: Manifest, name: str) -> bool:
    """Return True when our Apply entry owns a label: then its value is ours, and nobody else's word."""
    entries = live["metadata"].get("managedFields")
    return any(
        is_own_entry(entry) and _has_label(entry.get("fieldsV1"), name)
        for entry in (entries if isinstance(entries, list) else ())
        if isinstance(entry, Mapping)
    )


def is_own_entry(entry: Mapping[str, Any]) -> bool:
    """Return True for the managedFields entry of our applies."""
    return (
        entry.get("manager") == FIELD_MANAGER
        and entry.get("operation") == "Apply"
        and not entry.get("subresource")
    )


def _has_label(fields: object, label: str) -> bool:
    for name in ("f:metadata", "f:labels", f"f:{label}"):
        if not isinstance(fields, Mapping) or name not in fields:
            return False
        fields = fields[name]
    return True
