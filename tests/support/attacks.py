"""Attacks with the token of one set on the objects of the other set, and the text of each refusal.

Writes are dry runs. A deletion would be real if the server allowed it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nimlab.cluster.interface import Propagation
from nimlab.cluster.kube import KubeCluster
from nimlab.objects.applyset import COMPONENT, EXPERIMENTS, PART_OF, PLATFORM, ApplySet
from nimlab.objects.manifest import Manifest, ObjectKey
from tests.support.lab import Lab

RIGHT = "cannot"
"""Text of a refusal because of a missing right (RBAC)."""
GRANT = "attempting to grant"
"""Text of the server's own check against privilege escalation."""
NAMES = "may only write objects named"


@dataclass(frozen=True, slots=True)
class Ground:
    """Both sets in one cluster, and the account of one of them."""

    lab: Lab
    account: KubeCluster
    manifests: Mapping[tuple[str, str], Manifest]
    own: str

    def made(self, kind: str, name: str, change: Callable[[Any], object], new: str | None = None) -> Manifest:
        """Return a changed copy of a rendered object, with its own name or a new one."""
        manifest = copy.deepcopy(self.manifests[kind, name])
        if new is not None:
            manifest["metadata"]["name"] = new
        change(manifest)
        return manifest

    def apply(self, manifest: Manifest) -> None:
        """Apply an object as a dry run."""
        self.account.apply(manifest, manager="nimlab", force=True, dry_run=True)

    def delete(self, kind: str, name: str, namespace: str | None = None) -> None:
        """Try to delete an existing object."""
        home = self.lab.namespace if namespace is None else namespace
        live = self.lab.cluster.get(ObjectKey(kind, home, name))
        assert live is not None, f"there is no {kind} {name} to be deleted"
        self.account.delete(
            ObjectKey(kind, home, name),
            uid=live["metadata"]["uid"],
            resource_version=None,
            propagation=Propagation.BACKGROUND,
        )

    def take_lock(self, apply_set: str) -> None:
        """Try to update the lease of another set."""
        live = self.lab.get("Lease", f"nimlab-{apply_set}")
        assert live is not None
        self.account.replace(live)


Attack = Callable[[Ground], object]


def template(manifest: Any) -> Any:
    """Return the pod template of a workload."""
    return manifest["spec"]["template"]


def peers(change: Callable[[Any], object]) -> Attack:
    """Return an attack: a StatefulSet of a new experiment with a changed pod spec."""
    return lambda g: g.apply(
        g.made("StatefulSet", "nimp2p-exp-blue", lambda m: change(template(m)["spec"]), "nimp2p-exp-evil")
    )


def pods(change: Callable[[Any], object], kind: str = "Deployment", name: str = "lab-loki") -> Attack:
    """Return an attack: a new workload of the platform with a changed pod spec."""
    return lambda g: g.apply(g.made(kind, name, lambda m: change(template(m)["spec"]), "lab-evil"))


def volume(source: str, fields: dict[str, Any]) -> Callable[[Any], object]:
    """Return a change that adds a volume to a pod spec."""
    return lambda pod: pod.setdefault("volumes", []).append({"name": "evil", source: fields})


def container(**fields: Any) -> Callable[[Any], object]:
    """Return a change that sets fields of the first container."""
    return lambda pod: pod["containers"][0].update(fields)


def changed(kind: str, name: str, change: Callable[[Any], object], new: str | None = None) -> Attack:
    """Return an attack: a changed rendered object."""
    return lambda g: g.apply(g.made(kind, name, change, new))


def config_map(name: str, namespace: str | None = None, **metadata: Any) -> Attack:
    """Return an attack: a ConfigMap with a name that the account must not write."""
    return lambda g: g.apply({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace or g.lab.namespace, **metadata},
        "data": {"prometheus.yaml": "evil"},
    })  # fmt: skip


def namespace(name: str) -> Attack:
    """Return an attack: a new namespace, or a label on an existing one."""
    metadata = {"name": name, "labels": {"evil": "true"}}
    return lambda g: g.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})


