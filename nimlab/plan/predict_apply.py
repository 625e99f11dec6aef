"""Client-side prediction of an apply, for credentials that do not allow a dry run on the server.

In: a desired manifest and the live object. Out: the object after the apply. This object has the desired
values. It does not have the fields that nimlab applied earlier but no longer desires, unless another manager
owns them too. The prediction ignores defaults and webhooks, so plans based on it are marked as unverified.
Pure.

Source: structured-merge-diff, `merge/update.go` (`prune`) and `typed/remove.go`: an apply removes the fields
that its manager owns but no longer sends, unless another manager owns them. It also removes the maps that
become empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Final

from nimlab.objects.managed_fields import (
    ATOMIC_MAPS,
    FieldTree,
    descend,
    entries_of,
    index_of_item,
    is_own_entry,
    merge_trees,
    own_entry,
)
from nimlab.objects.manifest import Manifest
from nimlab.plan.diff import item_name


class _Removed(Enum):
    REMOVED = "removed"


_REMOVED: Final = _Removed.REMOVED


def predict(desired: Manifest, live: Manifest) -> Manifest:
    """Return the object after an apply by nimlab, as far as it can be predicted without the server."""
    foreign: FieldTree = {}
    for entry in entries_of(live):
        if not is_own_entry(entry):
            foreign = merge_trees(foreign, entry.get("fieldsV1") or {})
    result: Manifest = _merge_map(live, desired, own_entry(live) or {}, foreign)
    return result


# Below, `own` is what nimlab's field tree contains for a value, and `foreign` is what the merged trees of the
# other managers contain for it. None means that the tree does not contain the value. {} means that the tree
# contains the value as a whole, without parts.


def _merge(
    live: Any,  # noqa: ANN401 -- any JSON
    desired: Any,  # noqa: ANN401 -- any JSON
    own: FieldTree | None,
    foreign: FieldTree | None,
    field: str,
) -> Any:  # noqa: ANN401 -- any JSON
    """Return the value that results if a desired value is applied to a live value."""
    if isinstance(desired, Mapping) and isinstance(live, Mapping):
        if field in ATOMIC_MAPS or (desired and {} in (own, foreign) and not own and not foreign):
            return desired  # the map is atomic, so an apply replaces it, whichever manager owns it
        return _merge_map(live, desired, own or {}, foreign or {})
    if isinstance(desired, list) and isinstance(live, list) and {} not in (own, foreign):
        if any(child.startswith("v:") for child in own or ()):
            return _merge_set(live, desired, own or {}, foreign or {})
        names = [item_name(item, field) for item in (*live, *desired)]
        if None not in names:
            return _merge_items(live, desired, own or {}, foreign or {}, field)
    return desired


def _merge_map(live: FieldTree, desired: FieldTree, own: FieldTree, foreign: FieldTree) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in live.items():
        own_part, foreign_part = own.get(f"f:{key}"), foreign.get(f"f:{key}")
        if key in desired:
            result[key] = _merge(value, desired[key], own_part, foreign_part, key)
        elif (remainder := _remainder(value, own_part, foreign_part)) is not _REMOVED:
            result[key] = remainder
    return {**result, **{key: value for key, value in desired.items() if key not in live}}


def _merge_items(
    live: list[Any], desired: list[Any], own: FieldTree, foreign: FieldTree, field: str
) -> list[Any]:
    """Merge two keyed lists."""
    own_parts, foreign_parts = _by_index(live, own), _by_index(live, foreign)
    desired_items = {item_name(item, field): item for item in desired}
    result: dict[str | None, Any] = {}
    for i, item in enumerate(live):
        name = item_name(item, field)
        own_part, foreign_part = own_parts.get(i), foreign_parts.get(i)
        if name in desired_items:
            result[name] = _merge(item, desired_items[name], own_part, foreign_part, "")
        elif (remainder := _remainder(item, own_part, foreign_part)) is not _REMOVED:
            result[name] = remainder
    order = _merged_order(list(result), list(desired_items))
    return [result[name] if name in result else desired_items[name] for name in order]


def _merged_order(live: list[str | None], desired: list[str | None]) -> list[str | None]:
    """Return the order of the merged list: the live order, with each new name after its desired predecessor.

    If the two lists order their common names differently, the result is the desired order, followed by the
    other live names.
    """
    common = [name for name in live if name in desired]
    if common != [name for name in desired if name in live]:
        return desired + [name for name in live if name not in desired]
    order = list(live)
    index = 0
    for name in desired:
        if name not in order:
            order.insert(index, name)
        index = order.index(name) + 1
    return order


def _merge_set(live: list[Any], desired: list[Any], own: FieldTree, foreign: FieldTree) -> list[Any]:
    own_parts, foreign_parts = _by_index(live, own), _by_index(live, foreign)
    kept = [v for i, v in enumerate(live) if v in desired or i not in own_parts or i in foreign_parts]
    return kept + [value for value in desired if value not in kept]


def _remainder(live: Any, own: FieldTree | None, foreign: FieldTree | None) -> Any:  # noqa: ANN401 -- any JSON
    """Return a value that is no longer desired without the parts that only nimlab owns.

    Return _REMOVED if nothing remains.
    """
    if own is None:
        return live
    parts = [child for child in own if child != "."]
    if foreign is None and (not parts or "." in own):
        return _REMOVED
    if isinstance(live, Mapping):
        result = {}
        for key, value in live.items():
            remainder = _remainder(value, own.get(f"f:{key}"), (foreign or {}).get(f"f:{key}"))
            if remainder is not _REMOVED:
                result[key] = remainder
        return result if result or not live else _REMOVED
    if isinstance(live, list) and parts:
        own_parts, foreign_parts = _by_index(live, own), _by_index(live, foreign or {})
        items = [_remainder(item, own_parts.get(i), foreign_parts.get(i)) for i, item in enumerate(live)]
        kept = [item for item in items if item is not _REMOVED]
        return kept or _REMOVED
    return live


def _by_index(items: Sequence[Any], tree: FieldTree) -> dict[int, FieldTree]:
    """Return a map from the index of each list item in the field tree to the subtree of the item."""
    subtrees: dict[int, FieldTree] = {}
    for child in tree:
        if not child.startswith(("k:", "v:")):
            continue
        index = index_of_item(items, child)
        if index is not None and descend(items, child) is not None:
            subtrees[index] = tree[child]
    return subtrees
