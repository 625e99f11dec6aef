"""What a container of the platform may be: a closed list of fields, and no right of the kernel's.

In: a container, its pod, what its component may reach. Out: violations in words. What counts is what
Kubernetes puts together: the pod's security context, overlaid by the container's. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from nimlab.objects.masking import is_secret_name
from nimlab.render.guard.experiment_guard import PROBES, duplicates, effective_context, unlisted
from nimlab.render.guard.platform_guard.reach import Reach

_CONTAINER: Final = frozenset({
    "args", "command", "env", "image", "imagePullPolicy", "livenessProbe", "name", "ports", "readinessProbe",
    "resources", "securityContext", "startupProbe", "terminationMessagePolicy", "volumeMounts", "workingDir",
})  # fmt: skip
_CONTEXT: Final = frozenset({
    "allowPrivilegeEscalation", "capabilities", "readOnlyRootFilesystem", "runAsNonRoot", "runAsUser",
    "seccompProfile",
})  # fmt: skip
_PROBE: Final = frozenset({
    "failureThreshold", "httpGet", "initialDelaySeconds", "periodSeconds", "successThreshold", "tcpSocket",
    "timeoutSeconds",
})  # fmt: skip
_PORT: Final = frozenset({"containerPort", "name", "protocol"})
_MOUNT: Final = frozenset({"mountPath", "mountPropagation", "name", "readOnly", "recursiveReadOnly"})
_OWN_FIELDS: Final = frozenset({"metadata.name", "status.podIP", "spec.nodeName"})


def container_violations(
    container: Mapping[str, Any], name: str, pod: Mapping[str, Any], reach: Reach, read_only: Collection[str]
) -> Iterator[str]:
    """Yield what a container asks for and may not have; `read_only` are the volumes of that kind."""
    # An agent runs its image's own program: with another, root's eyes on a node would be anybody's.
    yield from unlisted(container, _CONTAINER - ({"command"} if reach.is_agent else set()), name)
    if container.get("image") not in reach.images:
        yield f"{name}: its image is none of `spec.images` in lab.yaml that are for it"
    yield from _context_violations(pod, container, name, reach)
    for field in PROBES:
        yield from _probe_violations(container.get(field) or {}, f"{name}.{field}")
    yield from _env_violations(container, name, reach)
    for port in container.get("ports") or ():
        hosts = {"hostPort"} if port.get("hostPort") in reach.host_ports else set()
        yield from unlisted(port, _PORT | hosts, f"{name}.ports")
    yield from duplicates(container.get("ports"), ("containerPort", "protocol"), f"{name}.ports")
    for mount in container.get("volumeMounts") or ():
        yield from _mount_violations(mount, name, read_only)


def _context_violations(
    pod: Mapping[str, Any], container: Mapping[str, Any], name: str, reach: Reach
) -> Iterator[str]:
    yield from unlisted(container.get("securityContext") or {}, _CONTEXT, f"{name}.securityContext")
    context = effective_context(pod, container)
    if context.get("allowPrivilegeEscalation") is not False:
        yield f"{name}: allowPrivilegeEscalation must be false"
    if context.get("capabilities") != {"drop": ["ALL"]}:
        yield f"{name} has to drop all capabilities, and add none"
    if context.get("readOnlyRootFilesystem") is not True:
        yield f"{name}: readOnlyRootFilesystem must be true"
    if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield f"{name}: its seccompProfile must be `RuntimeDefault`"
    if reach.is_root:
        return
    if context.get("runAsNonRoot") is not True:
        yield f"{name}: runAsNonRoot must be true"
    if context.get("runAsUser") == 0:
        yield f"{name} may not run as root"


def _probe_violations(probe: Mapping[str, Any], name: str) -> Iterator[str]:
    """Nothing but the container itself is asked, and nothing is run in it."""
    yield from unlisted(probe, _PROBE, name)
    yield from unlisted(probe.get("httpGet") or {}, frozenset({"path", "port", "scheme"}), f"{name}.httpGet")
    yield from unlisted(probe.get("tcpSocket") or {}, frozenset({"port"}), f"{name}.tcpSocket")


def _env_violations(container: Mapping[str, Any], name: str, reach: Reach) -> Iterator[str]:
    for variable in container.get("env") or ():
        which = variable.get("name")
        if not _is_allowed(variable.get("valueFrom"), reach):
            yield f"{name}: env `{which}` comes from what its component isn't given"
        if "value" in variable and is_secret_name(which):
            yield f"{name}: env `{which}` looks secret: its value must come from a Secret"
    yield from duplicates(container.get("env"), ("name",), f"{name}.env")


def _mount_violations(mount: Mapping[str, Any], name: str, read_only: Collection[str]) -> Iterator[str]:
    yield from unlisted(mount, _MOUNT, f"{name}.volumeMounts")
    if mount.get("mountPropagation", "None") not in ("None", "HostToContainer"):
        yield f"{name}: what it mounts may not spread to the node"
    if mount.get("name") in read_only and mount.get("readOnly") is not True:
        yield f"{name}: volume `{mount.get('name')}` is a folder of the node, and only to be read"


def _is_allowed(source: Any, reach: Reach) -> bool:  # noqa: ANN401 -- any JSON
    if source is None:
        return True
    if not isinstance(source, Mapping) or len(source) != 1:
        return False
    if "fieldRef" in source:
        return (source["fieldRef"] or {}).get("fieldPath") in _OWN_FIELDS
    return (source.get("secretKeyRef") or {}).get("name") in reach.secrets
