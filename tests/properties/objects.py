"""Random objects of every kind that nimlab renders, in canonical and other notations."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from nimlab.objects.applyset import EXPERIMENTS, PLATFORM, ApplySet, stamp
from nimlab.objects.canonical_form import canonical
from nimlab.objects.kinds_and_order import KINDS
from nimlab.objects.manifest import Manifest

WORDS = ["a", "b", "", "true", "5", "x: y", "two\nlines\n", "é 😀", "{{ x }}", " lead", "0.05"]


class Dice:
    """Random choices. Hypothesis makes them, so it can repeat and simplify them."""

    def __init__(self, source: random.Random) -> None:
        self.random = source

    def word(self) -> str:
        """Return a random text."""
        return self.random.choice(WORDS)

    def subset(self, names: list[str]) -> list[str]:
        """Return some of the names, in random order."""
        return self.random.sample(names, self.random.randint(0, len(names)))

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return self.random.random() < probability


def container(dice: Dice, name: str) -> dict[str, Any]:
    """Return a container as a template could render it, canonical or not."""
    ports = [
        {"containerPort": p, "name": f"p{p}", **({"protocol": "UDP"} if dice.chance(0.3) else {})}
        for p in (5000, 8008)
        if dice.chance(0.7)
    ]
    cpu = dice.random.choice(["50m", 0.05, "1000m", 1, "1.5"])
    memory = dice.random.choice(["16Mi", "1024Mi", "67108864"])
    return {
        "name": name,
        "image": f"a/{dice.random.choice('bc')}:1",
        "env": [{"name": n, "value": dice.word()} for n in dice.subset(["A", "B", "C", "D"])],
        "ports": ports,
        "resources": {"limits": {"cpu": cpu, "memory": memory}},
        **({"args": [dice.word() or "x" for _ in range(2)]} if dice.chance(0.3) else {}),
        **({"securityContext": {}} if dice.chance(0.2) else {}),
    }


def statefulset_spec(dice: Dice) -> dict[str, Any]:
    """Return the spec of a StatefulSet without peers, so that no pods have to run."""
    pod: dict[str, Any] = {"containers": [container(dice, n) for n in ("main", "side")]}
    if dice.chance(0.6):
        pod["initContainers"] = [container(dice, n) for n in dice.subset(["i1", "i2", "i3"])]
    if dice.chance(0.4):
        pod["volumes"] = [{"name": n, "emptyDir": {}} for n in dice.subset(["v1", "v2"])]
    if dice.chance(0.3):
        pod["nodeSelector"] = {"never": "here"}
    if dice.chance(0.3):
        pod["tolerations"] = [{"key": "a", "operator": "Exists"}]
    return {
        "replicas": 0,
        "serviceName": "s",
        "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": dice.random.choice(["OnDelete", "RollingUpdate"])},
        "selector": {"matchLabels": {"app": "x"}},
        "template": {"metadata": {"labels": {"app": "x", "b": dice.word() and "b"}}, "spec": pod},
    }


def service_spec(dice: Dice) -> dict[str, Any]:
    """Return the spec of a headless Service."""
    ports = [
        {"name": f"p{p}{q.lower()}", "port": p, "protocol": q, "targetPort": p}
        for p in (5000, 8008)
        for q in ("TCP", "UDP")
        if dice.chance(0.7)
    ]
    dice.random.shuffle(ports)
    ports = ports or [{"name": "one", "port": 1}]
    return {
        "clusterIP": "None",
        "ports": ports,
        "selector": {"app": "x"},
        "publishNotReadyAddresses": dice.chance(0.5),
    }


def policy_spec(dice: Dice) -> dict[str, Any]:
    """Return the spec of a NetworkPolicy."""
    peer = {"podSelector": {"matchLabels": {"app": dice.random.choice("xy")}}}
    ports = [{"port": p, "protocol": "TCP"} for p in (53, 8008) if dice.chance(0.6)]
    return {
        "podSelector": dice.random.choice([{}, {"matchLabels": {"app": "x"}}]),
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [peer], "ports": ports}, *([{}] if dice.chance(0.2) else [])],
    }


def configmap_data(dice: Dice) -> dict[str, str]:
    """Return the data of a ConfigMap."""
    return {k: dice.word() for k in dice.subset(["a", "b", "c.d", "e"])}


def quota_spec(dice: Dice) -> dict[str, Any]:
    """Return the spec of a ResourceQuota; the server writes 1000 pods as `1k`."""
    amounts: dict[str, list[Any]] = {
        "pods": ["1000", 1000, "7"],
        "requests.cpu": ["0.5", "500m", 2],
        "limits.memory": ["1024Mi", "1Gi"],
    }
    return {
        "hard": {name: dice.random.choice(amounts[name]) for name in dice.subset(sorted(amounts)) or ["pods"]}
    }


def limits_spec(dice: Dice) -> dict[str, Any]:
    """Return the spec of a LimitRange, with all values that the server would default."""
    bounds = {"cpu": dice.random.choice(["1", "1000m", "0.5"])}
    limits = {"default": bounds, "defaultRequest": bounds, "max": bounds}
    return {
        "limits": [
            {"type": "Container", **limits},
            *([{"type": "Pod", "max": bounds}] if dice.chance(0.5) else []),
        ]
    }


def budget_spec(dice: Dice) -> dict[str, Any]:
    """Return the spec of a PodDisruptionBudget."""
    field = dice.random.choice(["minAvailable", "maxUnavailable"])
    return {
        field: dice.random.choice([0, 1, "50%"]),
        "selector": {"matchLabels": {"app": dice.random.choice("xy")}},
    }


def deployment_spec(dice: Dice) -> dict[str, Any]:
    """Return the spec of a Deployment without pods."""
    kept = ("replicas", "selector", "template")
    spec = {name: part for name, part in statefulset_spec(dice).items() if name in kept}
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": dice.random.choice([1, "25%"])}}
    strategy = dice.random.choice([None, {"type": "Recreate"}, rolling])
    return {**spec, "revisionHistoryLimit": 2, **({"strategy": strategy} if strategy else {})}


def daemonset_spec(dice: Dice) -> dict[str, Any]:
    """Return the spec of a DaemonSet that matches no node."""
    spec = statefulset_spec(dice)
    spec["template"]["spec"]["nodeSelector"] = {"never": "here"}
    update = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": dice.random.choice([1, "10%"])}}
    return {
        "selector": spec["selector"],
        "template": spec["template"],
        **({"updateStrategy": update} if dice.chance(0.6) else {}),
    }


def claim_spec(dice: Dice) -> dict[str, Any]:
    """Return the spec of a PersistentVolumeClaim whose class has no provisioner."""
    return {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": dice.random.choice(["1Gi", "1024Mi", "0.5Gi", 1073741824])}},
        **({"storageClassName": "none"} if dice.chance(0.5) else {}),
    }


def account(dice: Dice) -> dict[str, Any]:
    """Return the fields of a ServiceAccount."""
    secrets = [{"name": n} for n in dice.subset(["p", "q"])]
    return {
        "automountServiceAccountToken": dice.chance(0.5),
        **({"imagePullSecrets": secrets} if secrets else {}),
    }


def role_rules(dice: Dice) -> list[dict[str, Any]]:
    """Return rules of a Role; their order matters, because the list is atomic."""
    return [
        {"apiGroups": [""], "resources": dice.subset(["pods", "nodes/metrics"]) or ["pods"], "verbs": verbs}
        for verbs in (["get", "list", "watch"], ["get"])
        if dice.chance(0.7)
    ] or [{"apiGroups": ["apps"], "resources": ["*"], "verbs": ["get"]}]


def binding(dice: Dice, namespace: str, kind: str) -> dict[str, Any]:
    """Return the role and the subjects of a binding."""
    names = dice.subset(["a", "b", "c"]) or ["a"]
    return {
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": "x"},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace} for name in names],
    }


BODIES: dict[str, Callable[[Dice, str], dict[str, Any]]] = {
    "ConfigMap": lambda dice, _: {"data": configmap_data(dice)},
    "Service": lambda dice, _: {"spec": service_spec(dice)},
    "StatefulSet": lambda dice, _: {"spec": statefulset_spec(dice)},
    "NetworkPolicy": lambda dice, _: {"spec": policy_spec(dice)},
    "ResourceQuota": lambda dice, _: {"spec": quota_spec(dice)},
    "LimitRange": lambda dice, _: {"spec": limits_spec(dice)},
    "PodDisruptionBudget": lambda dice, _: {"spec": budget_spec(dice)},
    "Namespace": lambda dice, _: {},
    "Deployment": lambda dice, _: {"spec": deployment_spec(dice)},
    "DaemonSet": lambda dice, _: {"spec": daemonset_spec(dice)},
    "PersistentVolumeClaim": lambda dice, _: {"spec": claim_spec(dice)},
    "ServiceAccount": lambda dice, _: account(dice),
    "Role": lambda dice, _: {"rules": role_rules(dice)},
    "ClusterRole": lambda dice, _: {"rules": role_rules(dice)},
    "RoleBinding": lambda dice, namespace: binding(dice, namespace, "Role"),
    "ClusterRoleBinding": lambda dice, namespace: binding(dice, namespace, "ClusterRole"),
}
PARTS = ("spec", "data", "rules", "subjects", "imagePullSecrets", "automountServiceAccountToken")
"""The fields of an object that `edits.py` may change."""
_OFTEN = [*BODIES, "StatefulSet", "StatefulSet", "Service", "Deployment", "DaemonSet"]


def make_desired(dice: Dice, namespace: str, name: str) -> Manifest:
    """Return a random object of one of the kinds that experiments or the platform contain."""
    kind = dice.random.choice(_OFTEN)
    is_namespaced = KINDS[kind].namespaced
    annotations = {f"x/{k}": dice.word() for k in dice.subset(["a", "b"])}
    plain = {
        "apiVersion": KINDS[kind].api_version,
        "kind": kind,
        "metadata": {
            "name": name if is_namespaced else f"{namespace}-{name}",
            **({"namespace": namespace} if is_namespaced else {}),
            "labels": {"experiment": "x"},
            "annotations": annotations,
        },
        **BODIES[kind](dice, namespace),
    }
    experiments = ApplySet(name=EXPERIMENTS, namespace=namespace)
    is_platform = kind not in experiments.kinds
    return stamp(
        canonical(plain), ApplySet(name=PLATFORM, namespace=namespace) if is_platform else experiments
    )
