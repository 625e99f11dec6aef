"""The managedFields rule against the server's own word, on random objects after random edits by others.

Truth is a server dry-run of the apply, held against the object: equal, and owned alike, means that an apply
changes nothing. The rule may suspect such an object; it must never call another one unchanged.
`NIMLAB_EXAMPLES` and `NIMLAB_SEED` set how many and which.
"""

from __future__ import annotations

import copy
import json
import os
import random
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nimlab.cluster import Propagation
from nimlab.errors import ClusterError
from nimlab.fields import compare, own_entry
from nimlab.kube import KubeCluster
from nimlab.manifest import KINDS, Manifest, ObjectKey, canonical, key_of
from nimlab.owned import FIELD_MANAGER, ApplySet, stamp
from nimlab.units import UnitError
from tests.live import remove_namespaces

pytestmark = pytest.mark.live

EXAMPLES = int(os.environ.get("NIMLAB_EXAMPLES", "400"))
WORDS = ["a", "b", "", "true", "5", "x: y", "two\nlines\n", "é 😀", "{{ x }}", " lead", "0.05"]


class Dice:
    """Random choices that a seed repeats."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 -- test data

    def word(self) -> str:
        """Some text."""
        return self.random.choice(WORDS)

    def subset(self, names: list[str]) -> list[str]:
        """Some of the names, in some order."""
        return self.random.sample(names, self.random.randint(0, len(names)))

    def chance(self, share: float) -> bool:
        """True in that share of the cases."""
        return self.random.random() < share


def container(dice: Dice, name: str) -> dict[str, Any]:
    """A container as a template could render it, canonical or not."""
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
    """A StatefulSet's spec; no peers, so that nothing has to run."""
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
    """A headless Service's spec."""
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
    """A NetworkPolicy's spec."""
    peer = {"podSelector": {"matchLabels": {"app": dice.random.choice("xy")}}}
    ports = [{"port": p, "protocol": "TCP"} for p in (53, 8008) if dice.chance(0.6)]
    return {
        "podSelector": dice.random.choice([{}, {"matchLabels": {"app": "x"}}]),
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [peer], "ports": ports}, *([{}] if dice.chance(0.2) else [])],
    }


def configmap_data(dice: Dice) -> dict[str, str]:
    """A ConfigMap's data."""
    return {k: dice.word() for k in dice.subset(["a", "b", "c.d", "e"])}


BODIES: dict[str, Callable[[Dice], dict[str, Any]]] = {
    "ConfigMap": lambda dice: {"data": configmap_data(dice)},
    "Service": lambda dice: {"spec": service_spec(dice)},
    "StatefulSet": lambda dice: {"spec": statefulset_spec(dice)},
    "NetworkPolicy": lambda dice: {"spec": policy_spec(dice)},
}


def make_desired(dice: Dice, namespace: str, name: str) -> Manifest:
    """A random object of a kind that experiments have."""
    kind = dice.random.choice(["ConfigMap", "Service", "StatefulSet", "StatefulSet", "NetworkPolicy"])
    body = BODIES[kind](dice)
    annotations = {f"x/{k}": dice.word() for k in dice.subset(["a", "b"])}
    plain = {
        "apiVersion": KINDS[kind].api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"experiment": "x"},
            "annotations": annotations,
        },
        **body,
    }
    return stamp(canonical(plain), ApplySet(name="experiments", namespace=namespace))


def send(cluster: KubeCluster, method: str, key: ObjectKey, body: object, how: str, tail: str = "") -> None:
    """Write as another manager; what the server refuses leaves the object as it is."""
    kind = KINDS[key.kind]
    base = f"/apis/{kind.api_version}" if kind.group else "/api/v1"
    path = f"{base}/namespaces/{key.namespace}/{kind.plural}/{key.name}{tail}?fieldManager={how}"
    content = {"PUT": "application/json", "PATCH": "application/merge-patch+json"}[method]
    if isinstance(body, list):
        content = "application/json-patch+json"
    try:
        cluster._json(
            method,
            path,
            verb=method,
            where=str(key),
            body=json.dumps(body).encode(),
            content_type=content,
        )
    except ClusterError:
        return


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every path in a value."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ())
    for key, item in items:
        yield from leaves(item, (*path, key))


