"""Rules for containers of the platform: a closed list of fields, and no kernel capabilities.

In: a container, its pod, and the access of its component. Out: violations as text. The rules apply to the
security context as Kubernetes merges it: the container's fields override the pod's. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from nimlab.objects.mask_secrets import is_secret_name
from nimlab.render.guard.platform_guard.component_access import ComponentAccess
from nimlab.render.guard.shared_rules import PROBES, duplicates, effective_context, unlisted

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
    container: Mapping[str, Any],
    name: str,
    pod: Mapping[str, Any],
    access: ComponentAccess,
    read_only: Collection[str],
) -> Iterator[str]:
    """Yield the violations of a container; `read_only` names the volumes that must be read-only."""
    # An agent must run the program of its image. Another program could misuse its access to the node's files.
    yield from unlisted(container, _CONTAINER - ({"command"} if access.is_agent else set()), name)
    if container.get("image") not in access.images:
        yield f"{name}: `spec.images` in lab.yaml does not list this image for the component"
    yield from _context_violations(pod, container, name, access)
    for field in PROBES:
        yield from _probe_violations(container.get(field) or {}, f"{name}.{field}")
    yield from _env_violations(container, name, access)
    for port in container.get("ports") or ():
        hosts = {"hostPort"} if port.get("hostPort") in access.host_ports else set()
        yield from unlisted(port, _PORT | hosts, f"{name}.ports")
    yield from duplicates(container.get("ports"), ("containerPort", "protocol"), f"{name}.ports")
    for mount in container.get("volumeMounts") or ():
        yield from _mount_violations(mount, name, read_only)


def _context_violations(
    pod: Mapping[str, Any], container: Mapping[str, Any], name: str, access: ComponentAccess
) -> Iterator[str]:
    yield from unlisted(container.get("securityContext") or {}, _CONTEXT, f"{name}.securityContext")
    context = effective_context(pod, container)
    if context.get("allowPrivilegeEscalation") is not False:
        yield f"{name}: allowPrivilegeEscalation must be false"
    if context.get("capabilities") != {"drop": ["ALL"]}:
        yield f"{name}: capabilities must be `drop: [ALL]`, without additions"
    if context.get("readOnlyRootFilesystem") is not True:
        yield f"{name}: readOnlyRootFilesystem must be true"
    if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield f"{name}: seccompProfile must be `RuntimeDefault`"
    if access.is_root:
        return
    if context.get("runAsNonRoot") is not True:
        yield f"{name}: runAsNonRoot must be true"
    if context.get("runAsUser") == 0:
        yield f"{name}: runAsUser must not be 0 (root)"


def _probe_violations(probe: Mapping[str, Any], name: str) -> Iterator[str]:
    """Yield the violations of a probe: it may only send a request to the container itself."""
    yield from unlisted(probe, _PROBE, name)
    yield from unlisted(probe.get("httpGet") or {}, frozenset({"path", "port", "scheme"}), f"{name}.httpGet")
    yield from unlisted(probe.get("tcpSocket") or {}, frozenset({"port"}), f"{name}.tcpSocket")


def _env_violations(container: Mapping[str, Any], name: str, access: ComponentAccess) -> Iterator[str]:
    for variable in container.get("env") or ():
        variable_name = variable.get("name")
        if not _is_allowed(variable.get("valueFrom"), access):
            yield f"{name}: env `{variable_name}` refers to a Secret or field that its component may not read"
        if "value" in variable and is_secret_name(variable_name):
            yield f"{name}: env `{variable_name}` looks like a secret and must refer to a Secret"
    yield from duplicates(container.get("env"), ("name",), f"{name}.env")


def _mount_violations(mount: Mapping[str, Any], name: str, read_only: Collection[str]) -> Iterator[str]:
    yield from unlisted(mount, _MOUNT, f"{name}.volumeMounts")
    if mount.get("mountPropagation", "None") not in ("None", "HostToContainer"):
        yield f"{name}: mountPropagation must be None or HostToContainer"
    if mount.get("name") in read_only and mount.get("readOnly") is not True:
        yield f"{name}: volume `{mount.get('name')}` is a folder of the node and requires readOnly"


def _is_allowed(source: Any, access: ComponentAccess) -> bool:  # noqa: ANN401 -- any JSON
    if source is None:
        return True
    if not isinstance(source, Mapping) or len(source) != 1:
        return False
    if "fieldRef" in source:
        return (source["fieldRef"] or {}).get("fieldPath") in _OWN_FIELDS
    return (source.get("secretKeyRef") or {}).get("name") in access.secrets
