"""The guard of experiments rejects each manifest that could affect other objects, and names the violation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from nimlab.errors import GuardError
from nimlab.files.load import load_lab
from nimlab.objects.applyset import ApplySet, stamp
from nimlab.objects.manifest import Manifest
from nimlab.render import load_templates, render_experiment
from nimlab.render.guard.experiment_guard import check_manifests, check_unique
from tests.support.paths import SAMPLE_LAB

FILES = load_lab(SAMPLE_LAB)
PURPLE = FILES.experiments[1]
SET = ApplySet(name="experiments", namespace=FILES.lab.namespace)
TEMPLATES = load_templates(SAMPLE_LAB, "templates/experiment")
GOOD = tuple(stamp(m, SET) for m in render_experiment(TEMPLATES, PURPLE, FILES.lab))


def of(manifests: list[Manifest], kind: str) -> Any:
    """Return the manifest of a kind."""
    return next(m for m in manifests if m["kind"] == kind)


def pod(manifests: list[Manifest]) -> Any:
    """Return the pod spec."""
    return of(manifests, "StatefulSet")["spec"]["template"]["spec"]


def container(manifests: list[Manifest]) -> Any:
    """Return the container of the node."""
    return pod(manifests)["containers"][0]


def test_shipped_manifests_pass() -> None:
    check_manifests(GOOD, PURPLE, FILES.lab, SET)
    check_unique({"purple": GOOD})


def named(tail: str) -> Callable[[list[Manifest]], object]:
    """Return a function that appends a text to the name of the Service."""
    return lambda ms: of(ms, "Service")["metadata"].update(name=f"nimp2p-exp-purple-x{tail}")


ODD_NAMES = ("/../../../victim/secrets/hush", "?dryRun=All", "\n", "X", "..y", "-", "x" * 253)
BREAKS: dict[str, tuple[Callable[[list[Manifest]], object], str]] = {
    "kind": (lambda ms: of(ms, "ConfigMap").update(kind="Secret"), "of this kind"),
    "unknown-kind": (lambda ms: of(ms, "ConfigMap").update(kind="ClusterRole"), "of this kind"),
    "api-version": (lambda ms: of(ms, "ConfigMap").update(apiVersion="v2"), "apiVersion"),
    "namespace": (lambda ms: of(ms, "Service")["metadata"].update(namespace="kube-system"), "namespace"),
    "name": (lambda ms: of(ms, "Service")["metadata"].update(name="kubernetes"), "metadata.name must be"),
    "duplicate": (lambda ms: ms.append(ms[0]), "two templates render this object"),
    "finalizer": (lambda ms: ms[0]["metadata"].update(finalizers=["x"]), "finalizers"),
    "owner": (lambda ms: ms[0]["metadata"].update(ownerReferences=[{}]), "ownerReferences"),
    "status": (lambda ms: ms[0].update(status={"a": 1}), "status"),
    "part-of": (
        lambda ms: ms[0]["metadata"]["labels"].update({"applyset.kubernetes.io/part-of": "other"}),
        "part-of` must be",
    ),
    "member": (
        lambda ms: ms[0]["metadata"]["annotations"].update({"nimlab.dev/member": "other"}),
        "member` must be",
    ),
    "reserved-label": (
        lambda ms: ms[0]["metadata"]["labels"].update({"nimlab.dev/x": "y"}),
        "reserved",
    ),
    "reserved-annotation": (
        lambda ms: ms[0]["metadata"]["annotations"].update({"argocd.argoproj.io/x": "y"}),
        "reserved",
    ),
    "managed-by": (
        lambda ms: ms[0]["metadata"]["labels"].update({"app.kubernetes.io/managed-by": "Helm"}),
        "managed-by",
    ),
    "label-type": (lambda ms: ms[0]["metadata"]["labels"].update({"a": 1}), "must be a string"),
    "experiment": (lambda ms: ms[0]["metadata"]["labels"].update(experiment="blue"), "must be `purple`"),
    "pod-experiment": (
        lambda ms: of(ms, "StatefulSet")["spec"]["template"]["metadata"]["labels"].update(experiment="b"),
        "pods: the label `experiment` must be",
    ),
    "pod-reserved": (
        lambda ms: of(ms, "StatefulSet")["spec"]["template"]["metadata"]["labels"].update(
            {"applyset.kubernetes.io/part-of": SET.id}
        ),
        "reserved",
    ),
    "selector": (
        lambda ms: of(ms, "StatefulSet")["spec"]["selector"].update(matchLabels={"a": "b"}),
        "selector",
    ),
    "service-selector": (lambda ms: of(ms, "Service")["spec"].update(selector={"a": "b"}), "selector"),
    "policy-selector": (
        lambda ms: of(ms, "NetworkPolicy")["spec"].update(podSelector={}),
        "podSelector must contain",
    ),
    "service-type": (lambda ms: of(ms, "Service")["spec"].update(type="NodePort"), "ClusterIP"),
    "external": (lambda ms: of(ms, "Service")["spec"].update(externalName="x"), "externalName"),
    "claims": (lambda ms: of(ms, "StatefulSet")["spec"].update(volumeClaimTemplates=[{}]), "outlive"),
    "host-network": (lambda ms: pod(ms).update(hostNetwork=True), "hostNetwork"),
    "host-pid": (lambda ms: pod(ms).update(hostPID=True), "hostPID"),
    "node-name": (lambda ms: pod(ms).update(nodeName="master"), "nodeName"),
    "account": (lambda ms: pod(ms).update(serviceAccountName="admin"), "serviceAccountName"),
    "token": (lambda ms: pod(ms).pop("automountServiceAccountToken"), "automountServiceAccountToken"),
    "host-path": (
        lambda ms: pod(ms).update(volumes=[{"name": "a", "hostPath": {"path": "/"}}]),
        "hostPath",
    ),
    "secret-volume": (lambda ms: pod(ms).update(volumes=[{"name": "a", "secret": {}}]), "secret"),
    "privileged": (lambda ms: container(ms)["securityContext"].update(privileged=True), "privileged"),
    "escalation": (
        lambda ms: container(ms)["securityContext"].pop("allowPrivilegeEscalation"),
        "allowPrivilegeEscalation",
    ),
    "capability": (
        lambda ms: container(ms)["securityContext"].update(capabilities={"add": ["NET_ADMIN"]}),
        "capabilities",
    ),
    "host-port": (lambda ms: container(ms)["ports"][0].update(hostPort=80), "hostPort"),
    "host-ipc": (lambda ms: pod(ms).update(hostIPC=True), "hostIPC"),
    "ephemeral": (lambda ms: pod(ms).update(ephemeralContainers=[{"name": "x"}]), "ephemeralContainers"),
    "priority": (lambda ms: pod(ms).update(priorityClassName="system-node-critical"), "priorityClassName"),
    "runtime": (lambda ms: pod(ms).update(runtimeClassName="x"), "runtimeClassName"),
    "devices": (lambda ms: pod(ms).update(resourceClaims=[{"name": "x"}]), "resourceClaims"),
    "pod-finalizer": (
        lambda ms: of(ms, "StatefulSet")["spec"]["template"]["metadata"].update(finalizers=["a/b"]),
        "finalizers",
    ),
    "apparmor": (
        lambda ms: of(ms, "StatefulSet")["spec"]["template"]["metadata"].update(
            annotations={"container.apparmor.security.beta.kubernetes.io/x": "unconfined"}
        ),
        "AppArmor",
    ),
    "sysctl": (
        lambda ms: pod(ms)["securityContext"].update(sysctls=[{"name": "a", "value": "b"}]),
        "sysctls",
    ),
    "windows-host": (
        lambda ms: pod(ms)["securityContext"].update(windowsOptions={"hostProcess": True}),
        "windowsOptions",
    ),
    "proc": (lambda ms: container(ms)["securityContext"].update(procMount="Unmasked"), "procMount"),
    "selinux": (
        lambda ms: container(ms)["securityContext"].update(seLinuxOptions={"type": "spc_t"}),
        "seLinuxOptions",
    ),
    "seccomp": (
        lambda ms: container(ms)["securityContext"].update(seccompProfile={"type": "Unconfined"}),
        "seccompProfile",
    ),
    "seccomp-pod": (
        lambda ms: pod(ms)["securityContext"].update(seccompProfile={"type": "Unconfined"}),
        "seccompProfile",
    ),
    "seccomp-none": (lambda ms: pod(ms).pop("securityContext"), "seccompProfile"),
    **{
        f"volume-{kind}": (
            lambda ms, kind=kind: pod(ms).update(volumes=[{"name": "a", kind: {"a": "b"}}]),  # type: ignore[misc]
            f"a volume of type `{kind}` is not allowed",
        )
        for kind in ("projected", "csi", "ephemeral", "persistentVolumeClaim", "nfs", "image")
    },
    "host-path-way-round": (
        lambda ms: pod(ms).update(volumes=[{"name": "a", "hostPath": {"path": "/var/lib/nimlab/../../etc"}}]),
        "a volume of type `hostPath` is not allowed",
    ),
    "probe-host": (
        lambda ms: container(ms).update(livenessProbe={"httpGet": {"host": "192.0.2.4", "port": 80}}),
        "probes and hooks must not set host",
    ),
    "probe-host-tcp": (
        lambda ms: container(ms).update(readinessProbe={"tcpSocket": {"host": "192.0.2.4", "port": 80}}),
        "probes and hooks must not set host",
    ),
    "hook-host": (
        lambda ms: container(ms).update(
            lifecycle={"preStop": {"httpGet": {"host": "192.0.2.4", "port": 80}}}
        ),
        "probes and hooks must not set host",
    ),
    "external-address": (
        lambda ms: of(ms, "Service")["spec"].update(externalIPs=["192.0.2.4"]),
        "externalIPs",
    ),
    "balancer": (
        lambda ms: of(ms, "Service")["spec"].update(loadBalancerIP="192.0.2.4"),
        "loadBalancerIP",
    ),
    "env-from": (
        lambda ms: container(ms).update(envFrom=[{"secretRef": {"name": "s"}}]),
        "env must not refer to Secrets",
    ),
    "env-secret": (
        lambda ms: container(ms)["env"].append({"name": "A", "valueFrom": {"secretKeyRef": {}}}),
        "env must not refer to Secrets",
    ),
    "env-twice": (lambda ms: container(ms)["env"].append({"name": "PEERS"}), "duplicate entry"),
    "port-twice": (lambda ms: container(ms)["ports"].append(container(ms)["ports"][0]), "duplicate entry"),
    **{f"name-{tail!r:.9}": (named(tail), "metadata.name must be 1 to 253 lower-case") for tail in ODD_NAMES},
}


@pytest.mark.parametrize("name", sorted(BREAKS))
def test_each_violation_is_rejected(name: str) -> None:
    change, words = BREAKS[name]
    manifests = copy.deepcopy(list(GOOD))
    change(manifests)
    with pytest.raises(GuardError) as caught:
        check_manifests(manifests, PURPLE, FILES.lab, SET)
    assert words in caught.value.what
    assert caught.value.where is not None


def test_only_the_shaper_may_have_net_admin() -> None:
    check_manifests(GOOD, PURPLE, FILES.lab, SET)
    for change in (
        {"name": "other"},
        {"image": "evil:v1"},
        {"command": ["sh", "-c"]},
        {"restartPolicy": "Always"},
        {"env": [{"name": "PYTHONPATH", "value": "/evil"}]},
        {"volumeMounts": [{"name": "evil", "mountPath": "/usr/lib/python3/dist-packages/nimlab"}]},
        {"workingDir": "/evil"},
        {"securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"add": ["SYS_ADMIN"]}}},
    ):
        manifests = copy.deepcopy(list(GOOD))
        shaper = pod(manifests)["initContainers"][0]
        assert shaper["securityContext"]["capabilities"]["add"] == ["NET_ADMIN"]
        shaper.update(change)
        with pytest.raises(GuardError, match="capabilities"):
            check_manifests(manifests, PURPLE, FILES.lab, SET)
    manifests = copy.deepcopy(list(GOOD))
    pod(manifests)["containers"].append({**pod(manifests)["initContainers"][0], "env": []})
    with pytest.raises(GuardError, match="capabilities"):
        check_manifests(manifests, PURPLE, FILES.lab, SET)


@pytest.mark.parametrize(
    "source",
    [
        {"fieldRef": {"fieldPath": "spec.nodeName"}},
        {"fieldRef": None},
        {"secretKeyRef": {"name": "a", "key": "b"}},
        {"fieldRef": {"fieldPath": "metadata.name"}, "configMapKeyRef": {"name": "a", "key": "b"}},
        None,
        "metadata.name",
    ],
)
def test_a_container_may_read_only_the_name_and_address_of_its_pod(source: object) -> None:
    manifests = copy.deepcopy(list(GOOD))
    env = pod(manifests)["initContainers"][1]["env"]
    assert env[0]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
    env[0]["valueFrom"] = source
    with pytest.raises(GuardError, match="env must not refer to Secrets"):
        check_manifests(manifests, PURPLE, FILES.lab, SET)


@pytest.mark.parametrize(
    ("position", "command"),
    [
        (0, ["python3", "-m", "nimlab.shape"]),
        (1, ["python3", "-m", "nimlab.rtt"]),
        (1, ["sh", "-c", "exec python3 -m nimlab.stagger --step-ms=5"]),
    ],
)
def test_old_module_path_is_rejected_with_the_new_path_in_the_message(
    position: int, command: list[str]
) -> None:
    manifests = copy.deepcopy(list(GOOD))
    pod(manifests)["initContainers"][position]["command"] = command
    with pytest.raises(GuardError) as caught:
        check_manifests(manifests, PURPLE, FILES.lab, SET)
    old = next(word for word in " ".join(command).split() if word.startswith("nimlab."))
    new = old.replace("nimlab.", "nimlab.agents.")
    assert f"the module `{old}` was renamed to `{new}`" in caught.value.what
    for word in ("nimlab.agents.shape", "nimlab.agents.rtt", "spec.images.nimlab", "image tag 0.2.0"):
        assert word in str(caught.value.hint)


def test_all_violations_are_reported_at_once() -> None:
    manifests = copy.deepcopy(list(GOOD))
    pod(manifests).update(hostNetwork=True, hostPID=True)
    with pytest.raises(GuardError) as caught:
        check_manifests(manifests, PURPLE, FILES.lab, SET)
    assert "hostNetwork" in caught.value.what
    assert "hostPID" in caught.value.what


def test_a_namespace_is_allowed_only_if_the_contract_requires_it() -> None:
    text = "apiVersion: nimlab.dev/v1\nkind: Experiment\nmetadata: {name: green}\n"
    text += "spec: {contract: dst-go, peers: 3}\n"
    files = load_lab(SAMPLE_LAB, {"experiments/green.yaml": text})
    green = next(experiment for experiment in files.experiments if experiment.name == "green")
    manifests = [stamp(m, SET) for m in render_experiment(TEMPLATES, green, files.lab)]
    check_manifests(manifests, green, files.lab, SET)
    with pytest.raises(GuardError, match="of this kind"):
        check_manifests(manifests[:1], PURPLE, files.lab, SET)
    manifests[0]["metadata"]["name"] = "kube-system"
    with pytest.raises(GuardError, match="name of the namespace must be"):
        check_manifests(manifests, green, files.lab, SET)


def test_two_experiments_must_not_contain_the_same_object() -> None:
    with pytest.raises(GuardError, match="both contain this object"):
        check_unique({"purple": GOOD, "blue": GOOD[:1]})
