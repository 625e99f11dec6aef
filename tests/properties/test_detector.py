"""The managedFields rule against the server's own word, on random objects after random edits by others.

Truth is a server dry-run of the apply, held against the object: equal, and owned alike, means that an apply
changes nothing. The rule may suspect such an object; it must never call another one unchanged.
`NIMLAB_EXAMPLES` and `NIMLAB_SEED` set how many and which.
"""

from __future__ import annotations

import copy
import itertools
import json
import os
import random
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from nimlab.cluster import Propagation
from nimlab.errors import ClusterError
from nimlab.fields import compare, own_entry
from nimlab.handover import effective, handover_of, handover_patch, only_at
from nimlab.kube import KubeCluster
from nimlab.manifest import KINDS, Manifest, ObjectKey, canonical, key_of
from nimlab.owned import FIELD_MANAGER, ApplySet, stamp
from nimlab.units import UnitError
from tests.live import remove_namespaces

pytestmark = pytest.mark.live

EXAMPLES = int(os.environ.get("NIMLAB_EXAMPLES", "2000"))
WORDS = ["a", "b", "", "true", "5", "x: y", "two\nlines\n", "é 😀", "{{ x }}", " lead", "0.05"]


class Dice:
    """Random choices, made by hypothesis, which can repeat and simplify them."""

    def __init__(self, source: random.Random) -> None:
        self.random = source

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


def quota_spec(dice: Dice) -> dict[str, Any]:
    """A ResourceQuota's spec; a thousand pods read differently in the server's words."""
    amounts: dict[str, list[Any]] = {
        "pods": ["1000", 1000, "7"],
        "requests.cpu": ["0.5", "500m", 2],
        "limits.memory": ["1024Mi", "1Gi"],
    }
    return {
        "hard": {name: dice.random.choice(amounts[name]) for name in dice.subset(sorted(amounts)) or ["pods"]}
    }


def limits_spec(dice: Dice) -> dict[str, Any]:
    """A LimitRange's spec, with all that the server would fill in."""
    bounds = {"cpu": dice.random.choice(["1", "1000m", "0.5"])}
    whole = {"default": bounds, "defaultRequest": bounds, "max": bounds}
    return {
        "limits": [
            {"type": "Container", **whole},
            *([{"type": "Pod", "max": bounds}] if dice.chance(0.5) else []),
        ]
    }


def budget_spec(dice: Dice) -> dict[str, Any]:
    """A PodDisruptionBudget's spec."""
    field = dice.random.choice(["minAvailable", "maxUnavailable"])
    return {
        field: dice.random.choice([0, 1, "50%"]),
        "selector": {"matchLabels": {"app": dice.random.choice("xy")}},
    }


BODIES: dict[str, Callable[[Dice], dict[str, Any]]] = {
    "ConfigMap": lambda dice: {"data": configmap_data(dice)},
    "Service": lambda dice: {"spec": service_spec(dice)},
    "StatefulSet": lambda dice: {"spec": statefulset_spec(dice)},
    "NetworkPolicy": lambda dice: {"spec": policy_spec(dice)},
    "ResourceQuota": lambda dice: {"spec": quota_spec(dice)},
    "LimitRange": lambda dice: {"spec": limits_spec(dice)},
    "PodDisruptionBudget": lambda dice: {"spec": budget_spec(dice)},
    "Namespace": lambda dice: {},
}
KINDS_TO_MAKE = [*BODIES, "StatefulSet", "StatefulSet", "Service"]


