"""Kinds of objects that nimlab reads or writes, each with its stage.

nimlab applies objects in ascending order of their stages, and deletes objects in descending order. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """The names of a kind in the REST API, and the stage at which its objects are applied.

    The stages in apply order: 0 for namespaces; 1 for policies, quotas and access rights; 2 for
    configuration; 3 for Services; 4 for workloads. Objects are deleted in the reverse order.
    """

    name: str
    group: str
    version: str
    plural: str
    namespaced: bool
    stage: int

    @property
    def api_version(self) -> str:
        """The `apiVersion` of manifests: `v1`, or `apps/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def group_kind(self) -> str:
        """The kind with its API group, as in kubectl's apply-sets: `StatefulSet.apps`, `Service` (core)."""
        return f"{self.name}.{self.group}" if self.group else self.name


def _kind(name: str, api_version: str, plural: str, stage: int, *, namespaced: bool = True) -> Kind:
    group, _, version = api_version.rpartition("/")
    return Kind(name=name, group=group, version=version, plural=plural, namespaced=namespaced, stage=stage)


KINDS: Final[Mapping[str, Kind]] = {
    kind.name: kind
    for kind in (
        _kind("Namespace", "v1", "namespaces", 0, namespaced=False),
        _kind("NetworkPolicy", "networking.k8s.io/v1", "networkpolicies", 1),
        _kind("ResourceQuota", "v1", "resourcequotas", 1),
        _kind("LimitRange", "v1", "limitranges", 1),
        _kind("ServiceAccount", "v1", "serviceaccounts", 1),
        _kind("Role", "rbac.authorization.k8s.io/v1", "roles", 1),
        _kind("RoleBinding", "rbac.authorization.k8s.io/v1", "rolebindings", 1),
        _kind("ClusterRole", "rbac.authorization.k8s.io/v1", "clusterroles", 1, namespaced=False),
        _kind(
            "ClusterRoleBinding", "rbac.authorization.k8s.io/v1", "clusterrolebindings", 1, namespaced=False
        ),
        _kind("ConfigMap", "v1", "configmaps", 2),
        _kind("Secret", "v1", "secrets", 2),
        _kind("PersistentVolumeClaim", "v1", "persistentvolumeclaims", 2),
        _kind("Service", "v1", "services", 3),
        _kind("PodDisruptionBudget", "policy/v1", "poddisruptionbudgets", 3),
        _kind("StatefulSet", "apps/v1", "statefulsets", 4),
        _kind("Deployment", "apps/v1", "deployments", 4),
        _kind("DaemonSet", "apps/v1", "daemonsets", 4),
        _kind("Pod", "v1", "pods", 4),
        _kind("Event", "v1", "events", 4),
        _kind("Lease", "coordination.k8s.io/v1", "leases", 2),
    )
}
"""All kinds that nimlab reads or writes, by name. A name stands only for the kind in this API group."""


WORKLOADS: Final = frozenset({"StatefulSet", "Deployment", "DaemonSet"})
"""The kinds whose pods a sync waits for."""
