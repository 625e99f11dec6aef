"""Whose object is this: the apply-set's identity, the marks on its members, and the proofs before a prune.

In: manifests and live objects. Out: marked manifests, and which proofs an object lacks. Compatible with
kubectl's apply-sets (KEP-3659; keys and ID as in kubectl's code). What is malformed proves nothing. Pure.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from nimlab.objects.manifest import KINDS, Manifest, ObjectKey, annotations_of, key_of, labels_of

PART_OF: Final = "applyset.kubernetes.io/part-of"
MEMBER: Final = "nimlab.dev/member"
PROTECT: Final = "nimlab.dev/protect"
EXPERIMENT: Final = "experiment"
COMPONENT: Final = "nimlab.dev/component"
FIELD_MANAGER: Final = "nimlab"

_HAND_TOOLS: Final = ("kubectl", "before-first-apply", "k9s", "rancher")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """What is fixed for a set: its members' kinds, the label of their group, and what pods are called.

    `elsewhere` are the kinds that members outside of the lab's namespace can have.
    """

    kinds: tuple[str, ...]
    elsewhere: frozenset[str]
    group_label: str
    noun: str


EXPERIMENTS: Final = "experiments"
PLATFORM: Final = "platform"

_OF_EXPERIMENTS: Final = (
    "NetworkPolicy",
    "ResourceQuota",
    "LimitRange",
    "ConfigMap",
    "Service",
    "PodDisruptionBudget",
    "StatefulSet",
)
_SETS: Final[Mapping[str, _Facts]] = {
    EXPERIMENTS: _Facts(
        kinds=("Namespace", *_OF_EXPERIMENTS),
        elsewhere=frozenset(_OF_EXPERIMENTS),
        group_label=EXPERIMENT,
        noun="peer",
    ),
    PLATFORM: _Facts(
        kinds=(
            "ServiceAccount",
            "Role",
            "RoleBinding",
            "ClusterRole",
            "ClusterRoleBinding",
            "ConfigMap",
            "PersistentVolumeClaim",
            "Service",
            "Deployment",
            "DaemonSet",
        ),
        elsewhere=frozenset({"Role", "RoleBinding"}),
        group_label=COMPONENT,
        noun="pod",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplySet:
    """A set of objects that is kept as a whole; its parent is a ConfigMap in the lab's namespace."""

    name: str
    namespace: str

    @property
    def parent_key(self) -> ObjectKey:
        """The ConfigMap that records the set's scope and the commit synced last."""
        return ObjectKey("ConfigMap", self.namespace, f"nimlab-{self.name}")

    @property
    def lease_key(self) -> ObjectKey:
        """The Lease that lets one sync at a time write."""
        return ObjectKey("Lease", self.namespace, f"nimlab-{self.name}")

    @property
    def id(self) -> str:
        """The set's ID, bound to its parent's name, namespace, kind and group: none can be borrowed."""
        return apply_set_id(self.parent_key.name, self.namespace, "ConfigMap", "")

    @property
    def siblings(self) -> tuple[ApplySet, ...]:
        """The lab's other sets."""
        return tuple(ApplySet(name=name, namespace=self.namespace) for name in _SETS if name != self.name)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that members can have."""
        return _SETS[self.name].kinds

    @property
    def kinds_elsewhere(self) -> frozenset[str]:
        """Those of them that members in other namespaces than the lab's can have."""
        return _SETS[self.name].elsewhere

    @property
    def group_label(self) -> str:
        """The label that says which experiment a member is of, or which component of the platform."""
        return _SETS[self.name].group_label

    @property
    def noun(self) -> str:
        """What the pods of members are called."""
        return _SETS[self.name].noun

    def group_of(self, live: Manifest) -> str:
        """Return the experiment or component that an object belongs to, empty if it doesn't say."""
        return labels_of(live).get(self.group_label, "")


def apply_set_id(name: str, namespace: str, kind: str, group: str) -> str:
    """Return the ID of the apply-set whose parent this is (KEP-3659)."""
    digest = hashlib.sha256(f"{name}.{namespace}.{kind}.{group}".encode()).digest()
    return f"applyset-{base64.urlsafe_b64encode(digest).decode().rstrip('=')}-v1"


def member_reference(key: ObjectKey, apply_set: ApplySet) -> str:
    """Return what a member says of itself: `experiments:apps/StatefulSet:dst-lab/nimp2p-exp-purple`."""
    group = KINDS[key.kind].group if key.kind in KINDS else "?"  # the guard refuses such kinds
    return f"{apply_set.name}:{group}/{key.kind}:{key.namespace}/{key.name}"


def stamp(manifest: Manifest, apply_set: ApplySet) -> Manifest:
    """Return a copy that is marked as a member; the input stays as it is."""
    metadata = dict(manifest["metadata"])
    metadata["labels"] = dict(sorted({**labels_of(manifest), PART_OF: apply_set.id}.items()))
    reference = member_reference(key_of(manifest), apply_set)
    metadata["annotations"] = dict(sorted({**annotations_of(manifest), MEMBER: reference}.items()))
    return {**manifest, "metadata": dict(sorted(metadata.items()))}


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
