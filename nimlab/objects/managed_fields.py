"""managedFields: is this object already as desired, and what in it is somebody else's?

In: a desired manifest (canonical) and the live object. Out: a verdict that costs no request, and the fields
that other managers have added. `compare` may suspect too often; it must never call an object unchanged that
an apply would change. The rule and why it holds: a server-side apply is a no-op exactly when what we send
equals what is there *and* what we own equals what we send (structured-merge-diff, `merge/update.go`); every
write by somebody else takes the fields it changes out of our entry. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TypeAlias

from nimlab.objects.applyset import FIELD_MANAGER
from nimlab.objects.manifest import Manifest
from nimlab.objects.masking import HIDDEN, is_secret_name, mask
from nimlab.objects.prune_proofs import is_own_entry

_Path: TypeAlias = tuple[str, ...]
_Tree: TypeAlias = Mapping[str, Any]
_Key: TypeAlias = tuple[tuple[str, type, Any], ...]

# The server strips these from every entry (apimachinery, managedfields/internal/stripmeta.go).
_UNOWNED_METADATA: Final = frozenset({
    "name", "namespace", "creationTimestamp", "selfLink", "uid", "generation", "managedFields",
    "resourceVersion",
})  # fmt: skip
ATOMIC_MAPS: Final = frozenset({
    "selector", "nodeSelector", "podSelector", "namespaceSelector", "labelSelector", "secretKeyRef",
    "configMapKeyRef", "fieldRef", "resourceFieldRef", "roleRef",
})  # fmt: skip
ATOMIC_ITEMS: Final = frozenset({"imagePullSecrets"})
"""Keyed lists whose items are owned as a whole: nothing is listed below an item, not even itself."""
_CONTROL_PLANE: Final = frozenset({
    "kube-controller-manager", "kube-scheduler", "kubelet", "k3s", "kwok", "kube-apiserver",
})  # fmt: skip
# What the server fills in (api/core/v1 and api/apps/v1, `SetDefaults_…`): in a pod these values only, beside
# it whatever follows from other fields.
_POD_DEFAULTS: Final = frozenset({
    ("f:dnsPolicy", "ClusterFirst"), ("f:restartPolicy", "Always"), ("f:schedulerName", "default-scheduler"),
    ("f:terminationGracePeriodSeconds", 30), ("f:enableServiceLinks", True), ("f:imagePullPolicy", "Always"),
    ("f:imagePullPolicy", "IfNotPresent"), ("f:terminationMessagePath", "/dev/termination-log"),
    ("f:terminationMessagePolicy", "File"), ("f:protocol", "TCP"), ("f:scheme", "HTTP"), ("f:path", "/"),
    ("f:defaultMode", 420), ("f:timeoutSeconds", 1), ("f:periodSeconds", 10), ("f:successThreshold", 1),
    ("f:failureThreshold", 3),
})  # fmt: skip
_DEFAULTS: Final = frozenset({
    "f:replicas", "f:podManagementPolicy", "f:revisionHistoryLimit", "f:updateStrategy", "f:type",
    "f:partition", "f:persistentVolumeClaimRetentionPolicy", "f:whenDeleted", "f:whenScaled", "f:protocol",
    "f:targetPort", "f:sessionAffinity", "f:internalTrafficPolicy", "f:ipFamilies", "f:ipFamilyPolicy",
    "f:clusterIP", "f:clusterIPs", "f:policyTypes", "f:progressDeadlineSeconds",
})  # fmt: skip
_FOREIGN_ROOTS: Final = (
    ("f:spec",), ("f:data",), ("f:binaryData",), ("f:rules",), ("f:subjects",),
    ("f:metadata", "f:labels"), ("f:metadata", "f:annotations"),
)  # fmt: skip
# Labels and annotations that Kubernetes itself writes on an object; docs/foreign.md lists their writers.
BOOKKEEPING: Final = frozenset({
    "kubernetes.io/metadata.name",
    "kubectl.kubernetes.io/last-applied-configuration",
    "deployment.kubernetes.io/revision", "deployment.kubernetes.io/revision-history",
    "deployment.kubernetes.io/desired-replicas", "deployment.kubernetes.io/max-replicas",
    "deprecated.daemonset.template.generation",
    "endpoints.kubernetes.io/last-change-trigger-time",
    "pv.kubernetes.io/bind-completed", "pv.kubernetes.io/bound-by-controller",
    "volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/selected-node",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Comparison:
    """`unchanged`, or why the object is suspect."""

    unchanged: bool
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """Something that another manager has put into an object of ours.

    `text` is the path as people read it: `spec.template.spec.containers[nimp2p].env[DEBUG]`.
    """

    manager: str
    path: _Path
    text: str
    value: Any
    of_secret: bool = False

    @property
    def shown(self) -> Any:  # noqa: ANN401 -- any JSON
        """The value as it may be shown."""
        return HIDDEN if self.of_secret or _is_secret_value(self.path) else mask(self.value)

    @property
    def in_template(self) -> bool:
        """True for what reaches the peers: their next ones are not as Git has them."""
        return self.text.startswith("spec.template.")


def _is_secret_value(path: _Path) -> bool:
    """True for the value of an env variable whose name looks secret."""
    match path:
        case (*_, item, "f:value") if item.startswith("k:"):
            return is_secret_name(_decoded(item).get("name", ""))
    return False


class _Suspect(Exception):
    """Ends the walk; the message is the reason."""


def own_entry(live: Manifest) -> Mapping[str, Any] | None:
    """Return the fields that we own by Apply, None if there is no such entry or more than one."""
    entries = [e for e in entries_of(live) if is_own_entry(e)]
    return entries[0].get("fieldsV1") if len(entries) == 1 else None


def compare(desired: Manifest, live: Manifest) -> Comparison:
    """Tell whether applying `desired` would change nothing. Never raises."""
    try:
        _check(desired, live)
    except _Suspect as suspicion:
        return Comparison(unchanged=False, reason=str(suspicion))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        return Comparison(unchanged=False, reason=f"its managedFields can't be read: {error}")
    return Comparison(unchanged=True)


def _check(desired: Manifest, live: Manifest) -> None:
    if live["metadata"].get("deletionTimestamp"):
        raise _Suspect("it is being deleted")
    entries = [e for e in entries_of(live) if is_own_entry(e)]
    if len(entries) != 1:
        raise _Suspect("nimlab has not applied it" if not entries else "it has several entries of ours")
    if entries[0].get("apiVersion") != desired["apiVersion"]:
        raise _Suspect("it was applied in another API version")
    wanted = {k: v for k, v in desired.items() if k not in ("apiVersion", "kind", "metadata")}
    metadata = {k: v for k, v in desired["metadata"].items() if k not in _UNOWNED_METADATA}
    if metadata:
        wanted["metadata"] = metadata
    _check_node(wanted, live, entries[0]["fieldsV1"], ())


def _check_node(desired: Any, live: Any, owned: _Tree, path: _Path) -> None:  # noqa: ANN401 -- any JSON
    """Walk desired, live and owned together; raise at the first thing that isn't proven the same."""
    children = [name for name in owned if name != "."]
    if not children:
        _check_leaf(desired, live, path)
        return
    if "." in owned and not (path and path[-1].startswith("k:")):
        raise _Suspect(f"{path_text(path)}: owned as a whole beside its parts")
    kinds = {name[:2] for name in children}
    if kinds == {"f:"}:
        _check_map(desired, live, owned, children, path)
    elif kinds == {"k:"}:
        _check_keyed(desired, live, owned, children, path)
    elif kinds == {"v:"}:
        _check_set(desired, live, children, path)
    else:
        raise _Suspect(f"{path_text(path)}: owned in a way that can't be followed")


