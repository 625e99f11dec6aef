"""Detect, without a request to the server, whether an apply would change a live object.

In: a desired manifest (canonical) and the live object. Out: a `Comparison`. An unchanged object may be
reported as suspect, but an object that an apply would change must never be reported as unchanged. Pure.

A server-side apply changes nothing if and only if two conditions are true (structured-merge-diff,
`merge/update.go`): the live object has the values of the manifest, *and* nimlab owns exactly the fields of
the manifest. These conditions suffice: if another manager changes a field, the server removes this field from
nimlab's entry.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from nimlab.objects.managed_fields import (
    ATOMIC_MAPS,
    FieldPath,
    FieldTree,
    decode_key,
    entries_of,
    is_own_entry,
    path_text,
)
from nimlab.objects.manifest import Manifest

_ItemKey: TypeAlias = tuple[tuple[str, type, Any], ...]

# The server removes these fields from every entry (apimachinery, managedfields/internal/stripmeta.go).
_UNOWNED_METADATA: Final = frozenset({
    "name", "namespace", "creationTimestamp", "selfLink", "uid", "generation", "managedFields",
    "resourceVersion",
})  # fmt: skip
_ATOMIC_ITEMS: Final = frozenset({"imagePullSecrets"})
"""Keyed lists whose items are owned as a whole; in managedFields, the tree of such an item is empty."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of a check: the object is `unchanged`, or it is suspect for a `reason`."""

    unchanged: bool
    reason: str = ""


class _Suspect(Exception):
    """The object is suspect, so the comparison ends. The message is the reason."""


def compare(desired: Manifest, live: Manifest) -> Comparison:
    """Compare a live object with its desired manifest. Never raises.

    In the result, `unchanged` is True only if an apply would change nothing.
    """
    try:
        _check(desired, live)
    except _Suspect as suspect:
        return Comparison(unchanged=False, reason=str(suspect))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        return Comparison(unchanged=False, reason=f"its managedFields cannot be read: {error}")
    return Comparison(unchanged=True)


def _check(desired: Manifest, live: Manifest) -> None:
    if live["metadata"].get("deletionTimestamp"):
        raise _Suspect("it is being deleted")
    entries = [e for e in entries_of(live) if is_own_entry(e)]
    if len(entries) != 1:
        raise _Suspect("it has several Apply entries of nimlab" if entries else "nimlab has not applied it")
    if entries[0].get("apiVersion") != desired["apiVersion"]:
        raise _Suspect("it was applied in another API version")
    wanted = {k: v for k, v in desired.items() if k not in ("apiVersion", "kind", "metadata")}
    metadata = {k: v for k, v in desired["metadata"].items() if k not in _UNOWNED_METADATA}
    if metadata:
        wanted["metadata"] = metadata
    _check_node(wanted, live, entries[0]["fieldsV1"], ())


def _check_node(desired: Any, live: Any, owned: FieldTree, path: FieldPath) -> None:  # noqa: ANN401 -- any JSON
    """Compare the desired value, the live value and nimlab's field tree `owned`, node by node.

    Raises _Suspect at the first node that is not proven unchanged.
    """
    children = [name for name in owned if name != "."]
    if not children:
        _check_leaf(desired, live, path)
        return
    if "." in owned and not (path and path[-1].startswith("k:")):
        raise _Suspect(f"{path_text(path)}: owned as a whole and in parts")
    kinds = {name[:2] for name in children}
    if kinds == {"f:"}:
        _check_map(desired, live, owned, children, path)
    elif kinds == {"k:"}:
        _check_keyed(desired, live, owned, children, path)
    elif kinds == {"v:"}:
        _check_set(desired, live, children, path)
    else:
        raise _Suspect(f"{path_text(path)}: its managedFields have an unknown form")


def _check_leaf(desired: Any, live: Any, path: FieldPath) -> None:  # noqa: ANN401 -- any JSON
    if desired is None:
        raise _Suspect(f"{path_text(path)}: desired is null")
    if isinstance(desired, dict) and desired and path[-1][2:] not in ATOMIC_MAPS:
        raise _Suspect(f"{path_text(path)}: owned as an empty map, but more is desired")
    _check_equal(desired, live, path)


def _check_equal(desired: Any, live: Any, path: FieldPath) -> None:  # noqa: ANN401 -- any JSON
    if not _equal(desired, live):
        raise _Suspect(f"{path_text(path)}: differs")


