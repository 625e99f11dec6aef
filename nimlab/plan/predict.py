"""What an apply would make of an object, told here, where the server can't be asked.

In: a desired manifest and the live object. Out: the object as it would be: what is desired laid over it, and
what we have applied before and no longer want taken out, unless somebody else holds it, too. The server knows
better (defaults, webhooks), so what is planned from this is told as unverified. Pure.

Source: structured-merge-diff, `merge/update.go` (`prune`) and `typed/remove.go`: an apply takes out what its
manager owned and no longer sends, unless another manager owns it; a map that is left empty goes with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, Final, TypeAlias

from nimlab.objects.managed_fields import (
    ATOMIC_MAPS,
    descend,
    entries_of,
    index_of_item,
    is_own_entry,
    merge_trees,
    own_entry,
)
from nimlab.objects.manifest import Manifest
from nimlab.plan.diff import item_name

_Tree: TypeAlias = Mapping[str, Any]


class _Gone(Enum):
    GONE = "gone"


_GONE: Final = _Gone.GONE


def predict(desired: Manifest, live: Manifest) -> Manifest:
    """Return the object as an apply of ours would make it, as far as that can be told without the server."""
    theirs: _Tree = {}
    for entry in entries_of(live):
        if not is_own_entry(entry):
            theirs = merge_trees(theirs, entry.get("fieldsV1") or {})
    made: Manifest = _laid_map(live, desired, own_entry(live) or {}, theirs)
    return made


def _laid(live: Any, desired: Any, owned: _Tree | None, theirs: _Tree | None, name: str) -> Any:  # noqa: ANN401 -- any JSON
    """A value with what is desired laid over it; `owned` and `theirs` are None for what isn't in an entry."""
    if isinstance(desired, Mapping) and isinstance(live, Mapping):
        if name in ATOMIC_MAPS or (desired and {} in (owned, theirs) and not owned and not theirs):
            return desired  # The map is atomic: an apply replaces it, whoever owned it before.
        return _laid_map(live, desired, owned or {}, theirs or {})
    if isinstance(desired, list) and isinstance(live, list) and {} not in (owned, theirs):  # {}: as a whole
        if any(child.startswith("v:") for child in owned or ()):
            return _laid_set(live, desired, owned or {}, theirs or {})
        names = [item_name(item, name) for item in (*live, *desired)]
        if None not in names:
            return _laid_items(live, desired, owned or {}, theirs or {}, name)
    return desired


def _laid_map(live: _Tree, desired: _Tree, owned: _Tree, theirs: _Tree) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in live.items():
        ours, others = owned.get(f"f:{key}"), theirs.get(f"f:{key}")
        left = _laid(value, desired[key], ours, others, key) if key in desired else _left(value, ours, others)
        if left is not _GONE:
            made[key] = left
    return {**made, **{key: value for key, value in desired.items() if key not in live}}


def _laid_items(live: list[Any], desired: list[Any], owned: _Tree, theirs: _Tree, field: str) -> list[Any]:
    """The items of a list that a key tells apart."""
    ours, others = _by_place(live, owned), _by_place(live, theirs)
    wanted = {item_name(item, field): item for item in desired}
    made: dict[str | None, Any] = {}
    for i, item in enumerate(live):
        name = item_name(item, field)
        if name in wanted:
            made[name] = _laid(item, wanted[name], ours.get(i), others.get(i), "")
        elif (left := _left(item, ours.get(i), others.get(i))) is not _GONE:
            made[name] = left
    return [made[name] if name in made else wanted[name] for name in _in_order(list(made), list(wanted))]


def _in_order(there: list[str | None], wanted: list[str | None]) -> list[str | None]:
    """The names in the order that is there, new ones behind those that they follow; or as they are wanted."""
    both = [name for name in there if name in wanted]
    if both != [name for name in wanted if name in there]:
        return wanted + [name for name in there if name not in wanted]
    order = list(there)
    place = 0
    for name in wanted:
        if name not in order:
            order.insert(place, name)
        place = order.index(name) + 1
    return order


def _laid_set(live: list[Any], desired: list[Any], owned: _Tree, theirs: _Tree) -> list[Any]:
    ours, others = _by_place(live, owned), _by_place(live, theirs)
    kept = [v for i, v in enumerate(live) if v in desired or i not in ours or i in others]
    return kept + [value for value in desired if value not in kept]


def _left(live: Any, owned: _Tree | None, theirs: _Tree | None) -> Any:  # noqa: ANN401 -- any JSON
    """What is left of a value that isn't desired any more: all where it isn't ours, or not ours alone."""
    if owned is None:
        return live
    parts = [child for child in owned if child != "."]
    if theirs is None and (not parts or "." in owned):
        return _GONE
    if isinstance(live, Mapping):
        made = {}
        for key, value in live.items():
            left = _left(value, owned.get(f"f:{key}"), (theirs or {}).get(f"f:{key}"))
            if left is not _GONE:
                made[key] = left
        return made if made or not live else _GONE
    if isinstance(live, list) and parts:
        ours, others = _by_place(live, owned), _by_place(live, theirs or {})
        items = [_left(item, ours.get(i), others.get(i)) for i, item in enumerate(live)]
        kept = [item for item in items if item is not _GONE]
        return kept or _GONE
    return live


def _by_place(items: Sequence[Any], tree: _Tree) -> dict[int, _Tree]:
    """The parts of a managedFields tree that speak of a list's items, by the items' places."""
    found: dict[int, _Tree] = {}
    for child in _items_of(tree):
        place = index_of_item(items, child)
        if place is not None and descend(items, child) is not None:
            found[place] = tree[child]
    return found


def _items_of(tree: _Tree) -> Iterable[str]:
    return (child for child in tree if child.startswith(("k:", "v:")))
