"""What a manifest of the platform may be: more than an experiment's, and each of it by name.

In: stamped manifests. Out: nothing, or a GuardError that names every violation. What reaches into a node (its
files, network or processes) is for the named agents alone; images are those of lab.yaml. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from nimlab.guard import duplicates, membership_violations, raise_if_any, reserved_marks
from nimlab.manifest import KINDS, Manifest, ObjectKey, key_of, labels_of
from nimlab.owned import COMPONENT, EXPERIMENT, ApplySet
from nimlab.spec import GRAFANA_SECRET, Images, Lab

_EXPERIMENTS_OWN: Final = frozenset({EXPERIMENT, "prefix"})
_NODE_AGENTS: Final = frozenset({"node-exporter", "cadvisor", "log-agent"})
_ROOTS: Final = frozenset({"cadvisor", "log-agent"})
_READ: Final = frozenset({"get", "list", "watch"})
_DISCOVERY: Final = frozenset({"Role", "RoleBinding"})
_CLUSTER_RULE: Final = [{"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]}]
_VOLUMES: Final = frozenset({"name", "configMap", "emptyDir", "persistentVolumeClaim"})
_OWN_FIELDS: Final = frozenset({"metadata.name", "status.podIP", "spec.nodeName"})


def check_platform(
    manifests: Sequence[Manifest], lab: Lab, namespaces: Collection[str], apply_set: ApplySet
) -> None:
    """Raise GuardError if any manifest is more than the platform may be; `namespaces` have peers."""
    found: list[tuple[ObjectKey, str]] = []
    seen: set[ObjectKey] = set()
    for manifest in manifests:
        key = key_of(manifest)
        if key in seen:
            found.append((key, "two templates make it"))
        seen.add(key)
        found += [(key, what) for what in _violations(manifest, lab, namespaces, apply_set)]
    raise_if_any(found, "a template in templates/platform asks for what the platform may not have")


def _violations(
    manifest: Manifest, lab: Lab, namespaces: Collection[str], apply_set: ApplySet
) -> Iterator[str]:
    key = key_of(manifest)
    if key.kind not in apply_set.kinds:
        yield "the platform has no objects of this kind"
        return
    if manifest["apiVersion"] != KINDS[key.kind].api_version:
        yield f"its apiVersion must be `{KINDS[key.kind].api_version}`"
    allowed = set(namespaces) if key.kind in _DISCOVERY else {lab.namespace}
    if KINDS[key.kind].namespaced and key.namespace not in allowed:
        yield f"its namespace must be `{lab.namespace}`, or for a Role one with peers"
    if not key.name.startswith("lab-"):
        yield "its name must begin with `lab-`"
    component = labels_of(manifest).get(COMPONENT, "")
    if not component:
        yield f"it lacks the label `{COMPONENT}`"
    yield from membership_violations(manifest, apply_set, {COMPONENT: component})
    yield from _rule_violations(manifest)
    if key.kind in ("Deployment", "DaemonSet"):
        yield from _workload_violations(manifest, component, lab.images)
    if key.kind == "Service":
        if manifest["spec"].get("type", "ClusterIP") != "ClusterIP":
            yield "a Service of the platform is of type ClusterIP: `kubectl port-forward` reaches it"
        if manifest["spec"].get("selector") != {COMPONENT: component}:
            yield f"spec.selector must be the label `{COMPONENT}`"


def _rule_violations(manifest: Manifest) -> Iterator[str]:
    """Rights: pods may be looked at where peers are, and of the cluster only the nodes' metrics."""
    rules = manifest.get("rules") or []
    if manifest["kind"] == "Role":
        for rule in rules:
            if rule.get("resources") != ["pods"] or not set(rule.get("verbs") or ()) <= _READ:
                yield "rules: a Role of the platform is for looking at pods"
    elif manifest["kind"] == "ClusterRole" and rules != _CLUSTER_RULE:
        yield "rules: a ClusterRole of the platform is for `nodes/metrics` alone"


