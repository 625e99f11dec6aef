"""What in a namespace is not ours: the question before a namespace goes, with all that is in it.

In: the metadata of everything that a namespace holds, and which of it is ours. Out: the rest. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from nimlab.objects.applyset import ApplySet
from nimlab.objects.manifest import Manifest, ObjectKey, key_of
from nimlab.objects.prune_proofs import missing_proofs

_ALWAYS_THERE: Final = frozenset({("ConfigMap", "kube-root-ca.crt"), ("ServiceAccount", "default")})
_PASSING: Final = frozenset({("Event", ""), ("Event", "events.k8s.io"), ("PodMetrics", "metrics.k8s.io")})


def foreign_objects_among(
    items: Sequence[Manifest], apply_set: ApplySet, ours: Mapping[str, ObjectKey]
) -> tuple[ObjectKey, ...]:
    """Return what is neither ours (by uid) nor made from ours; sorted.

    What has owners is made from ours when all of them are, directly or in turn; events and what every
    namespace has by itself don't count, nor does what the lab's other set keeps there for the peers' sake (a
    right to find them), once it has proven to be that.
    """
    siblings = apply_set.siblings
    known = set(ours) | {
        item["metadata"]["uid"] for item in items if any(not missing_proofs(item, one) for one in siblings)
    }
    while grown := {item["metadata"]["uid"] for item in items if _is_made_from(item, known)} - known:
        known |= grown
    keys = frozenset(ours.values())
    return tuple(
        sorted(
            key_of(item)
            for item in items
            if item["metadata"]["uid"] not in known and not _comes_by_itself(item, keys)
        )
    )


def _is_made_from(item: Manifest, known: set[str]) -> bool:
    owners = item["metadata"].get("ownerReferences") or ()
    return bool(owners) and all(owner.get("uid") in known for owner in owners)


def _comes_by_itself(item: Manifest, ours: frozenset[ObjectKey]) -> bool:
    key, group = key_of(item), str(item["apiVersion"]).rpartition("/")[0]
    if (key.kind, group) in _PASSING:
        return True
    if group:
        return False
    if key.kind == "Endpoints":
        return ObjectKey("Service", key.namespace, key.name) in ours
    return (key.kind, key.name) in _ALWAYS_THERE
