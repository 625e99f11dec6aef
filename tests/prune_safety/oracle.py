"""Ownership of objects, implemented a second time from KEP-3659 and the design, not from nimlab's code.

The tests of prune safety use this module to compute expected results: the ID of a set, the metadata of a
member, and minimal valid objects. It imports nothing from nimlab, so that it does not share nimlab's
mistakes.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

Object = dict[str, Any]

PART_OF: Final = "applyset.kubernetes.io/part-of"
MEMBER: Final = "nimlab.dev/member"
PROTECT: Final = "nimlab.dev/protect"
MANAGER: Final = "nimlab"


class Facts(NamedTuple):
    """The API group, version and resource name of a kind."""

    group: str
    version: str
    plural: str
    namespaced: bool = True


PRUNABLE: Final = {
    "ConfigMap": Facts("", "v1", "configmaps"),
    "Service": Facts("", "v1", "services"),
    "NetworkPolicy": Facts("networking.k8s.io", "v1", "networkpolicies"),
    "ResourceQuota": Facts("", "v1", "resourcequotas"),
    "LimitRange": Facts("", "v1", "limitranges"),
    "PodDisruptionBudget": Facts("policy", "v1", "poddisruptionbudgets"),
    "StatefulSet": Facts("apps", "v1", "statefulsets"),
    "Namespace": Facts("", "v1", "namespaces", namespaced=False),
}
NEVER: Final = {
    "Secret": Facts("", "v1", "secrets"),
    "PersistentVolumeClaim": Facts("", "v1", "persistentvolumeclaims"),
    "ServiceAccount": Facts("", "v1", "serviceaccounts"),
    "Pod": Facts("", "v1", "pods"),
    "Deployment": Facts("apps", "v1", "deployments"),
    "DaemonSet": Facts("apps", "v1", "daemonsets"),
    "Job": Facts("batch", "v1", "jobs"),
    "Lease": Facts("coordination.k8s.io", "v1", "leases"),
    "Role": Facts("rbac.authorization.k8s.io", "v1", "roles"),
    "RoleBinding": Facts("rbac.authorization.k8s.io", "v1", "rolebindings"),
    "PersistentVolume": Facts("", "v1", "persistentvolumes", namespaced=False),
    "Node": Facts("", "v1", "nodes", namespaced=False),
    "CustomResourceDefinition": Facts(
        "apiextensions.k8s.io", "v1", "customresourcedefinitions", namespaced=False
    ),
}
FACTS: Final = {**PRUNABLE, **NEVER}
INSIDE: Final = tuple(kind for kind, facts in PRUNABLE.items() if facts.namespaced)


def applyset_id(name: str, namespace: str, kind: str = "ConfigMap", group: str = "") -> str:
    """Return the ID of an apply-set: a hash of its parent's name, namespace, kind and group (KEP-3659)."""
    digest = hashlib.sha256(f"{name}.{namespace}.{kind}.{group}".encode()).digest()
    return "applyset-" + base64.b64encode(digest, altchars=b"-_").decode().rstrip("=") + "-v1"


@dataclass(frozen=True, slots=True)
class LabScope:
    """A lab: the namespace of its parent, and the prefix of the names of its experiments' objects."""

    namespace: str
    prefix: str = "nimp2p-exp-"

    @property
    def id(self) -> str:
        """The ID of the lab's apply-set `experiments`."""
        return applyset_id("nimlab-experiments", self.namespace)


def api_version(kind: str) -> str:
    """Return the API version of a kind, such as `apps/v1`."""
    facts = FACTS[kind]
    return f"{facts.group}/{facts.version}" if facts.group else facts.version


def self_name(item: Object, *, set_name: str = "experiments") -> str:
    """Return the annotation that names a member itself, such as `experiments:apps/StatefulSet:lab/a`."""
    group = item["apiVersion"].rpartition("/")[0]
    metadata = item["metadata"]
    return f"{set_name}:{group}/{item['kind']}:{metadata.get('namespace', '')}/{metadata['name']}"


def body_of(kind: str) -> Object:
    """Return a minimal valid body for an object of a kind; no controller acts on such an object."""
    bodies: dict[str, Object] = {
        "ConfigMap": {"data": {"a": "b"}},
        "Service": {"spec": {"clusterIP": "None", "ports": [{"name": "p", "port": 80, "protocol": "TCP"}]}},
        "NetworkPolicy": {
            "spec": {"podSelector": {"matchLabels": {"no": "pod"}}, "policyTypes": ["Ingress"]}
        },
        "ResourceQuota": {"spec": {"hard": {"services.nodeports": "9"}}},
        "LimitRange": {"spec": {"limits": [{"type": "PersistentVolumeClaim", "max": {"storage": "9Ti"}}]}},
        "PodDisruptionBudget": {
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"no": "pod"}}},
        },
        "StatefulSet": {
            "spec": {
                "replicas": 0,
                "serviceName": "s",
                "podManagementPolicy": "Parallel",
                "updateStrategy": {"type": "OnDelete"},
                "selector": {"matchLabels": {"no": "pod"}},
                "template": {
                    "metadata": {"labels": {"no": "pod"}},
                    "spec": {"containers": [{"name": "c", "image": "a/b:1"}]},
                },
            },
        },
    }
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    bodies["PersistentVolumeClaim"] = {"spec": {**claim, "storageClassName": "none"}}
    bodies["Role"] = {"rules": []}
    return bodies.get(kind, {})


def plain(kind: str, namespace: str, name: str) -> Object:
    """Return an object without nimlab's labels and annotations."""
    namespace_field = {"namespace": namespace} if FACTS[kind].namespaced else {}
    metadata = {"name": name, **namespace_field, "labels": {}, "annotations": {}}
    return {"apiVersion": api_version(kind), "kind": kind, "metadata": metadata, **body_of(kind)}


def member(scope: LabScope, kind: str, namespace: str, name: str, experiment: str) -> Object:
    """Return an object as a sync of the lab would send it."""
    item = plain(kind, namespace, name)
    item["metadata"]["labels"] = {
        PART_OF: scope.id,
        "app.kubernetes.io/managed-by": "nimlab",
        "experiment": experiment,
        "prefix": scope.prefix + experiment,
    }
    item["metadata"]["annotations"] = {MEMBER: self_name(item)}
    return item
