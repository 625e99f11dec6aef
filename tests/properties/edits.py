"""What others do to an object meanwhile: every way of writing that the API has, at random."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

from nimlab.cluster.kube import KubeCluster
from nimlab.errors import ClusterError
from nimlab.objects.manifest import KINDS, Manifest, ObjectKey, key_of
from tests.properties.objects import PARTS, Dice, account, binding, role_rules

OPEN = ("annotations", "data", "labels", "matchLabels", "nodeSelector", "selector")
"""Maps that may have any key; another map with one is refused as it stands."""
FIRM = (
    "accessModes", "app", "clusterIP", "clusterIPs", "containerPort", "containers", "kind", "labels",
    "matchLabels", "metadata", "name", "restartPolicy", "roleRef", "selector", "spec", "template", "volumes",
)  # fmt: skip
"""What most objects aren't valid without, as it is: seldom changed, since a refusal proves nothing."""
NEEDED = ("apiGroups", "image", "key", "port", "resources", "verbs")
"""What may be another, and seldom goes."""
FEW = {"protocol": ["TCP", "UDP"], "type": ["RollingUpdate", "OnDelete"], "operator": ["Exists", "Equal"]}
"""Texts that have to be one of some."""
WORKLOADS = ("DaemonSet", "Deployment", "StatefulSet")


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
    paths = [path for path in leaves(value) if path[-1] not in FIRM or not dice.chance(0.95)]
    if not paths:
        return
    *above, last = dice.random.choice(paths)
    inner: Any = value
    for part in above:
        inner = inner[part]
    item = inner[last]
    roll = dice.random.uniform(0, 0.6 if last in NEEDED and dice.chance(0.95) else 1)
    if isinstance(item, list) and roll < 0.6:
        dice.random.shuffle(item)
    elif isinstance(item, dict) and roll < 0.4 and last in OPEN:
        item["added"] = "x"
    elif roll < 0.6 and isinstance(item, bool):
        inner[last] = not item
    elif roll < 0.6 and isinstance(item, int):
        inner[last] = item + 1
    elif roll < 0.6 and isinstance(item, str):
        inner[last] = dice.random.choice(FEW[last]) if last in FEW else dice.word() or "z"
    elif isinstance(inner, dict) and (roll >= 0.6 or last not in NEEDED):
        del inner[last]
    elif isinstance(inner, list):
        inner.pop(last)


def mutate_part(dice: Dice, manifest: Manifest) -> None:
    """Change something in what an object asks for; in its labels, when that is nothing or for ever."""
    part = next((name for name in PARTS if manifest.get(name)), None)
    is_fixed = manifest["kind"] == "PersistentVolumeClaim" and dice.chance(0.9)
    if part is None or is_fixed:
        mutate(dice, manifest["metadata"].setdefault("labels", {}))
    elif manifest["kind"] in WORKLOADS and dice.chance(0.9):  # most of the rest can't be changed
        mutate(dice, manifest[part].get("template") or {})
    elif isinstance(manifest[part], dict):
        mutate(dice, manifest[part])
    else:
        mutate(dice, view := {part: manifest.pop(part)})
        manifest.update({name: value for name, value in view.items() if name in PARTS})


def edit_put(dice: Dice, cluster: KubeCluster, live: Manifest) -> None:
    """An Update by another manager."""
    changed = copy.deepcopy(live)
    for _ in range(dice.random.randint(1, 2)):
        mutate_part(dice, changed)
    changed["metadata"].pop("managedFields", None)
    send(cluster, "PUT", key_of(live), changed, "editor")


def edit_labels(dice: Dice, cluster: KubeCluster, live: Manifest) -> None:
    """A label or annotation, ours or new."""
    name = dice.random.choice(["experiment", "team"])
    body = {"metadata": {"labels": {name: dice.random.choice(["x", "y", None])}}}
    send(cluster, "PATCH", key_of(live), body, "kubectl-label")


def edit_scale(dice: Dice, cluster: KubeCluster, live: Manifest) -> None:
    """The scale subresource."""
    if live["kind"] in ("Deployment", "StatefulSet"):
        body = {"spec": {"replicas": dice.random.choice([0, 1])}}
        send(cluster, "PATCH", key_of(live), body, "kubectl", tail="/scale")


def edit_status(dice: Dice, cluster: KubeCluster, live: Manifest) -> None:
    """The status subresource: not our business."""
    if live["kind"] in WORKLOADS:
        field = "desiredNumberScheduled" if live["kind"] == "DaemonSet" else "replicas"
        body = {"status": {field: dice.random.choice([0, 2])}}
        send(cluster, "PATCH", key_of(live), body, "controller", tail="/status")


def edit_apply(dice: Dice, cluster: KubeCluster, live: Manifest) -> None:
    """A forced apply by another manager of a part of the object."""
    part = {k: live[k] for k in ("apiVersion", "kind")}
    part["metadata"] = {k: live["metadata"][k] for k in ("name", "namespace") if k in live["metadata"]}
    if live["kind"] == "ConfigMap":
        part["data"] = {k: dice.word() for k in dice.subset(["a", "z"])}
    elif live["kind"] in ("Role", "ClusterRole"):
        part["rules"] = role_rules(dice)
    elif live["kind"] in ("RoleBinding", "ClusterRoleBinding"):
        part |= binding(dice, str(live["metadata"].get("namespace", "x")), live["roleRef"]["kind"])
    elif live["kind"] == "ServiceAccount":
        part |= account(dice)
    elif live["kind"] in WORKLOADS:
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
    part = dice.random.choice(["metadata", *[name for name in PARTS if live.get(name)]])
    paths = [path for path in leaves(live[part]) if "managedFields" not in path]
    if paths:
        place = dice.random.choice(paths)
        pointer = "".join("/" + str(p).replace("~", "~0").replace("/", "~1") for p in (part, *place))
        send(cluster, "PATCH", key_of(live), [{"op": "remove", "path": pointer}], "remover")


EDITS: list[Callable[[Dice, KubeCluster, Manifest], None]] = [
    edit_put, edit_put, edit_put, edit_labels, edit_scale, edit_status, edit_apply, edit_reset,
    edit_remove, edit_remove,
]  # fmt: skip