def _check_leaf(desired: Any, live: Any, path: _Path) -> None:  # noqa: ANN401 -- any JSON
    if desired is None:
        raise _Suspect(f"{path_text(path)}: null is asked for")
    if isinstance(desired, dict) and desired and path[-1][2:] not in ATOMIC_MAPS:
        raise _Suspect(f"{path_text(path)}: owned as an empty map, but more is asked for")
    _check_same(desired, live, path)


def _check_same(desired: Any, live: Any, path: _Path) -> None:  # noqa: ANN401 -- any JSON
    if not _same(desired, live):
        raise _Suspect(f"{path_text(path)}: differs")


def _check_map(
    desired: Any,  # noqa: ANN401 -- any JSON
    live: Any,  # noqa: ANN401 -- any JSON
    owned: _Tree,
    children: Sequence[str],
    path: _Path,
) -> None:
    if not isinstance(desired, dict) or not isinstance(live, dict):
        raise _Suspect(f"{path_text(path)}: is no map")
    names = {child[2:] for child in children}
    if names != set(desired):
        odd = sorted(names ^ set(desired))[0]
        how = "is asked for, but not ours" if odd in desired else "is ours, but not asked for any more"
        raise _Suspect(f"{path_text((*path, 'f:' + odd))}: {how}")
    for child in children:
        name = child[2:]
        if name not in live:
            raise _Suspect(f"{path_text((*path, child))}: is gone")
        if not owned[child] and isinstance(desired[name], str) and desired[name] == live[name]:
            continue  # what most leaves are, without the walk
        _check_node(desired[name], live[name], owned[child], (*path, child))


