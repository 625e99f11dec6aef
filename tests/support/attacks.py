"""Attempts to change one apply-set with the account of the other, and the expected message of each rejection.

Writes are dry runs. Deletions are real: if the server allowed a deletion, the object would be deleted.
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
"""Text that each rejection for a missing permission contains."""
GRANT = "attempting to grant"
"""Text of the server's rejection if an account grants permissions that it does not have."""
NAMES = "may only write objects named"


@dataclass(frozen=True, slots=True)
class AttackTarget:
    """A lab with two apply-sets. The account of one apply-set tries to change the objects of the other.

    `own` is the namespace of an experiment that has its own namespace.
    """

    lab: Lab
    account: KubeCluster
    manifests: Mapping[tuple[str, str], Manifest]
    own: str

    def changed_object(
        self, kind: str, name: str, change: Callable[[Any], object], new: str | None = None
    ) -> Manifest:
        """Return a changed copy of a rendered object. `new` is the name of the copy; None keeps the name."""
        manifest = copy.deepcopy(self.manifests[kind, name])
        if new is not None:
            manifest["metadata"]["name"] = new
        change(manifest)
        return manifest

    def apply(self, manifest: Manifest) -> None:
        """Try to write an object, by a dry run."""
        self.account.apply(manifest, manager="nimlab", force=True, dry_run=True)

    def delete(self, kind: str, name: str, namespace: str | None = None) -> None:
        """Try to delete an existing object."""
        key = ObjectKey(kind, self.lab.namespace if namespace is None else namespace, name)
        live = self.lab.cluster.get(key)
        assert live is not None, f"{key} does not exist"
        self.account.delete(
            key,
            uid=live["metadata"]["uid"],
            resource_version=None,
            propagation=Propagation.BACKGROUND,
        )

    def take_lock(self, apply_set: str) -> None:
        """Try to update the lease of an apply-set."""
        live = self.lab.get("Lease", f"nimlab-{apply_set}")
        assert live is not None
        self.account.replace(live)


Attack = Callable[[AttackTarget], object]


def pod_template(manifest: Any) -> Any:
    """Return the pod template of a workload."""
    return manifest["spec"]["template"]


def create_peers(change: Callable[[Any], object]) -> Attack:
    """Create the StatefulSet of a new experiment with a change in the pod spec."""
    return lambda target: target.apply(
        target.changed_object(
            "StatefulSet", "nimp2p-exp-blue", lambda m: change(pod_template(m)["spec"]), "nimp2p-exp-evil"
        )
    )


def create_pods(change: Callable[[Any], object], kind: str = "Deployment", name: str = "lab-loki") -> Attack:
    """Create a new workload of the platform with a change in the pod spec."""
    return lambda target: target.apply(
        target.changed_object(kind, name, lambda m: change(pod_template(m)["spec"]), "lab-evil")
    )


def with_volume(source: str, fields: dict[str, Any]) -> Callable[[Any], object]:
    """Return a change that adds a volume to a pod."""
    return lambda pod: pod.setdefault("volumes", []).append({"name": "evil", source: fields})


def with_container(**fields: Any) -> Callable[[Any], object]:
    """Return a change that sets fields of a pod's first container."""
    return lambda pod: pod["containers"][0].update(fields)


def write_changed(kind: str, name: str, change: Callable[[Any], object], new: str | None = None) -> Attack:
    """Write a rendered object with a change."""
    return lambda target: target.apply(target.changed_object(kind, name, change, new))


def write_config_map(name: str, namespace: str | None = None, **metadata: Any) -> Attack:
    """Write a ConfigMap with this name; `metadata` contains further fields of its metadata."""
    return lambda target: target.apply({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace or target.lab.namespace, **metadata},
        "data": {"prometheus.yaml": "evil"},
    })  # fmt: skip


def write_namespace(name: str) -> Attack:
    """Create a namespace with a label, or add the label if the namespace exists."""
    metadata = {"name": name, "labels": {"evil": "true"}}
    return lambda target: target.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})


def create_secret(name: str, kind: str, of: str) -> Attack:
    """Create a Secret for a service account. For the type of tokens, the server adds a token."""
    return lambda target: target.account.create({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": kind,
        "metadata": {
            "name": name,
            "namespace": target.lab.namespace,
            "annotations": {"kubernetes.io/service-account.name": of},
        },
    })  # fmt: skip


