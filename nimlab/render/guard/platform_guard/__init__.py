"""What a manifest of the platform may be: more than an experiment's, and each of it by name.

In: stamped manifests. Out: nothing, or a GuardError that names every violation. Fields are held against
closed lists: whatever Kubernetes adds stays outside until somebody lets it in. What reaches into a node (its
files, network or processes) is for the named agents alone; images are those of lab.yaml. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from nimlab.files.spec import Lab
from nimlab.objects.applyset import COMPONENT, ApplySet
from nimlab.objects.manifest import KINDS, Manifest, key_of, labels_of
from nimlab.render.guard.experiment_guard import membership_violations, refuse_violations, unlisted
from nimlab.render.guard.platform_guard.pod_specs import workload_violations
from nimlab.render.guard.platform_guard.rights import rights_violations

_SERVICE: Final = frozenset({"clusterIP", "ports", "selector", "type"})
_SERVICE_PORT: Final = frozenset({"appProtocol", "name", "port", "protocol", "targetPort"})
_CLAIM: Final = frozenset({"accessModes", "resources", "storageClassName"})


def check_platform(
    manifests: Sequence[Manifest], lab: Lab, namespaces: Collection[str], apply_set: ApplySet
) -> None:
    """Raise GuardError if any manifest is more than the platform may be; `namespaces` have peers."""
    refuse_violations(
        manifests,
        lambda manifest: _violations(manifest, lab, namespaces, apply_set),
        "a template in templates/platform asks for what the platform may not have",
    )


def _violations(
    manifest: Manifest, lab: Lab, namespaces: Collection[str], apply_set: ApplySet
) -> Iterator[str]:
    key = key_of(manifest)
    if key.kind not in apply_set.kinds:
        yield "the platform has no objects of this kind"
        return
    if manifest["apiVersion"] != KINDS[key.kind].api_version:
        yield f"its apiVersion must be `{KINDS[key.kind].api_version}`"
    allowed = set(namespaces) if key.kind in apply_set.kinds_elsewhere else {lab.namespace}
    if KINDS[key.kind].namespaced and key.namespace not in allowed:
        yield f"its namespace must be `{lab.namespace}`, or for a Role one with peers"
    if not key.name.startswith("lab-"):
        yield "its name must begin with `lab-`"
    component = labels_of(manifest).get(COMPONENT, "")
    if not component:
        yield f"it lacks the label `{COMPONENT}`"
    yield from membership_violations(manifest, apply_set, {COMPONENT: component})
    yield from rights_violations(manifest, component, lab)
    spec = manifest.get("spec") or {}
    if key.kind in ("Deployment", "DaemonSet"):
        yield from workload_violations(manifest, component, lab)
    elif key.kind == "Service":
        yield from _service_violations(spec, component)
    elif key.kind == "PersistentVolumeClaim":
        # A named volume, a selector or a source would open somebody else's data.
        yield from unlisted(spec, _CLAIM, "spec")


def _service_violations(spec: Mapping[str, Any], component: str) -> Iterator[str]:
    yield from unlisted(spec, _SERVICE, "spec")
    for port in spec.get("ports") or ():
        yield from unlisted(port, _SERVICE_PORT, "spec.ports")
    if spec.get("type", "ClusterIP") != "ClusterIP":
        yield "a Service of the platform is of type ClusterIP: `kubectl port-forward` reaches it"
    if spec.get("clusterIP", "None") != "None":
        yield "spec.clusterIP is the server's to choose"
    if spec.get("selector") != {COMPONENT: component}:
        yield f"spec.selector must be the label `{COMPONENT}`"