def _check_keyed(
    desired: Any,  # noqa: ANN401 -- any JSON
    live: Any,  # noqa: ANN401 -- any JSON
    owned: _Tree,
    children: Sequence[str],
    path: _Path,
) -> None:
    """Items of an associative list; their order is owned by nobody, so it is compared too."""
    keys = {child: _decoded(child) for child in children}
    names = sorted({name for key in keys.values() for name in key})
    by_key = {_key_of(key, names): child for child, key in keys.items()}
    wanted, there = _by_child(desired, by_key, names, path), _by_child(live, by_key, names, path)
    if len(wanted) != len(desired) or set(wanted) != set(children):
        raise _Suspect(f"{path_text(path)}: other items are asked for than are ours")
    if not set(wanted) <= set(there):
        raise _Suspect(f"{path_text(path)}: an item is gone")
    if [child for child in there if child in wanted] != list(wanted):
        raise _Suspect(f"{path_text(path)}: the order differs")
    is_atomic = path[-1][2:] in ATOMIC_ITEMS
    for child in children:
        if is_atomic and not owned[child]:
            _check_same(wanted[child], there[child], (*path, child))
            continue
        if "." not in owned[child]:
            raise _Suspect(f"{path_text((*path, child))}: is not ours as a whole")
        _check_node(wanted[child], there[child], owned[child], (*path, child))


def _by_child(
    items: Any,  # noqa: ANN401 -- any JSON
    by_key: Mapping[_Key, str],
    names: Sequence[str],
    path: _Path,
) -> dict[str, Any]:
    """The list's items that have one of the keys, in the list's order; twice the same key is suspect."""
    found: dict[str, Any] = {}
    for item in items:
        child = by_key.get(_key_of(item, names))
        if child is None:
            continue
        if child in found:
            raise _Suspect(f"{path_text(path)}: two items have the same key")
        found[child] = item
    return found


def _key_of(item: _Tree, names: Sequence[str]) -> _Key:
    """The item's values of the key fields, with their types: 1 is not true."""
    return tuple([(name, type(item[name]), item[name]) for name in names if name in item])


def _check_set(desired: Any, live: Any, children: Sequence[str], path: _Path) -> None:  # noqa: ANN401 -- any JSON
    ours = {json.dumps(_decoded(child)) for child in children}
    wanted = [json.dumps(item) for item in desired]
    there = [json.dumps(item) for item in live]
    if len(set(wanted)) != len(wanted) or len(set(there)) != len(there):
        raise _Suspect(f"{path_text(path)}: a value stands twice")
    if set(wanted) != ours or [item for item in there if item in ours] != wanted:
        raise _Suspect(f"{path_text(path)}: differs")