def secret(name: str, kind: str, of: str) -> Attack:
    """Return an attack: a Secret into which the server would write the token of an account."""
    return lambda g: g.account.create({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": kind,
        "metadata": {
            "name": name,
            "namespace": g.lab.namespace,
            "annotations": {"kubernetes.io/service-account.name": of},
        },
    })  # fmt: skip


def bounds(kind: str, spec: dict[str, Any]) -> Attack:
    """Return an attack: a limit on all pods of the lab's namespace."""
    return lambda g: g.apply({
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {"name": "nimp2p-exp-evil", "namespace": g.lab.namespace},
        "spec": spec,
    })  # fmt: skip


def budget(g: Ground) -> None:
    """Try to prevent the eviction of the platform's pods."""
    g.apply({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "nimp2p-exp-evil", "namespace": g.lab.namespace},
        "spec": {"maxUnavailable": 0, "selector": {}},
    })  # fmt: skip


def prometheus_pod(g: Ground) -> None:
    """Try to delete the pod of Prometheus."""
    g.lab.kubectl("wait", "--for=create", "pod", "-l", f"{COMPONENT}=prometheus", "--timeout=60s")
    (pod,) = (name for name in g.lab.names("Pod") if name.startswith("lab-prometheus-"))
    g.delete("Pod", pod)


def label_of(apply_set: str) -> Callable[[Ground], dict[str, str]]:
    """Return the label of the members of a set."""
    return lambda g: {PART_OF: ApplySet(name=apply_set, namespace=g.lab.namespace).id}


def replaced(field: str, value: object) -> Callable[[Any], object]:
    """Return a change that sets a field of the spec."""
    return lambda manifest: manifest["spec"].update({field: value})


SECRET_ENV = [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "lab-grafana-admin", "key": "password"}}}]
TOKEN_ENV = [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "nimlab-sync", "key": "token"}}}]
TOKEN = {"sources": [{"serviceAccountToken": {"path": "token"}}]}
CLAIM = {"metadata": {"name": "a"}, "spec": {"accessModes": ["ReadWriteOnce"],
         "resources": {"requests": {"storage": "1Gi"}}}}  # fmt: skip
EVIL_IP = {"externalIPs": ["192.0.2.1"]}

