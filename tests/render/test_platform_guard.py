"""The platform's guard: what is shipped passes in every variant, each overreach is refused and named."""

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
from nimlab.objects.canonical import canonical
from nimlab.objects.manifest import Manifest
from nimlab.render.guard.platform_guard import check_platform
from tests.render.test_render_platform import FILES, NAMESPACES, SET, of, rendered
from tests.support.paths import SAMPLE_LAB

Change: TypeAlias = Callable[[list[Manifest]], object]
Path: TypeAlias = tuple[str | int, ...]


def asked_for(files: LabFiles = FILES, **settings: Any) -> LabFiles:
    """The lab with other settings of its platform."""
    platform = replace(files.lab.platform, **settings)
    return replace(files, lab=replace(files.lab, platform=platform))


ALL = asked_for(cadvisor="kubelet", metrics_storage="1Gi", logs_storage="1Gi")
CADVISOR = ("DaemonSet", "lab-cadvisor")
GOOD = (
    *rendered(ALL),
    next(one for one in rendered(FILES) if (one["kind"], one["metadata"]["name"]) == CADVISOR),
)
"""Everything that the shipped templates can make, at once."""

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
    """What stands at a path of an object."""
    found = of(manifests, *which)
    for step in path:
        found = found[step]
    return found


def put(which: tuple[str, str], path: Path, fields: dict[str, Any]) -> Change:
    """A change that sets fields of a map."""
    return lambda manifests: part(manifests, which, path).update(fields)


def add(which: tuple[str, str], path: Path, item: dict[str, Any]) -> Change:
    """A change that appends to a list."""
    return lambda manifests: part(manifests, which, path).append(copy.deepcopy(item))


def drop(which: tuple[str, str], path: Path, name: str) -> Change:
    """A change that takes a field away."""
    return lambda manifests: part(manifests, which, path).pop(name)


def both(*changes: Change) -> Change:
    """Changes, one after another."""
    return lambda manifests: [change(manifests) for change in changes]


def mounted(which: tuple[str, str], path: str, **mount: object) -> Change:
    """A change that mounts a folder of the node."""
    return both(
        add(which, (*POD, "volumes"), {"name": "x", "hostPath": {"path": path}}),
        add(which, (*FIRST, "volumeMounts"), {"name": "x", "mountPath": "/x", **mount}),
    )


def as_another(which: tuple[str, str], kind: str, component: str) -> Change:
    """A change that adds a copy of a workload, of this kind and component."""

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