def write_limits(kind: str, spec: dict[str, Any]) -> Attack:
    """Write an object that limits all pods of the lab's namespace."""
    return lambda target: target.apply({
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {"name": "nimp2p-exp-evil", "namespace": target.lab.namespace},
        "spec": spec,
    })  # fmt: skip


def block_eviction(target: AttackTarget) -> None:
    """Forbid the eviction of all pods, including those of the platform."""
    target.apply({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "nimp2p-exp-evil", "namespace": target.lab.namespace},
        "spec": {"maxUnavailable": 0, "selector": {}},
    })  # fmt: skip


def delete_prometheus_pod(target: AttackTarget) -> None:
    """Delete the pod of Prometheus."""
    target.lab.kubectl("wait", "--for=create", "pod", "-l", f"{COMPONENT}=prometheus", "--timeout=60s")
    (pod,) = (name for name in target.lab.names("Pod") if name.startswith("lab-prometheus-"))
    target.delete("Pod", pod)


def label_of(apply_set: str) -> Callable[[AttackTarget], dict[str, str]]:
    """Return a function that returns the label of the members of this apply-set."""
    return lambda target: {PART_OF: ApplySet(name=apply_set, namespace=target.lab.namespace).id}


def set_spec(field: str, value: object) -> Callable[[Any], object]:
    """Return a change that sets a field of an object's spec."""
    return lambda manifest: manifest["spec"].update({field: value})


SECRET_ENV = [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "lab-grafana-admin", "key": "password"}}}]
TOKEN_ENV = [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "nimlab-sync", "key": "token"}}}]
TOKEN = {"sources": [{"serviceAccountToken": {"path": "token"}}]}
CLAIM = {"metadata": {"name": "a"}, "spec": {"accessModes": ["ReadWriteOnce"],
         "resources": {"requests": {"storage": "1Gi"}}}}  # fmt: skip
EVIL_IP = {"externalIPs": ["192.0.2.1"]}

