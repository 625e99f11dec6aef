"""Whose object is this: the apply-set's identity, the marks on its members, and the proofs before a prune.

In: manifests and live objects. Out: marked manifests, and which proofs an object lacks. Compatible with
kubectl's apply-sets (KEP-3659; keys and ID as in kubectl's code). What is malformed proves nothing. Pure.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from nimlab.objects.manifest import KINDS, Manifest, ObjectKey, annotations_of, key_of, labels_of

PART_OF: Final = "applyset.kubernetes.io/part-of"
MEMBER: Final = "nimlab.dev/member"
PROTECT: Final = "nimlab.dev/protect"
EXPERIMENT: Final = "experiment"
COMPONENT: Final = "nimlab.dev/component"
FIELD_MANAGER: Final = "nimlab"

POD_SECURITY: Final[Mapping[str, str]] = {"pod-security.kubernetes.io/enforce": "privileged"}
"""Label of a namespace with shaped peers: every other Pod Security level rejects NET_ADMIN."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _SetTraits:
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
_SETS: Final[Mapping[str, _SetTraits]] = {
    EXPERIMENTS: _SetTraits(
        kinds=("Namespace", *_OF_EXPERIMENTS),
        elsewhere=frozenset(_OF_EXPERIMENTS),
        group_label=EXPERIMENT,
        noun="peer",
    ),
    PLATFORM: _SetTraits(
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
