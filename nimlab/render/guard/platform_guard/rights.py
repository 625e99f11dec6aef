"""Which rights the platform may give, and to whom: held against whole rules, roles and subjects.

In: a manifest. Out: violations in words; none for kinds that give no rights. Two rights there are: to look at
pods where peers are, and with `cadvisor: kubelet` at the nodes' metrics. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from nimlab.files.spec import Lab
from nimlab.objects.applyset import MEMBER
from nimlab.objects.manifest import Manifest, annotations_of
from nimlab.render.guard.experiment_guard import unlisted
from nimlab.render.guard.platform_guard.reach import account_of

_RBAC: Final = "rbac.authorization.k8s.io"
_HEAD: Final = frozenset({"apiVersion", "kind", "metadata"})
_DISCOVERY: Final = "lab-discovery"
_PODS: Final = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
_NODES: Final = [{"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]}]
_LOOK_AT_PODS: Final = ("prometheus", "log-agent")
_LOOK_AT_NODES: Final = ("prometheus",)


def rights_violations(manifest: Manifest, component: str, lab: Lab) -> Iterator[str]:
    """Yield what gives more rights than the two, or gives them to anybody else."""
    kind = manifest["kind"]
    if kind == "ServiceAccount":
        yield from _account_violations(manifest, component)
    elif kind == "Role":
        yield from unlisted(manifest, _HEAD | {"rules"}, "Role")
        if manifest.get("rules") != _PODS:
            yield "rules: a Role of the platform is for looking at pods"
    elif kind == "RoleBinding":
        yield from _binding_violations(manifest, "Role", _DISCOVERY, _subjects(_LOOK_AT_PODS, lab))
    elif kind in ("ClusterRole", "ClusterRoleBinding"):
        # One name a lab: two labs on a cluster never bind, or write over, each other's.
        name = f"lab-prometheus-{lab.namespace}"
        if manifest["metadata"]["name"] != name:
            yield f"its name must be `{name}`"
        if kind == "ClusterRoleBinding":
            yield from _binding_violations(manifest, "ClusterRole", name, _subjects(_LOOK_AT_NODES, lab))
            return
        yield from unlisted(manifest, _HEAD | {"rules"}, "ClusterRole")
        if manifest.get("rules") != _NODES:
            yield "rules: a ClusterRole of the platform is for `nodes/metrics` alone"


def _account_violations(manifest: Manifest, component: str) -> Iterator[str]:
    yield from unlisted(manifest, _HEAD | {"automountServiceAccountToken"}, "ServiceAccount")
    # Clouds give an account their own rights by an annotation.
    yield from unlisted(annotations_of(manifest), frozenset({MEMBER}), "metadata.annotations")
    if manifest["metadata"]["name"] != account_of(component):
        yield f"its name must be `{account_of(component)}`"
    if manifest.get("automountServiceAccountToken") is not False:
        yield "automountServiceAccountToken must be false: the pods that need a token ask for it"


def _binding_violations(
    manifest: Manifest, kind: str, name: str, allowed: list[Mapping[str, Any]]
) -> Iterator[str]:
    yield from unlisted(manifest, _HEAD | {"roleRef", "subjects"}, manifest["kind"])
    if manifest.get("roleRef") != {"apiGroup": _RBAC, "kind": kind, "name": name}:
        yield f"roleRef must be the {kind} `{name}`"
    for subject in manifest.get("subjects") or ():
        if subject not in allowed:
            names = " or ".join(f"`{one['name']}`" for one in allowed)
            yield f"subjects: a {manifest['kind']} of the platform is for the ServiceAccount {names}"


def _subjects(components: tuple[str, ...], lab: Lab) -> list[Mapping[str, Any]]:
    return [
        {"kind": "ServiceAccount", "name": account_of(one), "namespace": lab.namespace} for one in components
    ]