REFUSED: dict[str, tuple[Change, str]] = {
    # objects
    "kind": (lambda ms: ms[0].update(kind="Secret", apiVersion="v1"), "of this kind"),
    "api": (put(LOKI, (), {"apiVersion": "apps/v1beta1"}), "apiVersion must be"),
    "namespace": (put(("ConfigMap", "lab-loki-config"), ("metadata",), {"namespace": "x"}), "namespace"),
    "role-elsewhere": (put(ROLE, ("metadata",), {"namespace": "x"}), "namespace"),
    "name": (put(SERVICE, ("metadata",), {"name": "loki"}), "begin with `lab-`"),
    "workload-name": (put(LOKI, ("metadata",), {"name": "lab-other"}), "must be `lab-loki`"),
    "component": (drop(SERVICE, ("metadata", "labels"), COMPONENT), f"lacks the label `{COMPONENT}`"),
    "member": (put(SERVICE, ("metadata", "labels"), {PART_OF: "other"}), PART_OF),
    "twice": (lambda ms: ms.append(copy.deepcopy(ms[0])), "two templates"),
    "service-type": (put(SERVICE, ("spec",), {"type": "NodePort"}), "of type ClusterIP"),
    "service-external": (put(SERVICE, ("spec",), {"externalIPs": ["192.0.2.4"]}), "externalIPs is not"),
    "service-balancer": (put(SERVICE, ("spec",), {"loadBalancerIP": "192.0.2.4"}), "loadBalancerIP is not"),
    "service-address": (put(SERVICE, ("spec",), {"clusterIP": "10.43.0.10"}), "clusterIP is the server's"),
    "service-port": (put(SERVICE, ("spec", "ports", 0), {"nodePort": 30000}), "nodePort is not"),
    "service-selector": (put(SERVICE, ("spec",), {"selector": {"experiment": "purple"}}), "selector"),
    "claim": (
        put(("PersistentVolumeClaim", "lab-loki"), ("spec",), {"volumeName": "pv"}),
        "volumeName is not",
    ),
    # rights
    "role": (put(ROLE, ("rules", 0), {"resources": ["secrets"]}), "looking at pods"),
    "role-group": (put(ROLE, ("rules", 0), {"apiGroups": ["*"]}), "looking at pods"),
    "role-verb": (put(ROLE, ("rules", 0), {"verbs": ["delete"]}), "looking at pods"),
    "role-field": (put(ROLE, (), {"aggregationRule": {"a": 1}}), "aggregationRule is not"),
    "cluster-role": (put(CLUSTER_ROLE, ("rules", 0), {"resources": ["secrets"]}), "`nodes/metrics` alone"),
    "cluster-role-aggregated": (
        put(CLUSTER_ROLE, (), {"aggregationRule": {"clusterRoleSelectors": [{}]}}),
        "aggregationRule is not",
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
    "binding-field": (put(BINDING, (), {"x": 1}), "RoleBinding: x is not"),
    "cluster-binding-admin": (
        put(CLUSTER_BINDING, ("roleRef",), {"name": "cluster-admin"}),
        "roleRef must be",
    ),
    "cluster-binding-logs": (
        put(CLUSTER_BINDING, ("subjects", 0), {"name": "lab-log-agent"}),
        "subjects: a ClusterRoleBinding",
    ),
    "account-secrets": (put(ACCOUNT, (), {"secrets": [{"name": "x"}]}), "secrets is not"),
    "account-cloud": (
        put(ACCOUNT, ("metadata", "annotations"), {"eks.amazonaws.com/role-arn": "x"}),
        "role-arn is not",
    ),
    "account-name": (put(ACCOUNT, ("metadata",), {"name": "lab-other"}), "must be `lab-prometheus`"),
    "account-token": (put(ACCOUNT, (), {"automountServiceAccountToken": True}), "must be false"),
    # pods
    "selector": (put(LOKI, ("spec", "selector", "matchLabels"), {"a": "b"}), "spec.selector"),
    "pods-finalizer": (put(LOKI, TEMPLATE, {"finalizers": ["a/b"]}), "finalizers is not"),
    "pods-label": (put(LOKI, (*TEMPLATE, "labels"), {"experiment": "purple"}), "that of experiments' peers"),
    "pods-mark": (put(LOKI, (*TEMPLATE, "labels"), {PART_OF: "x"}), "is reserved"),
    "pods-annotation": (
        put(LOKI, (*TEMPLATE, "annotations"), {"container.apparmor.security.beta.kubernetes.io/loki": "x"}),
        "annotation `container.apparmor",
    ),
    "host-network": (put(LOKI, POD, {"hostNetwork": True}), "hostNetwork is not"),
    "host-network-of-agent": (put(LOGS, POD, {"hostNetwork": True}), "hostNetwork is not"),
    "host-pid": (put(LOGS, POD, {"hostPID": True}), "hostPID is not"),
    "host-ipc": (put(NODES, POD, {"hostIPC": True}), "hostIPC is not"),
    "node-name": (put(LOKI, POD, {"nodeName": "node-1"}), "nodeName is not"),
    "priority": (put(LOKI, POD, {"priorityClassName": "system-node-critical"}), "priorityClassName is not"),
    "ephemeral": (put(LOKI, POD, {"ephemeralContainers": [{"name": "x"}]}), "ephemeralContainers is not"),
    "token": (drop(LOKI, POD, "automountServiceAccountToken"), "must be said"),
    "token-of-default": (put(LOKI, POD, {"automountServiceAccountToken": True}), "get no token"),
    "account": (put(LOKI, POD, {"serviceAccountName": "nimlab-sync-platform"}), "must be `lab-loki`"),
    "account-of-another": (put(LOKI, POD, {"serviceAccountName": "lab-prometheus"}), "must be `lab-loki`"),
    "group-of-agent": (put(NODES, PODS_CONTEXT, {"runAsGroup": 0}), "runAsGroup is not"),
    "sysctl": (put(LOKI, PODS_CONTEXT, {"sysctls": [{"name": "a", "value": "b"}]}), "sysctls is not"),
    "volume-projected": (
        add(LOKI, (*POD, "volumes"), {"name": "x", "projected": {"sources": [{"secret": {"name": "x"}}]}}),
        "may not be `projected`",
    ),
    "volume-secret": (
        add(LOKI, (*POD, "volumes"), {"name": "x", "secret": {"secretName": "x"}}),
        "may not be `secret`",
    ),
    "volume-claim": (
        add(LOKI, (*POD, "volumes"), {"name": "x", "persistentVolumeClaim": {"claimName": "lab-prometheus"}}),
        "a claim must be `lab-loki`",
    ),
    "volume-twice": (add(LOKI, (*POD, "volumes"), {"name": "tmp", "emptyDir": {}}), "volumes: tmp stands"),
    # folders of the node
    "host-path": (mounted(LOKI, "/var/log/pods", readOnly=True), "may not be `hostPath`"),
    "host-path-of-agent": (mounted(LOGS, "/etc", readOnly=True), "`/etc` of the node is not for"),
    "host-path-inside": (mounted(LOGS, "/var/log/pods/x", readOnly=True), "is not for this component"),
    "host-path-way-round": (mounted(LOGS, "/var/lib/nimlab/../../etc"), "say `/var/etc`"),
    "host-path-not-an-agent": (as_another(LOGS, "DaemonSet", "other"), "may not be `hostPath`"),
    "host-path-no-daemon": (as_another(LOGS, "Deployment", "log-agent"), "may not be `hostPath`"),
    "host-path-written": (drop(NODES, (*FIRST, "volumeMounts", 0), "readOnly"), "only to be read"),
    "host-path-spread": (
        put(NODES, (*FIRST, "volumeMounts", 0), {"mountPropagation": "Bidirectional"}),
        "spread to the node",
    ),
    "mount-part": (put(LOGS, (*FIRST, "volumeMounts", 0), {"subPath": "x"}), "subPath is not"),
    # containers
    "containers": (
        lambda ms: part(ms, LOKI, POD)["containers"].append(part(ms, LOKI, FIRST)),
        "containers: loki stands twice",
    ),
    "init": (
        put(LOKI, POD, {"initContainers": [{"name": "x", "image": "evil:v1"}]}),
        "initContainers[x]: its image",
    ),
    "image": (put(LOKI, FIRST, {"image": "evil:v1"}), "none of `spec.images`"),
    "image-of-another": (put(LOGS, FIRST, {"image": str(FILES.lab.images.nimlab)}), "none of `spec.images`"),
    "command-of-agent": (put(LOGS, FIRST, {"command": ["sh"]}), "command is not"),
    "lifecycle": (
        put(LOKI, FIRST, {"lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}),
        "lifecycle is not",
    ),
    "env-from": (put(LOKI, FIRST, {"envFrom": [{"secretRef": {"name": "x"}}]}), "envFrom is not"),
    "probe-exec": (put(LOKI, (*FIRST, "livenessProbe"), {"exec": {"command": ["sh"]}}), "exec is not"),
    "probe-host": (
        put(LOKI, (*FIRST, "readinessProbe", "httpGet"), {"host": "192.0.2.4"}),
        "httpGet: host is",
    ),
    "probe-host-tcp": (
        put(LOKI, (*FIRST, "livenessProbe", "tcpSocket"), {"host": "192.0.2.4"}),
        "tcpSocket: host is",
    ),
    "host-port": (put(LOKI, (*FIRST, "ports", 0), {"hostPort": 3100}), "hostPort is not"),
    "host-port-other": (put(NODES, (*FIRST, "ports", 0), {"hostPort": 22}), "hostPort is not"),
    "port-twice": (
        add(LOKI, (*FIRST, "ports"), {"containerPort": 3100, "protocol": "TCP"}),
        "ports: 3100/TCP stands twice",
    ),
    "env-twice": (add(LOGS, (*FIRST, "env"), {"name": "HOSTNAME"}), "env: HOSTNAME stands twice"),
    "env-secret": (
        put(GRAFANA, (*FIRST, "env", -1, "valueFrom", "secretKeyRef"), {"name": "x"}),
        "its component isn't given",
    ),
    "env-secret-of-another": (
        put(LOKI, FIRST, {"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": GRAFANA_SECRET}}}]}),
        "its component isn't given",
    ),
    "env-field": (
        put(LOGS, (*FIRST, "env", 0, "valueFrom", "fieldRef"), {"fieldPath": "status.hostIP"}),
        "its component isn't given",
    ),
    "env-plain": (
        add(GRAFANA, (*FIRST, "env"), {"name": "GF_SECURITY_SECRET_KEY", "value": "example"}),
        "looks secret",
    ),
    # security contexts
    "root": (put(LOKI, CONTEXT, {"runAsUser": 0}), "as root"),
    "root-pods": (put(LOKI, PODS_CONTEXT, {"runAsUser": 0}), "as root"),
    "root-by-image": (put(LOKI, PODS_CONTEXT, {"runAsNonRoot": False}), "runAsNonRoot must be true"),
    "capability": (put(LOKI, (*CONTEXT, "capabilities"), {"add": ["NET_RAW"]}), "drop all"),
    "capabilities": (drop(LOKI, CONTEXT, "capabilities"), "drop all"),
    "privileged": (put(CADVISOR, CONTEXT, {"privileged": True}), "privileged is not"),
    "escalation": (drop(LOKI, CONTEXT, "allowPrivilegeEscalation"), "allowPrivilegeEscalation"),
    "writable": (put(LOKI, CONTEXT, {"readOnlyRootFilesystem": False}), "readOnlyRootFilesystem"),
    "proc": (put(LOKI, CONTEXT, {"procMount": "Unmasked"}), "procMount is not"),
    "seccomp": (put(LOKI, CONTEXT, {"seccompProfile": {"type": "Unconfined"}}), "seccompProfile must"),
    "seccomp-pods": (
        put(LOKI, PODS_CONTEXT, {"seccompProfile": {"type": "Unconfined"}}),
        "seccompProfile must",
    ),
    "seccomp-none": (drop(LOGS, PODS_CONTEXT, "seccompProfile"), "seccompProfile must"),
}


