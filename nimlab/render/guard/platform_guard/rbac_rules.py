"""Rules for RBAC objects of the platform: which permissions they may grant to which accounts.

In: a manifest. Out: violations as text; none for other kinds. Rules and roles must equal the expected values,
and subjects must be among the expected accounts. Two permissions are allowed: reading pods in namespaces with
peers, and reading the metrics of nodes if lab.yaml contains `cadvisor: kubelet`. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from nimlab.files.spec import Lab
from nimlab.objects.applyset import MEMBER
from nimlab.objects.manifest import Manifest, annotations_of
from nimlab.render.guard.platform_guard.component_access import account_of
from nimlab.render.guard.shared_rules import unlisted

_RBAC: Final = "rbac.authorization.k8s.io"
_COMMON_FIELDS: Final = frozenset({"apiVersion", "kind", "metadata"})
_DISCOVERY_ROLE: Final = "lab-discovery"
_POD_RULES: Final = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
_NODE_RULES: Final = [{"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]}]
_POD_READERS: Final = ("prometheus", "log-agent")
_NODE_READERS: Final = ("prometheus",)


def rbac_violations(manifest: Manifest, component: str, lab: Lab) -> Iterator[str]:
    """Yield violations if an object grants a permission or chooses an account that is not allowed."""
    kind = manifest["kind"]
    if kind == "ServiceAccount":
        yield from _account_violations(manifest, component)
    elif kind == "Role":
        yield from unlisted(manifest, _COMMON_FIELDS | {"rules"}, "Role")
        if manifest.get("rules") != _POD_RULES:
            yield "rules must allow only get, list and watch of pods"
    elif kind == "RoleBinding":
        yield from _binding_violations(manifest, "Role", _DISCOVERY_ROLE, _subjects(_POD_READERS, lab))
    elif kind in ("ClusterRole", "ClusterRoleBinding"):
        # The name contains the lab's namespace, so that two labs on one cluster have different objects.
        name = f"lab-prometheus-{lab.namespace}"
        if manifest["metadata"]["name"] != name:
            yield f"metadata.name must be `{name}`"
        if kind == "ClusterRoleBinding":
            yield from _binding_violations(manifest, "ClusterRole", name, _subjects(_NODE_READERS, lab))
            return
        yield from unlisted(manifest, _COMMON_FIELDS | {"rules"}, "ClusterRole")
        if manifest.get("rules") != _NODE_RULES:
            yield "rules must allow only get of `nodes/metrics`"


def _account_violations(manifest: Manifest, component: str) -> Iterator[str]:
    yield from unlisted(manifest, _COMMON_FIELDS | {"automountServiceAccountToken"}, "ServiceAccount")
    # An annotation can grant an account permissions of the cloud provider.
    yield from unlisted(annotations_of(manifest), frozenset({MEMBER}), "metadata.annotations")
    if manifest["metadata"]["name"] != account_of(component):
        yield f"metadata.name must be `{account_of(component)}`"
    if manifest.get("automountServiceAccountToken") is not False:
        yield "automountServiceAccountToken must be false; a pod that needs a token must request it"


def _binding_violations(
    manifest: Manifest, kind: str, name: str, allowed: list[Mapping[str, Any]]
) -> Iterator[str]:
    yield from unlisted(manifest, _COMMON_FIELDS | {"roleRef", "subjects"}, manifest["kind"])
    if manifest.get("roleRef") != {"apiGroup": _RBAC, "kind": kind, "name": name}:
        yield f"roleRef must be the {kind} `{name}`"
    for subject in manifest.get("subjects") or ():
        if subject not in allowed:
            names = " or ".join(f"`{account['name']}`" for account in allowed)
            yield f"subjects: a {manifest['kind']} may grant permissions only to the ServiceAccount {names}"


def _subjects(components: tuple[str, ...], lab: Lab) -> list[Mapping[str, Any]]:
    return [
        {"kind": "ServiceAccount", "name": account_of(component), "namespace": lab.namespace}
        for component in components
    ]