ON_PLATFORM: dict[str, tuple[Attack, str]] = {
    "a config": (config_map("lab-prometheus-config"), NAMES),
    "a new name": (config_map("lab-evil"), NAMES),
    "the record": (lambda g: g.delete("ConfigMap", "nimlab-platform"), NAMES),
    "a service": (lambda g: g.delete("Service", "lab-loki"), NAMES),
    "a pod": (prometheus_pod, NAMES),
    "the lock": (lambda g: g.take_lock(PLATFORM), RIGHT),
    "a deployment": (lambda g: g.delete("Deployment", "lab-loki"), RIGHT),
    "a role": (lambda g: g.delete("Role", "lab-discovery"), RIGHT),
    "a secret": (secret("nimp2p-exp-evil", "Opaque", "nimlab-sync-platform"), RIGHT),
    "the other label": (
        lambda g: config_map("nimp2p-exp-evil", labels=label_of(PLATFORM)(g))(g),
        "may not set the label of another apply-set",
    ),
    "its account": (peers(lambda p: p.update(serviceAccountName="lab-prometheus")), "account `default`"),
    "its account, by the old name": (
        peers(lambda p: p.update(serviceAccount="lab-prometheus")),
        "account `default`",
    ),
    "its account, in place": (
        changed(
            "StatefulSet",
            "nimp2p-exp-blue",
            lambda m: template(m)["spec"].update(serviceAccountName="lab-prometheus"),
        ),
        "account `default`",
    ),
    "a mounted secret": (
        peers(volume("secret", {"secretName": "lab-grafana-admin"})),
        "may not mount Secrets",
    ),
    "a token": (peers(volume("projected", TOKEN)), "may not mount Secrets"),
    "a claim": (peers(volume("persistentVolumeClaim", {"claimName": "lab-loki"})), "may not mount Secrets"),
    "a folder of the node": (peers(volume("hostPath", {"path": "/"})), "may not mount Secrets"),
    "a new claim": (
        changed(
            "StatefulSet", "nimp2p-exp-blue", replaced("volumeClaimTemplates", [CLAIM]), "nimp2p-exp-evil"
        ),
        "volume claim templates",
    ),
    "a secret in env": (peers(container(env=SECRET_ENV)), "may not pass other Secrets"),
    "a secret in envFrom": (
        peers(container(envFrom=[{"secretRef": {"name": "lab-grafana-admin"}}])),
        "may not pass other Secrets",
    ),
    "a secret in an init container": (
        peers(lambda p: p["initContainers"][0].update(env=SECRET_ENV)),
        "may not pass other Secrets",
    ),
    "the node's network": (peers(lambda p: p.update(hostNetwork=True)), "host namespaces"),
    "the node's processes": (peers(lambda p: p.update(hostPID=True)), "host namespaces"),
    "the node's memory": (peers(lambda p: p.update(hostIPC=True)), "host namespaces"),
    "the others' place": (
        peers(lambda p: p.update(priorityClassName="system-node-critical")),
        "host namespaces",
    ),
    "a privileged container": (
        peers(container(securityContext={"privileged": True})),
        "may not create privileged containers",
    ),
    "a capability": (
        peers(container(securityContext={"capabilities": {"add": ["SYS_ADMIN"]}})),
        "may not create privileged containers",
    ),
    "a port of the node": (
        peers(container(ports=[{"containerPort": 9100, "hostPort": 9100}])),
        "may not use host ports",
    ),
    "the platform's traffic": (
        changed(
            "StatefulSet",
            "nimp2p-exp-blue",
            lambda m: template(m)["metadata"]["labels"].update({"nimlab.dev/component": "loki"}),
            "nimp2p-exp-evil",
        ),
        "label `nimlab.dev/component`",
    ),
    "others' addresses": (
        changed("Service", "nimp2p-exp-blue", lambda m: m["spec"].update(EVIL_IP), "nimp2p-exp-evil"),
        "without external IPs",
    ),
    "a port of every node": (
        changed(
            "Service",
            "nimp2p-exp-blue",
            lambda m: m["spec"].update(type="NodePort", clusterIP=""),
            "nimp2p-exp-evil",
        ),
        "without external IPs",
    ),
    "its pods' traffic": (
        changed("NetworkPolicy", "nimp2p-exp-blue", replaced("podSelector", {}), "nimp2p-exp-evil"),
        "may only select pods by the label",
    ),
    "its pods' eviction": (budget, "may only select pods by the label"),
    "a quota": (bounds("ResourceQuota", {"hard": {"pods": "0"}}), RIGHT),
    "limits": (bounds("LimitRange", {"limits": [{"type": "Pod", "max": {"cpu": "1m"}}]}), RIGHT),
}
"""Attacks of the experiments' account on the platform, and the text of each refusal."""

WITH_NAMESPACES: dict[str, tuple[Attack, str]] = {
    "a quota": (ON_PLATFORM["a quota"][0], "may not write quotas"),
    "limits": (ON_PLATFORM["limits"][0], "may not write quotas"),
    "the lab's namespace": (lambda g: g.delete("Namespace", g.lab.namespace, ""), NAMES),
    "a namespace of another name": (namespace("evil"), NAMES),
    "another namespace": (namespace("kube-system"), NAMES),
    "what is in another": (config_map("nimp2p-exp-evil", "default"), NAMES),
    "a role in its own": (lambda g: g.delete("Role", "lab-discovery", g.own), RIGHT),
}
"""The same attacks by an account that may create namespaces."""

