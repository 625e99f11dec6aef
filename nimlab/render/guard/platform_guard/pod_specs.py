"""Rules for workloads of the platform and their pods, except for the containers.

In: a Deployment or DaemonSet, its component, the lab. Out: violations as text. Pure.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from typing import Any, Final

from nimlab.files.spec import Lab
from nimlab.objects.applyset import COMPONENT, EXPERIMENT
from nimlab.objects.manifest import Manifest
from nimlab.render.guard.platform_guard.component_access import ComponentAccess, access_of, account_of
from nimlab.render.guard.platform_guard.containers import container_violations
from nimlab.render.guard.shared_rules import (
    containers_of,
    duplicates,
    reserved_metadata_violations,
    unlisted,
)

_LABELS_OF_PEERS: Final = frozenset({EXPERIMENT, "prefix"})
_POD: Final = frozenset({
    "affinity", "automountServiceAccountToken", "containers", "dnsPolicy", "enableServiceLinks",
    "imagePullSecrets", "initContainers", "nodeSelector", "securityContext", "serviceAccountName",
    "terminationGracePeriodSeconds", "tolerations", "topologySpreadConstraints", "volumes",
})  # fmt: skip
_CONTEXT: Final = frozenset({"runAsNonRoot", "runAsUser", "seccompProfile"})
_GROUP_FIELDS: Final = frozenset({"fsGroup", "fsGroupChangePolicy", "runAsGroup"})
_VOLUMES: Final = frozenset({"configMap", "emptyDir", "persistentVolumeClaim"})


def workload_violations(manifest: Manifest, component: str, lab: Lab) -> Iterator[str]:
    """Yield the violations of a workload and its pods."""
    own = account_of(component)
    if manifest["metadata"]["name"] != own:
        yield f"metadata.name must be `{own}`"
    if (manifest["spec"].get("selector") or {}) != {"matchLabels": {COMPONENT: component}}:
        yield f"spec.selector must be `{COMPONENT}: {component}`"
    template = manifest["spec"].get("template") or {}
    yield from _metadata_violations(template.get("metadata") or {}, component)
    access = access_of(manifest["kind"], component, lab)
    pod = template.get("spec") or {}
    yield from _pod_violations(pod, own, access)
    volumes = pod.get("volumes") or ()
    for volume in volumes:
        yield from _volume_violations(volume, own, access)
    yield from duplicates(volumes, ("name",), "volumes")
    read_only = {v["name"] for v in volumes if "hostPath" in v and _path(v) not in access.written}
    for _, name, container in containers_of(pod):
        yield from container_violations(container, name, pod, access, read_only)
    for field in ("initContainers", "containers"):
        yield from duplicates(pod.get(field), ("name",), field)


def _metadata_violations(metadata: Mapping[str, Any], component: str) -> Iterator[str]:
    yield from unlisted(metadata, frozenset({"annotations", "labels"}), "pods: metadata")
    yield from reserved_metadata_violations(metadata, {COMPONENT: component})
    for name in sorted(_LABELS_OF_PEERS & (metadata.get("labels") or {}).keys()):
        yield f"pods: the label `{name}` is reserved for peers of experiments"
    # Other annotations could disable AppArmor or attach other networks.
    for name in metadata.get("annotations") or {}:
        if not name.startswith("checksum/"):
            yield f"pods: the annotation `{name}` is not allowed; only `checksum/…` is"


def _pod_violations(pod: Mapping[str, Any], own: str, access: ComponentAccess) -> Iterator[str]:
    yield from unlisted(pod, _POD | access.host_fields, "pods")
    if "automountServiceAccountToken" not in pod:
        yield "pods: automountServiceAccountToken must be set"
    if pod.get("serviceAccountName", own) != own:
        yield f"pods: serviceAccountName must be `{own}` or missing"
    if pod.get("automountServiceAccountToken") is not False and "serviceAccountName" not in pod:
        yield "pods: automountServiceAccountToken must be false without serviceAccountName"
    # Agents must not set a group, because some groups may open sockets of the node, such as containerd's.
    allowed = _CONTEXT | (frozenset() if access.is_agent else _GROUP_FIELDS)
    yield from unlisted(pod.get("securityContext") or {}, allowed, "pods: securityContext")


def _volume_violations(volume: Mapping[str, Any], own: str, access: ComponentAccess) -> Iterator[str]:
    forbidden = set(volume) - _VOLUMES - {"name"} - ({"hostPath"} if access.is_agent else set())
    if forbidden:
        yield f"pods: a volume of type `{min(forbidden)}` is not allowed"
    claim = (volume.get("persistentVolumeClaim") or {}).get("claimName", own)
    if claim != own and not claim.startswith(f"{own}-"):
        yield f"pods: claimName must be `{own}` or start with `{own}-`"
    if access.is_agent and "hostPath" in volume:
        path = _path(volume)
        if path != posixpath.normpath(path):  # the path can be `containerdFolder` of lab.yaml
            yield f"pods: the path `{path}` is not normalized; write `{posixpath.normpath(path)}`"
        elif path not in access.read | access.written:
            yield f"pods: this component may not mount the node's path `{path}`"


def _path(volume: Mapping[str, Any]) -> str:
    path = str((volume.get("hostPath") or {}).get("path", ""))
    return path.rstrip("/") or "/"
