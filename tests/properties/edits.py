"""Random edits of an object by other managers, with every kind of write that the API offers."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

from nimlab.cluster.kube import KubeCluster
from nimlab.errors import ClusterError
from nimlab.objects.kinds_and_order import KINDS
from nimlab.objects.manifest import Manifest, ObjectKey, key_of
from tests.properties.objects import PARTS, Dice, account, binding, role_rules

OPEN = ("annotations", "data", "labels", "matchLabels", "nodeSelector", "selector")
"""Maps that accept any key; in all other maps, the server rejects unknown keys."""
ESSENTIAL = (
    "accessModes", "app", "clusterIP", "clusterIPs", "containerPort", "containers", "kind", "labels",
    "matchLabels", "metadata", "name", "restartPolicy", "roleRef", "selector", "spec", "template", "volumes",
)  # fmt: skip
"""Fields that are rarely changed. The server usually rejects such a change, and the example tests nothing."""
NEEDED = ("apiGroups", "image", "key", "port", "resources", "verbs")
"""Fields that are often changed but rarely removed."""
ENUMS = {"protocol": ["TCP", "UDP"], "type": ["RollingUpdate", "OnDelete"], "operator": ["Exists", "Equal"]}
"""Fields with a fixed set of values."""
WORKLOADS = ("DaemonSet", "Deployment", "StatefulSet")


def send(
    cluster: KubeCluster, method: str, key: ObjectKey, body: object, manager: str, subresource: str = ""
) -> None:
    """Send a write as another manager; ignore a rejection by the server."""
    kind = KINDS[key.kind]
    base = f"/apis/{kind.api_version}" if kind.group else "/api/v1"
    namespace = f"namespaces/{key.namespace}/" if key.namespace else ""
    path = f"{base}/{namespace}{kind.plural}/{key.name}{subresource}?fieldManager={manager}"
    content_type = {"PUT": "application/json", "PATCH": "application/merge-patch+json"}[method]
    if isinstance(body, list):
        content_type = "application/json-patch+json"
    try:
        cluster.transport.json(
            method,
            path,
            verb=method,
            where=str(key),
            body=json.dumps(body).encode(),
            content_type=content_type,
        )
    except ClusterError:
        return


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every leaf in a value."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ())
    for key, item in items:
        yield from leaves(item, (*path, key))


def mutate(dice: Dice, value: dict[str, Any]) -> None:
    """Change, remove, add or reorder a part of the value in place."""
    paths = [path for path in leaves(value) if path[-1] not in ESSENTIAL or not dice.chance(0.95)]
    if not paths:
        return
    *parents, last = dice.random.choice(paths)
    inner: Any = value
    for part in parents:
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
        inner[last] = dice.random.choice(ENUMS[last]) if last in ENUMS else dice.word() or "z"
    elif isinstance(inner, dict) and (roll >= 0.6 or last not in NEEDED):
        del inner[last]
    elif isinstance(inner, list):
        inner.pop(last)


def mutate_part(dice: Dice, manifest: Manifest) -> None:
    """Change a part of an object's spec, or of its labels if it has no spec or its spec is immutable."""
    part = next((name for name in PARTS if manifest.get(name)), None)
    is_fixed = manifest["kind"] == "PersistentVolumeClaim" and dice.chance(0.9)
    if part is None or is_fixed:
        mutate(dice, manifest["metadata"].setdefault("labels", {}))
    elif manifest["kind"] in WORKLOADS and dice.chance(0.9):  # most other fields are immutable
        mutate(dice, manifest[part].get("template") or {})
    elif isinstance(manifest[part], dict):
        mutate(dice, manifest[part])
    else:
        mutate(dice, wrapper := {part: manifest.pop(part)})
        manifest.update({name: value for name, value in wrapper.items() if name in PARTS})


def edit_put(dice: Dice, cluster: KubeCluster, live: Manifest) -> None:
    """PUT the object with changes, as another manager."""
    changed = copy.deepcopy(live)
    for _ in range(dice.random.randint(1, 2)):
        mutate_part(dice, changed)
    changed["metadata"].pop("managedFields", None)
    send(cluster, "PUT", key_of(live), changed, "editor")


def edit_labels(dice: Dice, cluster: KubeCluster, live: Manifest) -> None:
    """Change or remove one of the lab's labels, or add a new label."""
    name = dice.random.choice(["experiment", "team"])
    body = {"metadata": {"labels": {name: dice.random.choice(["x", "y", None])}}}
    send(cluster, "PATCH", key_of(live), body, "kubectl-label")


def edit_scale(dice: Dice, cluster: KubeCluster, live: Manifest) -> None:
    """Write the scale subresource."""
    if live["kind"] in ("Deployment", "StatefulSet"):
        body = {"spec": {"replicas": dice.random.choice([0, 1])}}
        send(cluster, "PATCH", key_of(live), body, "kubectl", subresource="/scale")


def edit_status(dice: Dice, cluster: KubeCluster, live: Manifest) -> None:
    """Write the status subresource, which nimlab ignores."""
    if live["kind"] in WORKLOADS:
        field = "desiredNumberScheduled" if live["kind"] == "DaemonSet" else "replicas"
        body = {"status": {field: dice.random.choice([0, 2])}}
        send(cluster, "PATCH", key_of(live), body, "controller", subresource="/status")


def edit_apply(dice: Dice, cluster: KubeCluster, live: Manifest) -> None:
    """Apply a part of the object with force, as another manager."""
    part = {field: live[field] for field in ("apiVersion", "kind")}
    part["metadata"] = {
        field: live["metadata"][field] for field in ("name", "namespace") if field in live["metadata"]
    }
    if live["kind"] == "ConfigMap":
        part["data"] = {name: dice.word() for name in dice.subset(["a", "z"])}
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
    """Remove all managedFields."""
    del dice
    patch = [{"op": "replace", "path": "/metadata/managedFields", "value": [{}]}]
    send(cluster, "PATCH", key_of(live), patch, "resetter")


def edit_remove(dice: Dice, cluster: KubeCluster, live: Manifest) -> None:
    """Remove a value by a JSON patch."""
    part = dice.random.choice(["metadata", *[name for name in PARTS if live.get(name)]])
    paths = [steps for steps in leaves(live[part]) if "managedFields" not in steps]
    if paths:
        path = dice.random.choice(paths)
        pointer = "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in (part, *path))
        send(cluster, "PATCH", key_of(live), [{"op": "remove", "path": pointer}], "remover")


EDITS: list[Callable[[Dice, KubeCluster, Manifest], None]] = [
    edit_put, edit_put, edit_put, edit_labels, edit_scale, edit_status, edit_apply, edit_reset,
    edit_remove, edit_remove,
]  # fmt: skip
