"""managedFields of a live object: each entry names a manager, and contains a tree of the fields it owns.

In: a live object. Out: the entries of nimlab and of other managers, and the values to which their field trees
refer. Pure.

A field tree consists of nested maps. The key `f:NAME` stands for a field, `k:{JSON}` for an item of a keyed
list, and `v:JSON` for an item of a set. The key `.` stands for the map or list item that contains it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, TypeAlias

from nimlab.objects.applyset import FIELD_MANAGER
from nimlab.objects.manifest import Manifest

FieldPath: TypeAlias = tuple[str, ...]
FieldTree: TypeAlias = Mapping[str, Any]

ATOMIC_MAPS: Final = frozenset({
    "selector", "nodeSelector", "podSelector", "namespaceSelector", "labelSelector", "secretKeyRef",
    "configMapKeyRef", "fieldRef", "resourceFieldRef", "roleRef",
})  # fmt: skip
"""Maps that a manager owns as a whole; managedFields do not list the fields inside them."""


def entries_of(live: Manifest) -> list[Mapping[str, Any]]:
    """Return the managedFields entries of an object, without malformed entries."""
    entries = live["metadata"].get("managedFields")
    return [e for e in entries if isinstance(e, Mapping)] if isinstance(entries, list) else []


def is_own_entry(entry: Mapping[str, Any]) -> bool:
    """Return True for an entry that an apply of nimlab wrote."""
    return (
        entry.get("manager") == FIELD_MANAGER
        and entry.get("operation") == "Apply"
        and not entry.get("subresource")
    )


def own_entry(live: Manifest) -> FieldTree | None:
    """Return the field tree of nimlab's Apply entry; None if there is no such entry or more than one."""
    entries = [e for e in entries_of(live) if is_own_entry(e)]
    return entries[0].get("fieldsV1") if len(entries) == 1 else None


def descend(value: Any, child: str) -> Any:  # noqa: ANN401 -- any JSON
    """Return the part of a value to which a key of a field tree refers; None if this part is missing."""
    if child.startswith("f:") and isinstance(value, Mapping):
        return value.get(child[2:])
    index = index_of_item(value, child)
    return None if index is None else value[index]


def index_of_item(value: Any, child: str) -> int | None:  # noqa: ANN401 -- any JSON
    """Return the index of the list item to which a key of a field tree refers; None if there is no item."""
    if not isinstance(value, list):
        return None
    if child.startswith("v:"):
        return next((i for i, item in enumerate(value) if item == decode_key(child)), None)
    if child.startswith("k:"):
        key = decode_key(child).items()
        return next((i for i, item in enumerate(value) if all(item.get(k) == x for k, x in key)), None)
    return None


def path_text(path: FieldPath) -> str:
    """Return a path in readable form, such as `spec.template.spec.containers[nimp2p].env[DEBUG]`."""
    text = ""
    for part in path:
        if part.startswith("f:"):
            name = part[2:]
            plain = name.isidentifier()
            text += (f".{name}" if text else name) if plain else f"[{name}]"
        elif part.startswith("k:"):
            text += "[" + ",".join(str(v) for v in decode_key(part).values()) + "]"
        else:
            text += f"[{part[2:]}]"
    return text


@lru_cache(maxsize=4096)
def decode_key(child: str) -> Any:  # noqa: ANN401 -- any JSON
    """Return the JSON value in a `k:` or `v:` key."""
    return json.loads(child[2:])


def merge_trees(first: FieldTree, second: FieldTree) -> FieldTree:
    """Return the union of two field trees."""
    return {**first, **{name: merge_trees(first.get(name, {}), tree) for name, tree in second.items()}}