def mutate(dice: Dice, value: dict[str, Any]) -> None:
    """Change, remove, add or reorder something in place."""
    paths = list(leaves(value))
    if not paths:
        return
    *above, last = dice.random.choice(paths)
    inner: Any = value
    for part in above:
        inner = inner[part]
    item = inner[last]
    roll = dice.random.random()
    if isinstance(item, list) and roll < 0.6:
        dice.random.shuffle(item)
    elif isinstance(item, dict) and roll < 0.4:
        item["added"] = "x"
    elif roll < 0.6 and isinstance(item, bool):
        inner[last] = not item
    elif roll < 0.6 and isinstance(item, int):
        inner[last] = item + 1
    elif roll < 0.6 and isinstance(item, str):
        inner[last] = dice.word() or "z"
    elif isinstance(inner, dict):
        del inner[last]
    elif isinstance(inner, list):
        inner.pop(last)


def edit_put(dice: Dice, cluster: KubeCluster, live: Manifest) -> None:
    """An Update by another manager."""
    changed = copy.deepcopy(live)
    part = next((p for p in ("spec", "data") if changed.get(p)), "metadata")
    for _ in range(dice.random.randint(1, 2)):
        mutate(dice, changed[part] if part != "metadata" else changed["metadata"].setdefault("labels", {}))
    changed["metadata"].pop("managedFields", None)
    send(cluster, "PUT", key_of(live), changed, "editor")


def edit_labels(dice: Dice, cluster: KubeCluster, live: Manifest) -> None:
    """A label or annotation, ours or new."""
    name = dice.random.choice(["experiment", "team"])
    body = {"metadata": {"labels": {name: dice.random.choice(["x", "y", None])}}}
    send(cluster, "PATCH", key_of(live), body, "kubectl-label")


def edit_scale(dice: Dice, cluster: KubeCluster, live: Manifest) -> None:
    """The scale subresource."""
    if live["kind"] == "StatefulSet":
        body = {"spec": {"replicas": dice.random.choice([0, 1])}}
        send(cluster, "PATCH", key_of(live), body, "kubectl", tail="/scale")


def edit_status(dice: Dice, cluster: KubeCluster, live: Manifest) -> None:
    """The status subresource: not our business."""
    if live["kind"] == "StatefulSet":
        body = {"status": {"replicas": dice.random.choice([0, 2])}}
        send(cluster, "PATCH", key_of(live), body, "controller", tail="/status")


def edit_apply(dice: Dice, cluster: KubeCluster, live: Manifest) -> None:
    """A forced apply by another manager of a part of the object."""
    part = {k: live[k] for k in ("apiVersion", "kind")}
    part["metadata"] = {k: live["metadata"][k] for k in ("name", "namespace")}
    if live["kind"] == "ConfigMap":
        part["data"] = {k: dice.word() for k in dice.subset(["a", "z"])}
    elif live["kind"] == "StatefulSet":
        env = [{"name": dice.random.choice("AZ"), "value": dice.word() or "q"}]
        part["spec"] = {
            "selector": live["spec"]["selector"],
            "template": {"spec": {"containers": [{"name": "main", "env": env}]}},
        }
    else:
        part["metadata"]["labels"] = {"experiment": dice.random.choice("xy")}
    try:
        cluster.apply(part, manager="other", force=True, dry_run=False)
    except ClusterError:
        return