def make_desired(dice: Dice, namespace: str, name: str) -> Manifest:
    """A random object of a kind that experiments have."""
    kind = dice.random.choice(KINDS_TO_MAKE)
    body = BODIES[kind](dice)
    annotations = {f"x/{k}": dice.word() for k in dice.subset(["a", "b"])}
    plain = {
        "apiVersion": KINDS[kind].api_version,
        "kind": kind,
        "metadata": {
            "name": f"{namespace}-{name}" if kind == "Namespace" else name,
            **({} if kind == "Namespace" else {"namespace": namespace}),
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
    where = f"namespaces/{key.namespace}/" if key.namespace else ""
    path = f"{base}/{where}{kind.plural}/{key.name}{tail}?fieldManager={how}"
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
    part["metadata"] = {k: live["metadata"][k] for k in ("name", "namespace") if k in live["metadata"]}
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


def edit_remove(dice: Dice, cluster: KubeCluster, live: Manifest) -> None:
    """A JSON patch that takes something out."""
    part = dice.random.choice(["spec", "data", "metadata"])
    paths = [path for path in leaves(live.get(part) or {}) if "managedFields" not in path]
    if paths:
        place = dice.random.choice(paths)
        pointer = "".join("/" + str(p).replace("~", "~0").replace("/", "~1") for p in (part, *place))
        send(cluster, "PATCH", key_of(live), [{"op": "remove", "path": pointer}], "remover")


EDITS: list[Callable[[Dice, KubeCluster, Manifest], None]] = [
    edit_put, edit_put, edit_put, edit_labels, edit_scale, edit_status, edit_apply, edit_reset,
    edit_remove, edit_remove,
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


@pytest.mark.timeout(300 + EXAMPLES)  # about 0.05 s each, on a machine that does nothing else
def test_rule_never_says_unchanged_when_the_server_would_change_something(
    cluster: KubeCluster, figure: Callable[[str], None]
) -> None:
    number = int(os.environ.get("NIMLAB_SEED") or secrets.randbelow(10**9))
    namespace = f"detector-{secrets.token_hex(4)}"
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    seen: Counter[str] = Counter()
    names = itertools.count()

    @seed(number)
    @settings(max_examples=EXAMPLES, database=None, suppress_health_check=list(HealthCheck))
    @given(st.randoms(use_true_random=False))
    def examples(source: random.Random) -> None:
        key = one_example(Dice(source), cluster, namespace, f"x{next(names)}", seen)
        live = cluster.get(key)
        if live is not None:
            uid = live["metadata"]["uid"]
            cluster.delete(key, uid=uid, resource_version=None, propagation=Propagation.BACKGROUND)

    try:
        examples()
    finally:
        remove_namespaces(cluster, [namespace])
    figure(
        f"detector: {seen.total() - seen['cleaned']} examples, seed {number}: "
        f"{seen['unchanged']} rightly unchanged, {seen['changed']} suspects that change, "
        f"{seen['refused']} that the server refuses, {seen['false-suspect']} false suspects, "
        f"0 false-unchanged; {seen['cleaned']} cleaned of foreign additions"
    )
    assert seen.total() - seen["cleaned"] >= EXAMPLES
    assert seen["unchanged"] > EXAMPLES / 20
    assert seen["changed"] > EXAMPLES / 20
    assert seen["false-suspect"] <= 2 + seen["unchanged"] / 100


def one_example(dice: Dice, cluster: KubeCluster, namespace: str, name: str, seen: Counter[str]) -> ObjectKey:
    """Apply, let others edit, ask the rule and the server."""
    desired = make_desired(dice, namespace, name)
    key = key_of(desired)
    live = cluster.apply(desired, manager=FIELD_MANAGER, force=False, dry_run=False)
    assert compare(desired, live).unchanged, compare(desired, live).reason
    number = dice.random.getrandbits(32)  # hypothesis can repeat this, not what a server shows
    luck = Dice(random.Random(number))  # noqa: S311 -- not a secret
    for _ in range(luck.random.randint(0, 3)):
        luck.random.choice(EDITS)(luck, cluster, live)
        found = cluster.get(key)
        assert found is not None
        live = found
    wanted = change_desired(dice, desired)
    verdict = compare(wanted, live)
    truth = would_change(cluster, wanted, live)
    if verdict.unchanged:
        assert truth is False, json.dumps([wanted, live])
        seen["unchanged"] += 1
    elif truth is None:
        seen["refused"] += 1
    else:
        seen["changed" if truth else "false-suspect"] += 1
    check_cleaning(cluster, wanted, live, seen)
    return key


def check_cleaning(cluster: KubeCluster, wanted: Manifest, live: Manifest, seen: Counter[str]) -> None:
    """Removing what others have added leaves nothing of it but defaults, and nothing to do the next time."""
    handover = handover_of(wanted, live, remove_foreign=True)
    if handover is None:
        return
    try:
        cluster.patch(key_of(live), [only_at(live), *handover_patch(handover, live)], dry_run=False)
        made = cluster.apply(wanted, manager=FIELD_MANAGER, force=True, dry_run=False)
    except ClusterError:  # what is wanted may not be valid at all
        return
    seen["cleaned"] += 1
    left = handover_of(wanted, made, remove_foreign=True)
    if left is not None:
        again = cluster.patch(key_of(live), handover_patch(left, made), dry_run=True)
        assert effective(left, made, again) is None, json.dumps([wanted, live, made])
