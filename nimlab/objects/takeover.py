"""What has to be taken out of an object, or taken over from others, before an apply of ours says all of it.

In: a desired manifest and the live object. Out: a `Handover`, and the JSON patch that carries it out. Two
reasons for one: an object first made by hand (`kubectl create`, client-side `kubectl apply`), whose maker
would stay co-owner of every field, so that what goes from Git would stay in the cluster; and foreign fields
that are to go because the user said so. Pure.

Sources: client-go's `util/csaupgrade` (the entries are merged, and the resourceVersion is *replaced* in the
patch, so that a race is refused); kubernetes#99003 and #107417 (fields that stay).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from nimlab.objects.applyset import FIELD_MANAGER
from nimlab.objects.managed_fields import (
    Foreign,
    descend,
    entries_of,
    foreign_fields,
    index_of_item,
    merge_trees,
    own_entry,
)
from nimlab.objects.manifest import Manifest
from nimlab.objects.prune_proofs import is_hand_tool, is_own_entry

_Tree: TypeAlias = Mapping[str, Any]

_RESET: Final = "before-first-apply"  # what the server calls the owner of an object whose managers were wiped


@dataclass(frozen=True, slots=True, kw_only=True)
class Takeover:
    """`managers` whose entries become ours, sorted; `removed` are the fields that go."""

    managers: tuple[str, ...]
    removed: tuple[Foreign, ...]


def takeover_of(desired: Manifest, live: Manifest, *, remove_foreign: bool) -> Takeover | None:
    """Return what is to be taken over or out before an apply; None when there is nothing.

    Entries made by hand are taken over while we have none of our own; later ones are foreign additions, which
    stay unless `remove_foreign`.
    """
    managers = _legacy_managers(live)
    if not managers and not remove_foreign:
        return None
    removed = tuple(
        foreign for foreign in foreign_fields(desired, live) if remove_foreign or foreign.manager in managers
    )
    return Takeover(managers=managers, removed=removed) if managers or removed else None


def takeover_patch(takeover: Takeover, live: Manifest) -> list[dict[str, Any]]:
    """Return the JSON patch that does it.

    A field that is no longer there is left out; items of one list are removed from its end on.
    """
    patch: list[dict[str, Any]] = []
    if takeover.managers:
        entries = _merged(live, frozenset(takeover.managers))
        patch.append({"op": "replace", "path": "/metadata/managedFields", "value": entries})
    return patch + [{"op": "remove", "path": _pointer(place)} for place in _places(takeover, live)]


def after_takeover(takeover: Takeover, live: Manifest) -> Manifest:
    """Return the object after the handover, as far as that can be told without the server."""
    made: Manifest = copy.deepcopy(live)
    for *above, last in _places(takeover, live):
        inner: Any = made
        for part in above:
            inner = inner[part]
        del inner[last]
    return made


def _places(takeover: Takeover, live: Manifest) -> list[tuple[str | int, ...]]:
    """Where the fields are that go; what stands behind in a list comes first."""
    places = [place for foreign in takeover.removed if (place := _place(live, foreign.path)) is not None]
    places.sort(key=lambda place: [(isinstance(part, int), part) for part in place], reverse=True)
    return places


def effective(takeover: Takeover, live: Manifest, after_takeover: Manifest) -> Takeover | None:
    """Return a handover without what the server puts back at once; None when nothing is left of it.

    `handed_over` is the object after it. A default that another manager holds can't be taken out: it is what
    the field is when nobody says anything.
    """
    removed = tuple(f for f in takeover.removed if _at(live, f.path) != _at(after_takeover, f.path))
    return Takeover(managers=takeover.managers, removed=removed) if takeover.managers or removed else None


def only_at(live: Manifest) -> dict[str, Any]:
    """Return the operation with which a patch fails unless the object is still at this resourceVersion."""
    return {
        "op": "replace",
        "path": "/metadata/resourceVersion",
        "value": live["metadata"]["resourceVersion"],
    }


def _legacy_managers(live: Manifest) -> tuple[str, ...]:
    """Managers whose Update entries stand for an object made by hand before we had a part in it."""
    ours = own_entry(live) is not None
    found = {
        str(entry.get("manager", ""))
        for entry in entries_of(live)
        if _is_legacy(entry) and (not ours or entry.get("manager") == _RESET)
    }
    return tuple(sorted(found))


def _is_legacy(entry: Mapping[str, Any]) -> bool:
    return (
        is_hand_tool(str(entry.get("manager", "")))
        and entry.get("operation") == "Update"
        and not entry.get("subresource")
    )


def _merged(live: Manifest, managers: frozenset[str]) -> list[Mapping[str, Any]]:
    """The object's entries with those of `managers` made part of our Apply entry."""
    fields: _Tree = {}
    kept = []
    for entry in entries_of(live):
        if is_own_entry(entry) or (_is_legacy(entry) and entry.get("manager") in managers):
            fields = merge_trees(fields, entry.get("fieldsV1") or {})
        else:
            kept.append(entry)
    ours = {
        "manager": FIELD_MANAGER,
        "operation": "Apply",
        "apiVersion": live["apiVersion"],
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
    }
    return [*kept, ours]


def _place(live: Manifest, path: Sequence[str]) -> tuple[str | int, ...] | None:
    """Where in the object a managedFields path leads: names and indexes; None if nothing is there."""
    place: list[str | int] = []
    value: Any = live
    for part in path:
        step = part[2:] if part.startswith("f:") else index_of_item(value, part)
        value = descend(value, part)
        if step is None or value is None:
            return None
        place.append(step)
    return tuple(place)


def _at(live: Manifest, path: Sequence[str]) -> object:
    """What is at a managedFields path; None if nothing is."""
    value: Any = live
    for part in path:
        value = descend(value, part)
    return value


def _pointer(place: Sequence[str | int]) -> str:
    """A JSON pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in place)
