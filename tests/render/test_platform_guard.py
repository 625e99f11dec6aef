"""The guard of the platform accepts the shipped templates in every variant, and rejects each violation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from typing import Any, TypeAlias

import pytest

from nimlab.errors import GuardError
from nimlab.files.load import load_lab
from nimlab.files.spec import GRAFANA_SECRET, LabFiles
from nimlab.objects.applyset import COMPONENT, PART_OF, stamp
from nimlab.objects.canonical_form import canonical
from nimlab.objects.manifest import Manifest
from nimlab.render.guard.platform_guard import check_platform
from tests.render.test_render_platform import FILES, NAMESPACES, SET, of, rendered
from tests.support.paths import SAMPLE_LAB

Change: TypeAlias = Callable[[list[Manifest]], object]
Path: TypeAlias = tuple[str | int, ...]


def with_settings(files: LabFiles = FILES, **settings: Any) -> LabFiles:
    """Return the lab with other settings of its platform."""
    platform = replace(files.lab.platform, **settings)
    return replace(files, lab=replace(files.lab, platform=platform))


ALL = with_settings(cadvisor="kubelet", metrics_storage="1Gi", logs_storage="1Gi")
CADVISOR = ("DaemonSet", "lab-cadvisor")
GOOD = (
    *rendered(ALL),
    next(m for m in rendered(FILES) if (m["kind"], m["metadata"]["name"]) == CADVISOR),
)
"""All objects that the shipped templates can render."""

LOKI = ("Deployment", "lab-loki")
GRAFANA = ("Deployment", "lab-grafana")
NODES = ("DaemonSet", "lab-node-exporter")
LOGS = ("DaemonSet", "lab-log-agent")
SERVICE = ("Service", "lab-loki")
ACCOUNT = ("ServiceAccount", "lab-prometheus")
ROLE, BINDING = ("Role", "lab-discovery"), ("RoleBinding", "lab-discovery")
ON_NODES = "lab-prometheus-dst-lab"
CLUSTER_ROLE, CLUSTER_BINDING = ("ClusterRole", ON_NODES), ("ClusterRoleBinding", ON_NODES)
RBAC = "rbac.authorization.k8s.io"
TEMPLATE: Path = ("spec", "template", "metadata")
POD: Path = ("spec", "template", "spec")
FIRST: Path = (*POD, "containers", 0)
CONTEXT: Path = (*FIRST, "securityContext")
PODS_CONTEXT: Path = (*POD, "securityContext")


def part(manifests: list[Manifest], which: tuple[str, str], path: Path) -> Any:
    """Return the value at this path in an object."""
    value = of(manifests, *which)
    for step in path:
        value = value[step]
    return value


def put(which: tuple[str, str], path: Path, fields: dict[str, Any]) -> Change:
    """Return a function that sets fields of a map."""
    return lambda manifests: part(manifests, which, path).update(fields)


def add(which: tuple[str, str], path: Path, item: dict[str, Any]) -> Change:
    """Return a function that appends an item to a list."""
    return lambda manifests: part(manifests, which, path).append(copy.deepcopy(item))


def drop(which: tuple[str, str], path: Path, name: str) -> Change:
    """Return a function that removes a field."""
    return lambda manifests: part(manifests, which, path).pop(name)


def both(*changes: Change) -> Change:
    """Return a function that makes several changes."""
    return lambda manifests: [change(manifests) for change in changes]


def mounted(which: tuple[str, str], path: str, **mount: object) -> Change:
    """Return a function that mounts a folder of the node."""
    return both(
        add(which, (*POD, "volumes"), {"name": "x", "hostPath": {"path": path}}),
        add(which, (*FIRST, "volumeMounts"), {"name": "x", "mountPath": "/x", **mount}),
    )


def as_another(which: tuple[str, str], kind: str, component: str) -> Change:
    """Return a function that changes the kind and the component of a workload."""

    def change(manifests: list[Manifest]) -> None:
        other = copy.deepcopy(of(manifests, *which))
        manifests.remove(of(manifests, *which))
        for place in (other["metadata"]["labels"], other["spec"]["template"]["metadata"]["labels"]):
            place[COMPONENT] = component
        other["spec"]["selector"] = {"matchLabels": {COMPONENT: component}}
        other["metadata"]["name"] = f"lab-{component}"
        for container in other["spec"]["template"]["spec"]["containers"]:
            container["image"] = str(FILES.lab.images.promtail)
        manifests.append(stamp({**other, "kind": kind}, SET))

    return change


REJECTED: dict[str, tuple[Change, str]] = {
    # rules for objects
    "kind": (lambda ms: ms[0].update(kind="Secret", apiVersion="v1"), "of this kind"),
    "api": (put(LOKI, (), {"apiVersion": "apps/v1beta1"}), "apiVersion must be"),
    "namespace": (put(("ConfigMap", "lab-loki-config"), ("metadata",), {"namespace": "x"}), "namespace"),
    "role-elsewhere": (put(ROLE, ("metadata",), {"namespace": "x"}), "namespace"),
    "name": (put(SERVICE, ("metadata",), {"name": "loki"}), "start with `lab-`"),
    "workload-name": (put(LOKI, ("metadata",), {"name": "lab-other"}), "must be `lab-loki`"),
    "component": (drop(SERVICE, ("metadata", "labels"), COMPONENT), f"the label `{COMPONENT}` is missing"),
    "member": (put(SERVICE, ("metadata", "labels"), {PART_OF: "other"}), PART_OF),
    "duplicate": (lambda ms: ms.append(copy.deepcopy(ms[0])), "two templates render this object"),
    "service-type": (put(SERVICE, ("spec",), {"type": "NodePort"}), "spec.type must be ClusterIP"),
    "service-external": (
        put(SERVICE, ("spec",), {"externalIPs": ["192.0.2.4"]}),
        "externalIPs is not allowed",
    ),
    "service-balancer": (
        put(SERVICE, ("spec",), {"loadBalancerIP": "192.0.2.4"}),
        "loadBalancerIP is not allowed",
    ),
    "service-address": (put(SERVICE, ("spec",), {"clusterIP": "10.43.0.10"}), "spec.clusterIP must be None"),
    "service-port": (put(SERVICE, ("spec", "ports", 0), {"nodePort": 30000}), "nodePort is not allowed"),
    "service-selector": (put(SERVICE, ("spec",), {"selector": {"experiment": "purple"}}), "selector"),
    "claim": (
        put(("PersistentVolumeClaim", "lab-loki"), ("spec",), {"volumeName": "pv"}),
        "volumeName is not allowed",
    ),
    # rules for permissions
    "role": (put(ROLE, ("rules", 0), {"resources": ["secrets"]}), "only get, list and watch of pods"),
    "role-group": (put(ROLE, ("rules", 0), {"apiGroups": ["*"]}), "only get, list and watch of pods"),
    "role-verb": (put(ROLE, ("rules", 0), {"verbs": ["delete"]}), "only get, list and watch of pods"),
    "role-field": (put(ROLE, (), {"aggregationRule": {"a": 1}}), "aggregationRule is not allowed"),
    "cluster-role": (
        put(CLUSTER_ROLE, ("rules", 0), {"resources": ["secrets"]}),
        "only get of `nodes/metrics`",
    ),
    "cluster-role-aggregated": (
        put(CLUSTER_ROLE, (), {"aggregationRule": {"clusterRoleSelectors": [{}]}}),
        "aggregationRule is not allowed",
    ),
    "cluster-role-name": (put(CLUSTER_ROLE, ("metadata",), {"name": "lab-x"}), f"must be `{ON_NODES}`"),
    "binding-admin": (
        put(BINDING, ("roleRef",), {"kind": "ClusterRole", "name": "cluster-admin"}),
        "roleRef must be the Role `lab-discovery`",
    ),
    "binding-other": (put(BINDING, ("roleRef",), {"name": "other"}), "roleRef must be"),
    "binding-everybody": (
        put(BINDING, (), {"subjects": [{"kind": "Group", "apiGroup": RBAC, "name": "system:authenticated"}]}),
        "subjects: a RoleBinding",
    ),
    "binding-elsewhere": (put(BINDING, ("subjects", 0), {"namespace": "x"}), "subjects: a RoleBinding"),
    "binding-field": (put(BINDING, (), {"x": 1}), "RoleBinding: x is not allowed"),
    "cluster-binding-admin": (
        put(CLUSTER_BINDING, ("roleRef",), {"name": "cluster-admin"}),
        "roleRef must be",
    ),
    "cluster-binding-logs": (
        put(CLUSTER_BINDING, ("subjects", 0), {"name": "lab-log-agent"}),
        "subjects: a ClusterRoleBinding",
    ),
    "account-secrets": (put(ACCOUNT, (), {"secrets": [{"name": "x"}]}), "secrets is not allowed"),
    "account-cloud": (
        put(ACCOUNT, ("metadata", "annotations"), {"eks.amazonaws.com/role-arn": "x"}),
        "role-arn is not allowed",
    ),
    "account-name": (put(ACCOUNT, ("metadata",), {"name": "lab-other"}), "must be `lab-prometheus`"),
    "account-token": (put(ACCOUNT, (), {"automountServiceAccountToken": True}), "must be false"),
    # rules for pods
    "selector": (put(LOKI, ("spec", "selector", "matchLabels"), {"a": "b"}), "spec.selector"),
    "pods-finalizer": (put(LOKI, TEMPLATE, {"finalizers": ["a/b"]}), "finalizers is not allowed"),
    "pods-label": (put(LOKI, (*TEMPLATE, "labels"), {"experiment": "purple"}), "reserved for peers"),
    "pods-mark": (put(LOKI, (*TEMPLATE, "labels"), {PART_OF: "x"}), "is reserved"),
    "pods-annotation": (
        put(LOKI, (*TEMPLATE, "annotations"), {"container.apparmor.security.beta.kubernetes.io/loki": "x"}),
        "annotation `container.apparmor",
    ),
    "host-network": (put(LOKI, POD, {"hostNetwork": True}), "hostNetwork is not allowed"),
    "host-network-of-agent": (put(LOGS, POD, {"hostNetwork": True}), "hostNetwork is not allowed"),
    "host-pid": (put(LOGS, POD, {"hostPID": True}), "hostPID is not allowed"),
    "host-ipc": (put(NODES, POD, {"hostIPC": True}), "hostIPC is not allowed"),
    "node-name": (put(LOKI, POD, {"nodeName": "node-1"}), "nodeName is not allowed"),
    "priority": (
        put(LOKI, POD, {"priorityClassName": "system-node-critical"}),
        "priorityClassName is not allowed",
    ),
    "ephemeral": (
        put(LOKI, POD, {"ephemeralContainers": [{"name": "x"}]}),
        "ephemeralContainers is not allowed",
    ),
    "token": (drop(LOKI, POD, "automountServiceAccountToken"), "automountServiceAccountToken must be set"),
    "token-of-default": (
        put(LOKI, POD, {"automountServiceAccountToken": True}),
        "must be false without serviceAccountName",
    ),
    "account": (put(LOKI, POD, {"serviceAccountName": "nimlab-sync-platform"}), "must be `lab-loki`"),
    "account-of-another": (put(LOKI, POD, {"serviceAccountName": "lab-prometheus"}), "must be `lab-loki`"),
    "group-of-agent": (put(NODES, PODS_CONTEXT, {"runAsGroup": 0}), "runAsGroup is not allowed"),
    "sysctl": (put(LOKI, PODS_CONTEXT, {"sysctls": [{"name": "a", "value": "b"}]}), "sysctls is not allowed"),
    "volume-projected": (
        add(LOKI, (*POD, "volumes"), {"name": "x", "projected": {"sources": [{"secret": {"name": "x"}}]}}),
        "a volume of type `projected` is not allowed",
    ),
    "volume-secret": (
        add(LOKI, (*POD, "volumes"), {"name": "x", "secret": {"secretName": "x"}}),
        "a volume of type `secret` is not allowed",
    ),
    "volume-claim": (
        add(LOKI, (*POD, "volumes"), {"name": "x", "persistentVolumeClaim": {"claimName": "lab-prometheus"}}),
        "claimName must be `lab-loki`",
    ),
    "volume-twice": (
        add(LOKI, (*POD, "volumes"), {"name": "tmp", "emptyDir": {}}),
        "volumes: duplicate entry tmp",
    ),
    # rules for folders of the node
    "host-path": (
        mounted(LOKI, "/var/log/pods", readOnly=True),
        "a volume of type `hostPath` is not allowed",
    ),
    "host-path-of-agent": (mounted(LOGS, "/etc", readOnly=True), "may not mount the node's path `/etc`"),
    "host-path-inside": (mounted(LOGS, "/var/log/pods/x", readOnly=True), "this component may not mount"),
    "host-path-not-normalized": (mounted(LOGS, "/var/lib/nimlab/../../etc"), "write `/var/etc`"),
    "host-path-not-an-agent": (
        as_another(LOGS, "DaemonSet", "other"),
        "a volume of type `hostPath` is not allowed",
    ),
    "host-path-no-daemon": (
        as_another(LOGS, "Deployment", "log-agent"),
        "a volume of type `hostPath` is not allowed",
    ),
    "host-path-written": (drop(NODES, (*FIRST, "volumeMounts", 0), "readOnly"), "requires readOnly"),
    "host-path-spread": (
        put(NODES, (*FIRST, "volumeMounts", 0), {"mountPropagation": "Bidirectional"}),
        "mountPropagation must be",
    ),
    "mount-part": (put(LOGS, (*FIRST, "volumeMounts", 0), {"subPath": "x"}), "subPath is not allowed"),
    # rules for containers
    "containers": (
        lambda ms: part(ms, LOKI, POD)["containers"].append(part(ms, LOKI, FIRST)),
        "containers: duplicate entry loki",
    ),
    "init": (
        put(LOKI, POD, {"initContainers": [{"name": "x", "image": "evil:v1"}]}),
        "initContainers[x]: `spec.images`",
    ),
    "image": (put(LOKI, FIRST, {"image": "evil:v1"}), "does not list this image"),
    "image-of-another": (
        put(LOGS, FIRST, {"image": str(FILES.lab.images.nimlab)}),
        "does not list this image",
    ),
    "command-of-agent": (put(LOGS, FIRST, {"command": ["sh"]}), "command is not allowed"),
    "lifecycle": (
        put(LOKI, FIRST, {"lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}),
        "lifecycle is not allowed",
    ),
    "env-from": (put(LOKI, FIRST, {"envFrom": [{"secretRef": {"name": "x"}}]}), "envFrom is not allowed"),
    "probe-exec": (
        put(LOKI, (*FIRST, "livenessProbe"), {"exec": {"command": ["sh"]}}),
        "exec is not allowed",
    ),
    "probe-host": (
        put(LOKI, (*FIRST, "readinessProbe", "httpGet"), {"host": "192.0.2.4"}),
        "httpGet: host is",
    ),
    "probe-host-tcp": (
        put(LOKI, (*FIRST, "livenessProbe", "tcpSocket"), {"host": "192.0.2.4"}),
        "tcpSocket: host is",
    ),
    "host-port": (put(LOKI, (*FIRST, "ports", 0), {"hostPort": 3100}), "hostPort is not allowed"),
    "host-port-other": (put(NODES, (*FIRST, "ports", 0), {"hostPort": 22}), "hostPort is not allowed"),
    "port-twice": (
        add(LOKI, (*FIRST, "ports"), {"containerPort": 3100, "protocol": "TCP"}),
        "ports: duplicate entry 3100/TCP",
    ),
    "env-twice": (add(LOGS, (*FIRST, "env"), {"name": "HOSTNAME"}), "env: duplicate entry HOSTNAME"),
    "env-secret": (
        put(GRAFANA, (*FIRST, "env", -1, "valueFrom", "secretKeyRef"), {"name": "x"}),
        "its component may not read",
    ),
    "env-secret-of-another": (
        put(LOKI, FIRST, {"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": GRAFANA_SECRET}}}]}),
        "its component may not read",
    ),
    "env-field": (
        put(LOGS, (*FIRST, "env", 0, "valueFrom", "fieldRef"), {"fieldPath": "status.hostIP"}),
        "its component may not read",
    ),
    "env-plain": (
        add(GRAFANA, (*FIRST, "env"), {"name": "GF_SECURITY_SECRET_KEY", "value": "example"}),
        "looks like a secret",
    ),
    # rules for security contexts
    "root": (put(LOKI, CONTEXT, {"runAsUser": 0}), "runAsUser must not be 0"),
    "root-pods": (put(LOKI, PODS_CONTEXT, {"runAsUser": 0}), "runAsUser must not be 0"),
    "root-by-image": (put(LOKI, PODS_CONTEXT, {"runAsNonRoot": False}), "runAsNonRoot must be true"),
    "capability": (
        put(LOKI, (*CONTEXT, "capabilities"), {"add": ["NET_RAW"]}),
        "capabilities must be `drop: [ALL]`",
    ),
    "capabilities": (drop(LOKI, CONTEXT, "capabilities"), "capabilities must be `drop: [ALL]`"),
    "privileged": (put(CADVISOR, CONTEXT, {"privileged": True}), "privileged is not allowed"),
    "escalation": (drop(LOKI, CONTEXT, "allowPrivilegeEscalation"), "allowPrivilegeEscalation"),
    "writable": (put(LOKI, CONTEXT, {"readOnlyRootFilesystem": False}), "readOnlyRootFilesystem"),
    "proc": (put(LOKI, CONTEXT, {"procMount": "Unmasked"}), "procMount is not allowed"),
    "seccomp": (put(LOKI, CONTEXT, {"seccompProfile": {"type": "Unconfined"}}), "seccompProfile must"),
    "seccomp-pods": (
        put(LOKI, PODS_CONTEXT, {"seccompProfile": {"type": "Unconfined"}}),
        "seccompProfile must",
    ),
    "seccomp-none": (drop(LOGS, PODS_CONTEXT, "seccompProfile"), "seccompProfile must"),
}


def check(manifests: list[Manifest], files: LabFiles = ALL) -> None:
    """Check the manifests in canonical form."""
    check_platform([canonical(manifest) for manifest in manifests], files.lab, NAMESPACES, SET)


def variants() -> Iterator[LabFiles]:
    """Yield the lab with every combination of the settings on which the templates depend."""
    for files, agent, cadvisor, storage in product(
        (load_lab(SAMPLE_LAB), FILES), ("alloy", "promtail"), ("daemonset", "kubelet"), (None, "1Gi")
    ):
        yield with_settings(
            files, log_agent=agent, cadvisor=cadvisor, metrics_storage=storage, logs_storage=storage
        )


def test_shipped_templates_pass_in_every_variant() -> None:
    check(list(GOOD))
    for files in variants():
        assert rendered(files)  # runs the guard too
    assert rendered(with_settings(containerd_folder="/run/containerd/"))


@pytest.mark.parametrize("name", REJECTED)
def test_each_violation_is_rejected(name: str) -> None:
    change, words = REJECTED[name]
    manifests = copy.deepcopy(list(GOOD))
    change(manifests)
    with pytest.raises(GuardError) as caught:
        check(manifests)
    assert words in caught.value.what


def test_the_containerd_folder_of_the_lab_must_be_normalized() -> None:
    with pytest.raises(GuardError, match="not normalized; write `/etc`"):
        rendered(with_settings(containerd_folder="/run/../etc"))


def test_a_containers_security_context_overrides_its_pods() -> None:
    manifests = copy.deepcopy(list(GOOD))
    put(LOKI, PODS_CONTEXT, {"runAsNonRoot": False, "runAsUser": 0})(manifests)
    put(LOKI, CONTEXT, {"runAsNonRoot": True, "runAsUser": 10001})(manifests)
    check(manifests)
    part(manifests, LOKI, CONTEXT)["runAsUser"] = None  # a container without a value has the pod's value
    with pytest.raises(GuardError, match="runAsUser must not be 0"):
        check_platform(manifests, ALL.lab, NAMESPACES, SET)