def check(manifests: list[Manifest], files: LabFiles = ALL) -> None:
    """Guard the manifests, in the form in which they are sent."""
    check_platform([canonical(one) for one in manifests], files.lab, NAMESPACES, SET)


def variants() -> Iterator[LabFiles]:
    """The lab in all that its templates ask about."""
    for files, agent, cadvisor, storage in product(
        (load_lab(SAMPLE_LAB), FILES), ("alloy", "promtail"), ("daemonset", "kubelet"), (None, "1Gi")
    ):
        yield asked_for(
            files, log_agent=agent, cadvisor=cadvisor, metrics_storage=storage, logs_storage=storage
        )


def test_shipped_templates_pass_in_every_variant() -> None:
    check(list(GOOD))
    for files in variants():
        assert rendered(files)  # guards them, too
    assert rendered(asked_for(containerd_folder="/run/containerd/"))


@pytest.mark.parametrize("name", REFUSED)
def test_each_overreach_is_refused(name: str) -> None:
    change, words = REFUSED[name]
    manifests = copy.deepcopy(list(GOOD))
    change(manifests)
    with pytest.raises(GuardError) as caught:
        check(manifests)
    assert words in caught.value.what


def test_the_labs_own_folder_goes_no_way_round() -> None:
    with pytest.raises(GuardError, match="goes a way round: say `/etc`"):
        rendered(asked_for(containerd_folder="/run/../etc"))


def test_what_a_container_says_counts_before_what_its_pod_says() -> None:
    manifests = copy.deepcopy(list(GOOD))
    put(LOKI, PODS_CONTEXT, {"runAsNonRoot": False, "runAsUser": 0})(manifests)
    put(LOKI, CONTEXT, {"runAsNonRoot": True, "runAsUser": 10001})(manifests)
    check(manifests)
    part(manifests, LOKI, CONTEXT)["runAsUser"] = None  # which is the pod's again
    with pytest.raises(GuardError, match="as root"):
        check_platform(manifests, ALL.lab, NAMESPACES, SET)
