"""Guard of the platform: a manifest may contain only listed fields, permissions and images.

In: stamped manifests. Out: nothing, or a GuardError that names all violations. All allowed fields are listed,
so the guard rejects a field that a later version of Kubernetes adds. Only three agents (node-exporter,
cadvisor and the log agent) may access the files, the network or the processes of a node. Only the images in
lab.yaml are allowed. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from nimlab.files.spec import Lab
from nimlab.objects.applyset import COMPONENT, ApplySet
from nimlab.objects.kinds_and_order import KINDS
from nimlab.objects.manifest import Manifest, key_of, labels_of
from nimlab.render.guard.platform_guard.pod_specs import workload_violations
from nimlab.render.guard.platform_guard.rbac_rules import rbac_violations
from nimlab.render.guard.shared_rules import (
    api_version_violations,
    membership_violations,
    reject_violations,
    unlisted,
)

_SERVICE: Final = frozenset({"clusterIP", "ports", "selector", "type"})
_SERVICE_PORT: Final = frozenset({"appProtocol", "name", "port", "protocol", "targetPort"})
_CLAIM: Final = frozenset({"accessModes", "resources", "storageClassName"})


def check_platform(
    manifests: Sequence[Manifest], lab: Lab, namespaces: Collection[str], apply_set: ApplySet
) -> None:
    """Raise a GuardError that names all violations; `namespaces` are the namespaces with peers."""
    reject_violations(
        manifests,
        lambda manifest: _violations(manifest, lab, namespaces, apply_set),
        lambda: "change the template in templates/platform",
    )


def _violations(
    manifest: Manifest, lab: Lab, namespaces: Collection[str], apply_set: ApplySet
) -> Iterator[str]:
    key = key_of(manifest)
    if key.kind not in apply_set.kinds:
        yield "the platform cannot contain objects of this kind"
        return
    yield from api_version_violations(manifest)
    allowed = set(namespaces) if key.kind in apply_set.kinds_elsewhere else {lab.namespace}
    if KINDS[key.kind].namespaced and key.namespace not in allowed:
        yield f"metadata.namespace must be `{lab.namespace}`, or for a Role a namespace with peers"
    if not key.name.startswith("lab-"):
        yield "metadata.name must start with `lab-`"
    component = labels_of(manifest).get(COMPONENT, "")
    if not component:
        yield f"the label `{COMPONENT}` is missing"
    yield from membership_violations(manifest, apply_set, {COMPONENT: component})
    yield from rbac_violations(manifest, component, lab)
    spec = manifest.get("spec") or {}
    if key.kind in ("Deployment", "DaemonSet"):
        yield from workload_violations(manifest, component, lab)
    elif key.kind == "Service":
        yield from _service_violations(spec, component)
    elif key.kind == "PersistentVolumeClaim":
        # A volume name, a selector or a data source could give access to the data of others.
        yield from unlisted(spec, _CLAIM, "spec")


def _service_violations(spec: Mapping[str, Any], component: str) -> Iterator[str]:
    yield from unlisted(spec, _SERVICE, "spec")
    for port in spec.get("ports") or ():
        yield from unlisted(port, _SERVICE_PORT, "spec.ports")
    if spec.get("type", "ClusterIP") != "ClusterIP":
        yield "spec.type must be ClusterIP; use `kubectl port-forward` for access from outside"
    if spec.get("clusterIP", "None") != "None":
        yield "spec.clusterIP must be None or missing, because the API server assigns addresses"
    if spec.get("selector") != {COMPONENT: component}:
        yield f"spec.selector must be `{COMPONENT}: {component}`"
