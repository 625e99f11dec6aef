"""Foreign objects in a namespace. nimlab does not prune the namespace, because this would delete them.

In: the metadata of all objects in a namespace, and the keys of the apply-set's members. Out: the foreign
objects. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from nimlab.objects.applyset import ApplySet
from nimlab.objects.manifest import Manifest, ObjectKey, key_of
from nimlab.objects.prune_conditions import missing_proofs

_DEFAULT_OBJECTS: Final = frozenset({("ConfigMap", "kube-root-ca.crt"), ("ServiceAccount", "default")})
_TRANSIENT: Final = frozenset({("Event", ""), ("Event", "events.k8s.io"), ("PodMetrics", "metrics.k8s.io")})


def foreign_objects_among(
    items: Sequence[Manifest], apply_set: ApplySet, ours: Mapping[str, ObjectKey]
) -> tuple[ObjectKey, ...]:
    """Return the foreign objects in `items`: all objects except members and objects that members own; sorted.

    `ours` maps the uid of each member to its key. Members own an object if each of its owners is a member, or
    is itself owned by members. The result contains no events, no objects that exist in every namespace, and
    no proven members of the lab's other apply-set (such as the discovery Role).
    """
    siblings = apply_set.siblings
    known = set(ours) | {
        item["metadata"]["uid"]
        for item in items
        if any(not missing_proofs(item, sibling) for sibling in siblings)
    }
    while dependents := {item["metadata"]["uid"] for item in items if _is_owned_by(item, known)} - known:
        known |= dependents
    keys = frozenset(ours.values())
    return tuple(
        sorted(
            key_of(item)
            for item in items
            if item["metadata"]["uid"] not in known and not _is_created_by_kubernetes(item, keys)
        )
    )


def _is_owned_by(item: Manifest, known: set[str]) -> bool:
    owners = item["metadata"].get("ownerReferences") or ()
    return bool(owners) and all(owner.get("uid") in known for owner in owners)


def _is_created_by_kubernetes(item: Manifest, ours: frozenset[ObjectKey]) -> bool:
    key, group = key_of(item), str(item["apiVersion"]).rpartition("/")[0]
    if (key.kind, group) in _TRANSIENT:
        return True
    if group:
        return False
    if key.kind == "Endpoints":
        return ObjectKey("Service", key.namespace, key.name) in ours
    return (key.kind, key.name) in _DEFAULT_OBJECTS