def edit_reset(dice: Dice, cluster: KubeCluster, live: Manifest) -> None:
    """Somebody wipes managedFields."""
    del dice
    patch = [{"op": "replace", "path": "/metadata/managedFields", "value": [{}]}]
    send(cluster, "PATCH", key_of(live), patch, "wiper")


EDITS: list[Callable[[Dice, KubeCluster, Manifest], None]] = [
    edit_put, edit_put, edit_put, edit_labels, edit_scale, edit_status, edit_apply, edit_reset,
]  # fmt: skip


def change_desired(dice: Dice, desired: Manifest) -> Manifest:
    """What Git may ask for next: the same, or something changed, dropped or reordered."""
    changed = copy.deepcopy(desired)
    part = next((p for p in ("spec", "data") if changed.get(p)), None)
    if part is not None and dice.chance(0.3):
        mutate(dice, changed[part])
    try:
        return canonical(changed)
    except UnitError:  # the templates would have been refused
        return desired


def bare(live: Manifest) -> Manifest:
    """The object without what every write moves, and what its controller writes meanwhile."""
    kept = copy.deepcopy(live)
    kept.pop("status", None)
    for name in ("managedFields", "resourceVersion", "generation"):
        kept["metadata"].pop(name, None)
    return kept


def would_change(cluster: KubeCluster, desired: Manifest, live: Manifest) -> bool | None:
    """The server's word; None when it refuses the apply, so that nothing may be called unchanged."""
    try:
        predicted = cluster.apply(desired, manager=FIELD_MANAGER, force=False, dry_run=True)
    except ClusterError:
        return None
    return bare(predicted) != bare(live) or own_entry(predicted) != own_entry(live)


def test_rule_never_says_unchanged_when_the_server_would_change_something(
    cluster: KubeCluster, figure: Callable[[str], None]
) -> None:
    seed = int(os.environ.get("NIMLAB_SEED") or secrets.randbelow(10**9))
    dice = Dice(seed)
    namespace = f"detector-{secrets.token_hex(4)}"
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    seen: Counter[str] = Counter()
    try:
        for number in range(EXAMPLES):
            key = one_example(dice, cluster, namespace, f"x{number}", seen, seed)
            live = cluster.get(key)
            if live is not None:
                cluster.delete(
                    key,
                    uid=live["metadata"]["uid"],
                    resource_version=None,
                    propagation=Propagation.BACKGROUND,
                )
    finally:
        remove_namespaces(cluster, [namespace])
    figure(
        f"detector: {sum(seen.values())} examples, seed {seed}: {seen['unchanged']} rightly unchanged, "
        f"{seen['changed']} suspects that change, {seen['refused']} that the server refuses, "
        f"{seen['false-suspect']} false suspects, 0 false-unchanged"
    )
    assert seen["unchanged"] > EXAMPLES / 20
    assert seen["changed"] > EXAMPLES / 20
    assert seen["false-suspect"] <= max(3, EXAMPLES // 50)


def one_example(
    dice: Dice, cluster: KubeCluster, namespace: str, name: str, seen: Counter[str], seed: int
) -> ObjectKey:
    """Apply, let others edit, ask the rule and the server."""
    desired = make_desired(dice, namespace, name)
    key = key_of(desired)
    live = cluster.apply(desired, manager=FIELD_MANAGER, force=False, dry_run=False)
    assert compare(desired, live).unchanged, compare(desired, live).reason
    for _ in range(dice.random.randint(0, 3)):
        dice.random.choice(EDITS)(dice, cluster, live)
        found = cluster.get(key)
        assert found is not None
        live = found
    wanted = change_desired(dice, desired)
    verdict = compare(wanted, live)
    truth = would_change(cluster, wanted, live)
    if verdict.unchanged:
        assert truth is False, f"seed {seed}, {name}: {json.dumps([wanted, live])}"
        seen["unchanged"] += 1
    elif truth is None:
        seen["refused"] += 1
    else:
        seen["changed" if truth else "false-suspect"] += 1
    return key