def _workload_violations(manifest: Manifest, component: str, images: Images) -> Iterator[str]:
    template = manifest["spec"].get("template") or {}
    metadata, pod = template.get("metadata") or {}, template.get("spec") or {}
    yield from reserved_marks(metadata, {COMPONENT: component})
    for name in _EXPERIMENTS_OWN & (metadata.get("labels") or {}).keys():
        yield f"pods: the label `{name}` is that of experiments' peers"
    if (manifest["spec"].get("selector") or {}).get("matchLabels") != {COMPONENT: component}:
        yield f"spec.selector must be the label `{COMPONENT}`"
    is_agent = manifest["kind"] == "DaemonSet" and component in _NODE_AGENTS
    yield from _pod_violations(pod, component, is_agent=is_agent)
    pinned = {str(getattr(images, name)) for name in images.__slots__}
    for field in ("initContainers", "containers"):
        for container in pod.get(field) or ():
            name = f"{field}[{container.get('name')}]"
            yield from _container_violations(container, name, component)
            if container.get("image") not in pinned:
                yield f"{name}: its image is none of `spec.images` in lab.yaml"
            mounts = container.get("volumeMounts") or ()
            yield from _mount_violations(mounts, pod.get("volumes") or (), name)
        yield from duplicates(pod.get(field), ("name",), field)


def _pod_violations(pod: Mapping[str, Any], component: str, *, is_agent: bool) -> Iterator[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field) and not (is_agent and component == "node-exporter" and field != "hostIPC"):
            yield f"pods: {field} is not to be set"
    if pod.get("nodeName") or pod.get("serviceAccount"):
        yield "pods: nodeName and serviceAccount are not to be set"
    if "automountServiceAccountToken" not in pod:
        yield "pods: automountServiceAccountToken must be said"
    for volume in pod.get("volumes") or ():
        odd = set(volume) - _VOLUMES - ({"hostPath"} if is_agent else set())
        if odd:
            yield f"pods: a volume may not be `{min(odd)}`"


def _mount_violations(
    mounts: Sequence[Mapping[str, Any]], volumes: Sequence[Mapping[str, Any]], name: str
) -> Iterator[str]:
    """A node's folder is only read, but for the one that is the platform's own."""
    paths = {volume["name"]: volume["hostPath"]["path"] for volume in volumes if "hostPath" in volume}
    for mount in mounts:
        path = paths.get(mount.get("name"))
        if path and not path.startswith("/var/lib/nimlab/") and mount.get("readOnly") is not True:
            yield f"{name}: `{path}` of the node is only to be read"


def _container_violations(container: Mapping[str, Any], name: str, component: str) -> Iterator[str]:
    context = container.get("securityContext") or {}
    if context.get("privileged"):
        yield f"{name} may not be privileged"
    if context.get("allowPrivilegeEscalation") is not False:
        yield f"{name}: allowPrivilegeEscalation must be false"
    capabilities = context.get("capabilities") or {}
    if capabilities.get("add") or capabilities.get("drop") != ["ALL"]:
        yield f"{name} has to drop all capabilities"
    if context.get("readOnlyRootFilesystem") is not True:
        yield f"{name}: readOnlyRootFilesystem must be true"
    if context.get("runAsUser") == 0 and component not in _ROOTS:
        yield f"{name} may not run as root"
    if container.get("envFrom"):
        yield f"{name}: envFrom is not to be set"
    for variable in container.get("env") or ():
        if not _is_allowed(variable.get("valueFrom")):
            yield f"{name}: env `{variable.get('name')}` comes from what no pod of the platform is given"
    yield from duplicates(container.get("env"), ("name",), f"{name}.env")
    yield from duplicates(container.get("ports"), ("containerPort", "protocol"), f"{name}.ports")


def _is_allowed(source: Any) -> bool:  # noqa: ANN401 -- any JSON
    if source is None:
        return True
    if not isinstance(source, Mapping) or len(source) != 1:
        return False
    if "fieldRef" in source:
        return (source["fieldRef"] or {}).get("fieldPath") in _OWN_FIELDS
    return (source.get("secretKeyRef") or {}).get("name") == GRAFANA_SECRET