ON_EXPERIMENTS: dict[str, tuple[Attack, str]] = {
    "a spec": (lambda g: g.delete("ConfigMap", "nimp2p-exp-blue-spec"), NAMES),
    "the record": (lambda g: g.delete("ConfigMap", "nimlab-experiments"), NAMES),
    "a service": (changed("Service", "nimp2p-exp-blue", replaced("selector", {"a": "b"})), NAMES),
    "a new name": (config_map("nimp2p-exp-evil"), NAMES),
    "the lock": (lambda g: g.take_lock(EXPERIMENTS), RIGHT),
    "a workload": (lambda g: g.delete("StatefulSet", "nimp2p-exp-blue"), RIGHT),
    "a peer": (lambda g: g.delete("Pod", "nimp2p-exp-blue-0"), RIGHT),
    "a policy": (lambda g: g.delete("NetworkPolicy", "nimp2p-exp-blue"), RIGHT),
    "the other label": (
        lambda g: config_map("lab-evil", labels=label_of(EXPERIMENTS)(g))(g),
        "may not set the label of another apply-set",
    ),
    "its account's rights": (lambda g: g.delete("RoleBinding", "nimlab-sync"), RIGHT),
    "its account": (pods(lambda p: p.update(serviceAccountName="nimlab-sync")), "service accounts `default`"),
    "its token, made": (
        secret("lab-evil", "kubernetes.io/service-account-token", "nimlab-sync"),
        "may only create the Secret",
    ),
    "its token, under the password's name": (
        secret("lab-grafana-admin", "kubernetes.io/service-account-token", "nimlab-sync"),
        "may only create the Secret",
    ),
    "its token, mounted": (pods(volume("secret", {"secretName": "nimlab-sync"})), "may not mount Secrets"),
    "its token, in env": (pods(container(env=TOKEN_ENV)), "may not pass other Secrets"),
    "its token, in envFrom": (
        pods(container(envFrom=[{"secretRef": {"name": "nimlab-sync"}}])),
        "may not pass other Secrets",
    ),
    "more rights": (
        changed(
            "Role", "lab-discovery", lambda m: m["rules"][0].update(resources=["configmaps"], verbs=["patch"])
        ),
        "right to read pods",
    ),
    "rights that it hasn't": (
        changed("Role", "lab-discovery", lambda m: m["rules"][0].update(verbs=["delete"])),
        GRANT,
    ),
    "rights on the cluster": (
        lambda g: changed(
            "ClusterRole",
            f"lab-prometheus-{g.lab.namespace}",
            lambda m: m["rules"][0].update(
                apiGroups=["rbac.authorization.k8s.io"], resources=["clusterroles"], verbs=["list"]
            ),
        )(g),
        "right to read nodes/metrics",
    ),
    "rights for others": (
        changed("RoleBinding", "lab-discovery", lambda m: m["subjects"][0].update(name="default")),
        "may only grant rights to its own service accounts",
    ),
    "another role": (
        changed("Role", "lab-discovery", lambda _: None, "lab-evil"),
        RIGHT,
    ),
    "a peer of its own": (
        changed(
            "Deployment",
            "lab-loki",
            lambda m: template(m)["metadata"]["labels"].update(experiment="blue"),
            "lab-evil",
        ),
        "label `experiment`",
    ),
    "the node's network": (pods(lambda p: p.update(hostNetwork=True)), "host namespaces in DaemonSets"),
    "a folder of the node": (pods(volume("hostPath", {"path": "/"})), "host paths only in DaemonSets"),
    "a folder of the node, to write": (
        pods(
            lambda p: p["containers"][0]["volumeMounts"][0].pop("readOnly"), "DaemonSet", "lab-node-exporter"
        ),
        "may only write to the host path",
    ),
    "a privileged agent": (
        pods(container(securityContext={"privileged": True}), "DaemonSet", "lab-node-exporter"),
        "may not create privileged containers",
    ),
    "a capability": (
        pods(container(securityContext={"capabilities": {"add": ["NET_ADMIN"]}})),
        "may not create privileged containers",
    ),
    "others' addresses": (
        changed("Service", "lab-loki", lambda m: m["spec"].update(EVIL_IP), "lab-evil"),
        "without external IPs",
    ),
    "what is in another namespace": (config_map("lab-evil", "default"), RIGHT),
}
"""Attacks of the platform's account on experiments, and the text of each refusal."""

WITH_DISCOVERY: dict[str, tuple[Attack, str]] = {
    "what is in an experiment's namespace": (lambda g: config_map("lab-evil", g.own)(g), RIGHT),
    "a role elsewhere": (
        changed("Role", "lab-discovery", lambda m: m["metadata"].update(namespace="default")),
        NAMES,
    ),
}
"""The same attacks by an account that may read pods in the namespaces of experiments."""