def _same(a: Any, b: Any) -> bool:  # noqa: ANN401 -- any JSON
    """Equality that tells 0 from false and 1 from 1.0, which Python's doesn't."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(v, b[k]) for k, v in a.items())
    if isinstance(a, list):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def foreign_fields(desired: Manifest, live: Manifest) -> tuple[Foreign, ...]:
    """Return what other managers own inside the object that we don't ask for; sorted by path.

    A whole foreign item (a container, an env variable) is told once. What the control plane sets by itself
    isn't foreign, nor is a field that we want and somebody else holds: that is drift. What we hold together
    with somebody and no longer want is: it stays when we let go of it. A manager's name proves little, since
    anybody may choose it.
    """
    found: dict[_Path, Foreign] = {}
    for entry in entries_of(live):
        manager = str(entry.get("manager", ""))
        if is_own_entry(entry) or entry.get("subresource"):
            continue
        fields = entry.get("fieldsV1") or {}
        for root in _FOREIGN_ROOTS:
            theirs, wanted, there = fields, desired, live
            for part in root:
                theirs, wanted, there = theirs.get(part, {}), descend(wanted, part), descend(there, part)
            walk = _foreign(theirs, wanted, there, root) if theirs else ()
            for path, value in walk:
                if _is_by_itself(manager, path, value):
                    continue
                found[path] = Foreign(
                    manager=manager,
                    path=path,
                    text=path_text(path),
                    value=value,
                    of_secret=live.get("kind") == "Secret",
                )
    return tuple(found[path] for path in sorted(found))


def _is_by_itself(manager: str, path: _Path, value: Any) -> bool:  # noqa: ANN401 -- any JSON
    """True for what no person added: bookkeeping, a controller's field, or a default of the server.

    No controller writes into a template. What the server fills in after a patch of ours counts as our Update.
    """
    if path[0] == "f:metadata":
        return path[-1][2:] in BOOKKEEPING
    in_template = path[1:2] == ("f:template",)
    if manager in _CONTROL_PLANE:
        return path[0] == "f:spec" and not in_template
    if manager != FIELD_MANAGER or path[0] != "f:spec":
        return False
    if not in_template:
        return path[-1] in _DEFAULTS
    is_scalar = isinstance(value, str | int)
    return path[-2] == "f:requests" or (is_scalar and (path[-1], value) in _POD_DEFAULTS)


def _foreign(
    theirs: _Tree,
    desired: Any,  # noqa: ANN401 -- any JSON
    live: Any,  # noqa: ANN401 -- any JSON
    path: _Path,
) -> Iterator[tuple[_Path, Any]]:
    """Yield the highest paths that are theirs, not desired, and still there.

    What is empty says nothing: the server puts it back where a field has to be (a policy's `podSelector`).
    """
    if live in (None, {}, []):
        return
    is_whole = not theirs or path[-1].startswith(("k:", "v:"))
    if is_whole and desired is None:
        yield path, live
        return
    for child, subtree in theirs.items():
        if child == ".":
            continue
        yield from _foreign(
            subtree,
            descend(desired, child),
            descend(live, child),
            (*path, child),
        )


def descend(value: Any, child: str) -> Any:  # noqa: ANN401 -- any JSON
    """Return the part of a value that a child of managedFields names; None if there is none."""
    if child.startswith("f:") and isinstance(value, Mapping):
        return value.get(child[2:])
    index = index_of_item(value, child)
    return None if index is None else value[index]


def index_of_item(value: Any, child: str) -> int | None:  # noqa: ANN401 -- any JSON
    """Return the place in a list of the item that a child of managedFields names; None if there is none."""
    if not isinstance(value, list):
        return None
    if child.startswith("v:"):
        return next((i for i, item in enumerate(value) if item == _decoded(child)), None)
    if child.startswith("k:"):
        key = _decoded(child).items()
        return next((i for i, item in enumerate(value) if all(item.get(k) == x for k, x in key)), None)
    return None


def path_text(path: _Path) -> str:
    """Return a managedFields path as people read it: `spec.template.spec.containers[nimp2p].env[DEBUG]`."""
    text = ""
    for part in path:
        if part.startswith("f:"):
            name = part[2:]
            plain = name.isidentifier()
            text += (f".{name}" if text else name) if plain else f"[{name}]"
        elif part.startswith("k:"):
            text += "[" + ",".join(str(v) for v in _decoded(part).values()) + "]"
        else:
            text += f"[{part[2:]}]"
    return text


@lru_cache(maxsize=4096)
def _decoded(child: str) -> Any:  # noqa: ANN401 -- any JSON
    return json.loads(child[2:])


def merge_trees(one: _Tree, other: _Tree) -> _Tree:
    """Return the fields that two entries have together."""
    return {**one, **{name: merge_trees(one.get(name, {}), tree) for name, tree in other.items()}}


def entries_of(live: Manifest) -> list[Mapping[str, Any]]:
    """Return the managers' entries of an object; none where there are none that can be read."""
    entries = live["metadata"].get("managedFields")
    return [e for e in entries if isinstance(e, Mapping)] if isinstance(entries, list) else []