ON_PLATFORM: dict[str, tuple[Attack, str]] = {
    "write the Prometheus configuration": (write_config_map("lab-prometheus-config"), NAMES),
    "use a name of the platform": (write_config_map("lab-evil"), NAMES),
    "delete the parent": (lambda target: target.delete("ConfigMap", "nimlab-platform"), NAMES),
    "delete a Service": (lambda target: target.delete("Service", "lab-loki"), NAMES),
    "delete a pod": (delete_prometheus_pod, NAMES),
    "update the lease": (lambda target: target.take_lock(PLATFORM), RIGHT),
    "delete a Deployment": (lambda target: target.delete("Deployment", "lab-loki"), RIGHT),
    "delete a Role": (lambda target: target.delete("Role", "lab-discovery"), RIGHT),
    "create a Secret": (create_secret("nimp2p-exp-evil", "Opaque", "nimlab-sync-platform"), RIGHT),
    "set the label of the platform's apply-set": (
        lambda target: write_config_map("nimp2p-exp-evil", labels=label_of(PLATFORM)(target))(target),
        "may not set the label of another apply-set",
    ),
    "use an account of the platform": (
        create_peers(lambda p: p.update(serviceAccountName="lab-prometheus")),
        "account `default`",
    ),
    "use an account of the platform by the deprecated field": (
        create_peers(lambda p: p.update(serviceAccount="lab-prometheus")),
        "account `default`",
    ),
    "use an account of the platform in an existing workload": (
        write_changed(
            "StatefulSet",
            "nimp2p-exp-blue",
            lambda m: pod_template(m)["spec"].update(serviceAccountName="lab-prometheus"),
        ),
        "account `default`",
    ),
    "mount a Secret": (
        create_peers(with_volume("secret", {"secretName": "lab-grafana-admin"})),
        "may not mount Secrets",
    ),
    "mount a token": (create_peers(with_volume("projected", TOKEN)), "may not mount Secrets"),
    "mount a claim": (
        create_peers(with_volume("persistentVolumeClaim", {"claimName": "lab-loki"})),
        "may not mount Secrets",
    ),
    "mount a folder of the node": (
        create_peers(with_volume("hostPath", {"path": "/"})),
        "may not mount Secrets",
    ),
    "create claims by a template": (
        write_changed(
            "StatefulSet", "nimp2p-exp-blue", set_spec("volumeClaimTemplates", [CLAIM]), "nimp2p-exp-evil"
        ),
        "volume claim templates",
    ),
    "read a Secret through env": (create_peers(with_container(env=SECRET_ENV)), "may not pass other Secrets"),
    "read a Secret through envFrom": (
        create_peers(with_container(envFrom=[{"secretRef": {"name": "lab-grafana-admin"}}])),
        "may not pass other Secrets",
    ),
    "read a Secret in an init container": (
        create_peers(lambda p: p["initContainers"][0].update(env=SECRET_ENV)),
        "may not pass other Secrets",
    ),
    "use the node's network": (create_peers(lambda p: p.update(hostNetwork=True)), "host namespaces"),
    "see the node's processes": (create_peers(lambda p: p.update(hostPID=True)), "host namespaces"),
    "use the node's shared memory": (create_peers(lambda p: p.update(hostIPC=True)), "host namespaces"),
    "preempt other pods": (
        create_peers(lambda p: p.update(priorityClassName="system-node-critical")),
        "host namespaces",
    ),
    "run a privileged container": (
        create_peers(with_container(securityContext={"privileged": True})),
        "may not create privileged containers",
    ),
    "add a capability": (
        create_peers(with_container(securityContext={"capabilities": {"add": ["SYS_ADMIN"]}})),
        "may not create privileged containers",
    ),
    "use a port of the node": (
        create_peers(with_container(ports=[{"containerPort": 9100, "hostPort": 9100}])),
        "may not use host ports",
    ),
    "receive the platform's traffic by its label": (
        write_changed(
            "StatefulSet",
            "nimp2p-exp-blue",
            lambda m: pod_template(m)["metadata"]["labels"].update({"nimlab.dev/component": "loki"}),
            "nimp2p-exp-evil",
        ),
        "label `nimlab.dev/component`",
    ),
    "claim external addresses": (
        write_changed("Service", "nimp2p-exp-blue", lambda m: m["spec"].update(EVIL_IP), "nimp2p-exp-evil"),
        "without external IPs",
    ),
    "use a port of every node": (
        write_changed(
            "Service",
            "nimp2p-exp-blue",
            lambda m: m["spec"].update(type="NodePort", clusterIP=""),
            "nimp2p-exp-evil",
        ),
        "without external IPs",
    ),
    "block the traffic of the platform's pods": (
        write_changed("NetworkPolicy", "nimp2p-exp-blue", set_spec("podSelector", {}), "nimp2p-exp-evil"),
        "may only select pods by the label",
    ),
    "block the eviction of the platform's pods": (block_eviction, "may only select pods by the label"),
    "write a quota": (write_limits("ResourceQuota", {"hard": {"pods": "0"}}), RIGHT),
    "write limits": (write_limits("LimitRange", {"limits": [{"type": "Pod", "max": {"cpu": "1m"}}]}), RIGHT),
}
"""Attempts of the experiments' account, by name, with the text that each rejection must contain."""

WITH_NAMESPACES: dict[str, tuple[Attack, str]] = {
    "write a quota": (ON_PLATFORM["write a quota"][0], "may not write quotas"),
    "write limits": (ON_PLATFORM["write limits"][0], "may not write quotas"),
    "delete the lab's namespace": (
        lambda target: target.delete("Namespace", target.lab.namespace, ""),
        NAMES,
    ),
    "create a namespace with another name": (write_namespace("evil"), NAMES),
    "label a system namespace": (write_namespace("kube-system"), NAMES),
    "write into another namespace": (write_config_map("nimp2p-exp-evil", "default"), NAMES),
    "delete a Role in an experiment's namespace": (
        lambda target: target.delete("Role", "lab-discovery", target.own),
        RIGHT,
    ),
}
"""Further attempts of the experiments' account if it may create namespaces."""

