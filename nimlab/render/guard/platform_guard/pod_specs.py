"""What the platform's pods may be: of a workload everything but its containers.

In: a Deployment or DaemonSet, its component, the lab. Out: violations in words. Pure.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from typing import Any, Final

from nimlab.files.spec import Lab
from nimlab.objects.applyset import COMPONENT, EXPERIMENT
from nimlab.objects.manifest import Manifest
from nimlab.render.guard.experiment_guard import duplicates, reserved_marks, unlisted
from nimlab.render.guard.platform_guard.containers import container_violations
from nimlab.render.guard.platform_guard.reach import Reach, account_of, reach_of

_EXPERIMENTS_OWN: Final = frozenset({EXPERIMENT, "prefix"})
_POD: Final = frozenset({
    "affinity", "automountServiceAccountToken", "containers", "dnsPolicy", "enableServiceLinks",
    "imagePullSecrets", "initContainers", "nodeSelector", "securityContext", "serviceAccountName",
    "terminationGracePeriodSeconds", "tolerations", "topologySpreadConstraints", "volumes",
})  # fmt: skip
_CONTEXT: Final = frozenset({"runAsNonRoot", "runAsUser", "seccompProfile"})
_GROUPS: Final = frozenset({"fsGroup", "fsGroupChangePolicy", "runAsGroup"})
_VOLUMES: Final = frozenset({"configMap", "emptyDir", "persistentVolumeClaim"})


def workload_violations(manifest: Manifest, component: str, lab: Lab) -> Iterator[str]:
    """Yield what its pods ask for and the component may not have."""
    own = account_of(component)
    if manifest["metadata"]["name"] != own:
        yield f"its name must be `{own}`"
    if (manifest["spec"].get("selector") or {}) != {"matchLabels": {COMPONENT: component}}:
        yield f"spec.selector must be the label `{COMPONENT}`"
    template = manifest["spec"].get("template") or {}
    yield from _metadata_violations(template.get("metadata") or {}, component)
    reach = reach_of(manifest["kind"], component, lab)
    pod = template.get("spec") or {}
    yield from _pod_violations(pod, own, reach)
    volumes = pod.get("volumes") or ()
    for volume in volumes:
        yield from _volume_violations(volume, own, reach)
    yield from duplicates(volumes, ("name",), "volumes")
    read_only = {v["name"] for v in volumes if "hostPath" in v and _path(v) not in reach.written}
    for field in ("initContainers", "containers"):
        for container in pod.get(field) or ():
            name = f"{field}[{container.get('name')}]"
            yield from container_violations(container, name, pod, reach, read_only)
        yield from duplicates(pod.get(field), ("name",), field)


def _metadata_violations(metadata: Mapping[str, Any], component: str) -> Iterator[str]:
    yield from unlisted(metadata, frozenset({"annotations", "labels"}), "pods: metadata")
    yield from reserved_marks(metadata, {COMPONENT: component})
    for name in sorted(_EXPERIMENTS_OWN & (metadata.get("labels") or {}).keys()):
        yield f"pods: the label `{name}` is that of experiments' peers"
    for name in metadata.get("annotations") or {}:  # some take AppArmor off, or join other networks
        if not name.startswith("checksum/"):
            yield f"pods: the annotation `{name}` is not to be set, only `checksum/…`"


def _pod_violations(pod: Mapping[str, Any], own: str, reach: Reach) -> Iterator[str]:
    yield from unlisted(pod, _POD | reach.host_fields, "pods")
    if "automountServiceAccountToken" not in pod:
        yield "pods: automountServiceAccountToken must be said"
    if pod.get("serviceAccountName", own) != own:
        yield f"pods: serviceAccountName must be `{own}`, or be left out"
    if pod.get("automountServiceAccountToken") is not False and "serviceAccountName" not in pod:
        yield "pods: without a ServiceAccount of their own they get no token"
    # A group of the node's may open its sockets, containerd's among them: agents have none.
    allowed = _CONTEXT | (frozenset() if reach.is_agent else _GROUPS)
    yield from unlisted(pod.get("securityContext") or {}, allowed, "pods: securityContext")


def _volume_violations(volume: Mapping[str, Any], own: str, reach: Reach) -> Iterator[str]:
    odd = set(volume) - _VOLUMES - {"name"} - ({"hostPath"} if reach.is_agent else set())
    if odd:
        yield f"pods: a volume may not be `{min(odd)}`"
    claim = (volume.get("persistentVolumeClaim") or {}).get("claimName", own)
    if claim != own and not claim.startswith(f"{own}-"):
        yield f"pods: a claim must be `{own}`, or that and a suffix after `-`"
    if reach.is_agent and "hostPath" in volume:
        path = _path(volume)
        if path != posixpath.normpath(path):  # containerdFolder in lab.yaml may have one, too
            yield f"pods: `{path}` of the node goes a way round: say `{posixpath.normpath(path)}`"
        elif path not in reach.read | reach.written:
            yield f"pods: `{path}` of the node is not for this component"


def _path(volume: Mapping[str, Any]) -> str:
    path = str((volume.get("hostPath") or {}).get("path", ""))
    return path.rstrip("/") or "/"