def _check_map(
    desired: Any,  # noqa: ANN401 -- any JSON
    live: Any,  # noqa: ANN401 -- any JSON
    owned: FieldTree,
    children: Sequence[str],
    path: FieldPath,
) -> None:
    if not isinstance(desired, dict) or not isinstance(live, dict):
        raise _Suspect(f"{path_text(path)}: is not a map")
    names = {child[2:] for child in children}
    if names != set(desired):
        name = sorted(names ^ set(desired))[0]
        reason = "desired, but not owned by nimlab" if name in desired else "owned by nimlab, but not desired"
        raise _Suspect(f"{path_text((*path, 'f:' + name))}: {reason}")
    for child in children:
        name = child[2:]
        if name not in live:
            raise _Suspect(f"{path_text((*path, child))}: is missing")
        if not owned[child] and isinstance(desired[name], str) and desired[name] == live[name]:
            continue  # most leaves are equal texts, which do not need the slower general check
        _check_node(desired[name], live[name], owned[child], (*path, child))


def _check_keyed(
    desired: Any,  # noqa: ANN401 -- any JSON
    live: Any,  # noqa: ANN401 -- any JSON
    owned: FieldTree,
    children: Sequence[str],
    path: FieldPath,
) -> None:
    """Compare the items of a keyed list and their order. managedFields do not record the order."""
    keys = {child: decode_key(child) for child in children}
    names = sorted({name for key in keys.values() for name in key})
    child_by_key = {_key_of(key, names): child for child, key in keys.items()}
    desired_items = _by_child(desired, child_by_key, names, path)
    live_items = _by_child(live, child_by_key, names, path)
    if len(desired_items) != len(desired) or set(desired_items) != set(children):
        raise _Suspect(f"{path_text(path)}: the desired items are not those that nimlab owns")
    if not set(desired_items) <= set(live_items):
        raise _Suspect(f"{path_text(path)}: an item is missing")
    if [child for child in live_items if child in desired_items] != list(desired_items):
        raise _Suspect(f"{path_text(path)}: the order differs")
    is_atomic = path[-1][2:] in _ATOMIC_ITEMS
    for child in children:
        if is_atomic and not owned[child]:
            _check_equal(desired_items[child], live_items[child], (*path, child))
            continue
        if "." not in owned[child]:
            raise _Suspect(f"{path_text((*path, child))}: nimlab does not own the item itself")
        _check_node(desired_items[child], live_items[child], owned[child], (*path, child))


def _by_child(
    items: Any,  # noqa: ANN401 -- any JSON
    child_by_key: Mapping[_ItemKey, str],
    names: Sequence[str],
    path: FieldPath,
) -> dict[str, Any]:
    """Return the list items whose keys are in `child_by_key`, in the order of the list.

    Each key of the result is a key of the field tree. Raises _Suspect if two items have the same key.
    """
    matches: dict[str, Any] = {}
    for item in items:
        child = child_by_key.get(_key_of(item, names))
        if child is None:
            continue
        if child in matches:
            raise _Suspect(f"{path_text(path)}: two items have the same key")
        matches[child] = item
    return matches


def _key_of(item: FieldTree, names: Sequence[str]) -> _ItemKey:
    """Return the name, type and value of each key field of an item.

    The type distinguishes 1 from True, because 1 == True in Python.
    """
    return tuple([(name, type(item[name]), item[name]) for name in names if name in item])


def _check_set(desired: Any, live: Any, children: Sequence[str], path: FieldPath) -> None:  # noqa: ANN401 -- any JSON
    owned = {json.dumps(decode_key(child)) for child in children}
    desired_values = [json.dumps(item) for item in desired]
    live_values = [json.dumps(item) for item in live]
    if len(set(desired_values)) != len(desired_values) or len(set(live_values)) != len(live_values):
        raise _Suspect(f"{path_text(path)}: contains duplicate values")
    if set(desired_values) != owned or [value for value in live_values if value in owned] != desired_values:
        raise _Suspect(f"{path_text(path)}: differs")


def _equal(a: Any, b: Any) -> bool:  # noqa: ANN401 -- any JSON
    """Return True if the types and the values are equal. In Python, 0 == False and 1 == 1.0."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(v, b[k]) for k, v in a.items())
    if isinstance(a, list):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)
