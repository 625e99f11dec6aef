"""The kinds of objects that nimlab reads or writes, and the stage of each kind.

nimlab applies objects in ascending order of their stages, and deletes objects in descending order. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """The names of a kind in the REST API, and the stage at which its objects are applied.

    Stage 0 contains namespaces; stage 1 policies, quotas and access rights; stage 2 configuration; stage 3
    Services; stage 4 workloads. Objects are applied in this order, and deleted in the reverse order.
    """

    name: str
    group: str
    version: str
    plural: str
    namespaced: bool
    stage: int

    @property
    def api_version(self) -> str:
        """The `apiVersion` of manifests, such as `v1` or `apps/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def group_kind(self) -> str:
        """The kind and its API group, as kubectl's apply-sets write them: `StatefulSet.apps` or `Service`."""
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
"""All kinds that nimlab reads or writes. Each key is the name of a kind, and refers to one API group only."""


WORKLOADS: Final = frozenset({"StatefulSet", "Deployment", "DaemonSet"})
"""The kinds whose pods a sync waits for."""
