"""Apply-sets: the identity of a set of objects, and the label and annotation that mark its members.

In: manifests and live objects. Out: manifests marked as members, and facts about a set, such as its ID.
The sets are compatible with kubectl's apply-sets (KEP-3659): the label keys and the format of the ID are the
ones in kubectl's code. Pure.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from nimlab.objects.kinds_and_order import KINDS
from nimlab.objects.manifest import Manifest, ObjectKey, annotations_of, key_of, labels_of

PART_OF: Final = "applyset.kubernetes.io/part-of"
MEMBER: Final = "nimlab.dev/member"
PROTECT: Final = "nimlab.dev/protect"
EXPERIMENT: Final = "experiment"
COMPONENT: Final = "nimlab.dev/component"
FIELD_MANAGER: Final = "nimlab"

POD_SECURITY: Final[Mapping[str, str]] = {"pod-security.kubernetes.io/enforce": "privileged"}
"""Label of a namespace whose Pod Security level is `privileged`.

The shaper, which limits the network of a peer, needs the capability NET_ADMIN. All other Pod Security levels
reject pods with this capability.
"""

EXPERIMENTS: Final = "experiments"
PLATFORM: Final = "platform"

EXPERIMENT_KINDS: Final = (
    "NetworkPolicy",
    "ResourceQuota",
    "LimitRange",
    "ConfigMap",
    "Service",
    "PodDisruptionBudget",
    "StatefulSet",
)
"""The kinds that templates of experiments may render.

A sync of experiments can prune objects of these kinds, and Namespaces.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _SetTraits:
    """Properties of an apply-set that depend only on its name.

    `kinds` are the kinds that members can have. `kinds_elsewhere` are the kinds that members outside the
    lab's namespace can have. `group_label` is the key of the label that names the experiment or component of
    a member. `noun` is the word for the set's pods in messages.
    """

    kinds: tuple[str, ...]
    kinds_elsewhere: frozenset[str]
    group_label: str
    noun: str


_SETS: Final[Mapping[str, _SetTraits]] = {
    EXPERIMENTS: _SetTraits(
        kinds=("Namespace", *EXPERIMENT_KINDS),
        kinds_elsewhere=frozenset(EXPERIMENT_KINDS),
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
        kinds_elsewhere=frozenset({"Role", "RoleBinding"}),
        group_label=COMPONENT,
        noun="pod",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplySet:
    """A set of objects that are synced together; its parent is a ConfigMap in the lab's namespace.

    `name` is `experiments` or `platform`. `namespace` is the lab's namespace.
    """

    name: str
    namespace: str

    @property
    def parent_key(self) -> ObjectKey:
        """The key of the set's parent: the ConfigMap that records the scope and the last synced commit."""
        return ObjectKey("ConfigMap", self.namespace, f"nimlab-{self.name}")

    @property
    def lease_key(self) -> ObjectKey:
        """The key of the Lease that allows only one sync to write at a time."""
        return ObjectKey("Lease", self.namespace, f"nimlab-{self.name}")

    @property
    def id(self) -> str:
        """The set's ID, a hash of the parent's key, so that two sets never have the same ID."""
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
        """The kinds that members outside the lab's namespace can have."""
        return _SETS[self.name].kinds_elsewhere

    @property
    def group_label(self) -> str:
        """The key of the label that names the member's experiment, or its component of the platform."""
        return _SETS[self.name].group_label

    @property
    def noun(self) -> str:
        """The word for the set's pods in messages: peer or pod."""
        return _SETS[self.name].noun

    def group_of(self, live: Manifest) -> str:
        """Return the name of the object's experiment or component; empty if the label is missing."""
        return labels_of(live).get(self.group_label, "")


def apply_set_id(name: str, namespace: str, kind: str, group: str) -> str:
    """Return the ID of the apply-set whose parent has this name, namespace, kind and API group (KEP-3659)."""
    digest = hashlib.sha256(f"{name}.{namespace}.{kind}.{group}".encode()).digest()
    return f"applyset-{base64.urlsafe_b64encode(digest).decode().rstrip('=')}-v1"


def member_reference(key: ObjectKey, apply_set: ApplySet) -> str:
    """Return the member annotation, such as `experiments:apps/StatefulSet:dst-lab/nimp2p-exp-purple`."""
    group = KINDS[key.kind].group if key.kind in KINDS else "?"  # the guard rejects unknown kinds
    return f"{apply_set.name}:{group}/{key.kind}:{key.namespace}/{key.name}"


def stamp(manifest: Manifest, apply_set: ApplySet) -> Manifest:
    """Return a copy of the manifest with the label and the annotation that mark a member of the set."""
    metadata = dict(manifest["metadata"])
    metadata["labels"] = dict(sorted({**labels_of(manifest), PART_OF: apply_set.id}.items()))
    reference = member_reference(key_of(manifest), apply_set)
    metadata["annotations"] = dict(sorted({**annotations_of(manifest), MEMBER: reference}.items()))
    return {**manifest, "metadata": dict(sorted(metadata.items()))}