ON_EXPERIMENTS: dict[str, tuple[Attack, str]] = {
    "delete a ConfigMap": (lambda target: target.delete("ConfigMap", "nimp2p-exp-blue-spec"), NAMES),
    "delete the parent": (lambda target: target.delete("ConfigMap", "nimlab-experiments"), NAMES),
    "change a Service": (
        write_changed("Service", "nimp2p-exp-blue", set_spec("selector", {"a": "b"})),
        NAMES,
    ),
    "use a name of an experiment": (write_config_map("nimp2p-exp-evil"), NAMES),
    "update the lease": (lambda target: target.take_lock(EXPERIMENTS), RIGHT),
    "delete a workload": (lambda target: target.delete("StatefulSet", "nimp2p-exp-blue"), RIGHT),
    "delete a peer": (lambda target: target.delete("Pod", "nimp2p-exp-blue-0"), RIGHT),
    "delete a NetworkPolicy": (lambda target: target.delete("NetworkPolicy", "nimp2p-exp-blue"), RIGHT),
    "set the label of the experiments' apply-set": (
        lambda target: write_config_map("lab-evil", labels=label_of(EXPERIMENTS)(target))(target),
        "may not set the label of another apply-set",
    ),
    "delete the rights of the experiments' account": (
        lambda target: target.delete("RoleBinding", "nimlab-sync"),
        RIGHT,
    ),
    "use the experiments' account": (
        create_pods(lambda p: p.update(serviceAccountName="nimlab-sync")),
        "service accounts `default`",
    ),
    "create a token of the experiments' account": (
        create_secret("lab-evil", "kubernetes.io/service-account-token", "nimlab-sync"),
        "may only create the Secret",
    ),
    "create a token under the name of the password": (
        create_secret("lab-grafana-admin", "kubernetes.io/service-account-token", "nimlab-sync"),
        "may only create the Secret",
    ),
    "mount the token of the experiments' account": (
        create_pods(with_volume("secret", {"secretName": "nimlab-sync"})),
        "may not mount Secrets",
    ),
    "read the token through env": (create_pods(with_container(env=TOKEN_ENV)), "may not pass other Secrets"),
    "read the token through envFrom": (
        create_pods(with_container(envFrom=[{"secretRef": {"name": "nimlab-sync"}}])),
        "may not pass other Secrets",
    ),
    "grant more rights": (
        write_changed(
            "Role", "lab-discovery", lambda m: m["rules"][0].update(resources=["configmaps"], verbs=["patch"])
        ),
        "right to read pods",
    ),
    "grant rights that the account does not have": (
        write_changed("Role", "lab-discovery", lambda m: m["rules"][0].update(verbs=["delete"])),
        GRANT,
    ),
    "grant cluster-wide rights": (
        lambda target: write_changed(
            "ClusterRole",
            f"lab-prometheus-{target.lab.namespace}",
            lambda m: m["rules"][0].update(
                apiGroups=["rbac.authorization.k8s.io"], resources=["clusterroles"], verbs=["list"]
            ),
        )(target),
        "right to read nodes/metrics",
    ),
    "grant rights to another account": (
        write_changed("RoleBinding", "lab-discovery", lambda m: m["subjects"][0].update(name="default")),
        "may only grant rights to its own service accounts",
    ),
    "create another Role": (
        write_changed("Role", "lab-discovery", lambda _: None, "lab-evil"),
        RIGHT,
    ),
    "create a pod with the label of an experiment": (
        write_changed(
            "Deployment",
            "lab-loki",
            lambda m: pod_template(m)["metadata"]["labels"].update(experiment="blue"),
            "lab-evil",
        ),
        "label `experiment`",
    ),
    "use the node's network": (
        create_pods(lambda p: p.update(hostNetwork=True)),
        "host namespaces in DaemonSets",
    ),
    "mount a folder of the node": (
        create_pods(with_volume("hostPath", {"path": "/"})),
        "host paths only in DaemonSets",
    ),
    "write to a folder of the node": (
        create_pods(
            lambda p: p["containers"][0]["volumeMounts"][0].pop("readOnly"), "DaemonSet", "lab-node-exporter"
        ),
        "may only write to the host path",
    ),
    "run a privileged DaemonSet": (
        create_pods(with_container(securityContext={"privileged": True}), "DaemonSet", "lab-node-exporter"),
        "may not create privileged containers",
    ),
    "add a capability": (
        create_pods(with_container(securityContext={"capabilities": {"add": ["NET_ADMIN"]}})),
        "may not create privileged containers",
    ),
    "claim external addresses": (
        write_changed("Service", "lab-loki", lambda m: m["spec"].update(EVIL_IP), "lab-evil"),
        "without external IPs",
    ),
    "write into another namespace": (write_config_map("lab-evil", "default"), RIGHT),
}
"""Attempts of the platform's account, by name, with the text that each rejection must contain."""

WITH_DISCOVERY: dict[str, tuple[Attack, str]] = {
    "write into an experiment's namespace": (
        lambda target: write_config_map("lab-evil", target.own)(target),
        RIGHT,
    ),
    "write a Role in another namespace": (
        write_changed("Role", "lab-discovery", lambda m: m["metadata"].update(namespace="default")),
        NAMES,
    ),
}
"""Further attempts of the platform's account if it may discover pods in the experiments' namespaces."""
