"""Takeover: the changes that prepare an object of another tool for an apply by nimlab.

In: a desired manifest and the live object. Out: a `Takeover`, and the JSON patch that performs it. The patch
changes the managedFields of the object and removes fields. Pure.

There are two reasons for a takeover. First, a user created the object by hand (`kubectl create` or
client-side `kubectl apply`). Without a takeover, kubectl would remain a co-owner of every field, and a field
that is later removed from Git would stay in the cluster. Second, the user requested the removal of foreign
fields (`--remove-foreign`).

Sources: client-go's `util/csaupgrade` merges the entries of the managers. Its patch *replaces* the
resourceVersion, so the server rejects the patch after a concurrent write. kubernetes#99003 and #107417
describe the fields that stay.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nimlab.objects.applyset import FIELD_MANAGER
from nimlab.objects.foreign_fields import ForeignField, foreign_fields
from nimlab.objects.managed_fields import (
    FieldTree,
    descend,
    entries_of,
    index_of_item,
    is_own_entry,
    merge_trees,
    own_entry,
)
from nimlab.objects.manifest import Manifest
from nimlab.objects.manual_edit_tools import is_hand_tool

_BEFORE_FIRST_APPLY: Final = "before-first-apply"
"""The manager that the server records for the existing fields if an object has no managedFields yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Takeover:
    """The changes that nimlab makes to an object before it applies the object.

    nimlab merges the managedFields entries of `managers` into its own entry, and removes the fields in
    `removed`. `managers` is sorted.
    """

    managers: tuple[str, ...]
    removed: tuple[ForeignField, ...]


def takeover_of(desired: Manifest, live: Manifest, *, remove_foreign: bool) -> Takeover | None:
    """Return the takeover that must precede an apply; None if there is nothing to do.

    Entries of hand tools are taken over only before nimlab's first apply. The entry of `before-first-apply`
    is an exception: it is also taken over later. Fields that a hand tool adds after the first apply are
    foreign; they stay unless `remove_foreign` is set.
    """
    managers = _legacy_managers(live)
    if not managers and not remove_foreign:
        return None
    removed = tuple(
        foreign for foreign in foreign_fields(desired, live) if remove_foreign or foreign.manager in managers
    )
    return Takeover(managers=managers, removed=removed) if managers or removed else None


def takeover_patch(takeover: Takeover, live: Manifest) -> list[dict[str, Any]]:
    """Return the JSON patch for a takeover.

    The patch omits fields that no longer exist. It removes the items of a list in reverse order, so that the
    indexes of the remaining items stay valid.
    """
    patch: list[dict[str, Any]] = []
    if takeover.managers:
        entries = _merged_entries(live, frozenset(takeover.managers))
        patch.append({"op": "replace", "path": "/metadata/managedFields", "value": entries})
    return patch + [
        {"op": "remove", "path": _json_pointer(location)} for location in _locations(takeover, live)
    ]


def after_takeover(takeover: Takeover, live: Manifest) -> Manifest:
    """Return the object after the takeover, as far as it can be predicted without the server."""
    result: Manifest = copy.deepcopy(live)
    for *parents, last in _locations(takeover, live):
        parent: Any = result
        for part in parents:
            parent = parent[part]
        del parent[last]
    return result


def _locations(takeover: Takeover, live: Manifest) -> list[tuple[str | int, ...]]:
    """Return the locations of the fields to remove; later list items come first."""
    locations = [
        location for foreign in takeover.removed if (location := _location(live, foreign.path)) is not None
    ]
    locations.sort(key=lambda location: [(isinstance(part, int), part) for part in location], reverse=True)
    return locations


def effective_takeover(takeover: Takeover, live: Manifest, after_takeover: Manifest) -> Takeover | None:
    """Return the takeover without the fields that the server would restore; None if nothing remains.

    `after_takeover` is the object that the server returned after the takeover. For example, a field with a
    default cannot be removed, because the server fills in the default again.
    """
    removed = tuple(f for f in takeover.removed if _at(live, f.path) != _at(after_takeover, f.path))
    return Takeover(managers=takeover.managers, removed=removed) if takeover.managers or removed else None


def require_version(live: Manifest) -> dict[str, Any]:
    """Return the patch operation that fails unless the object still has the resourceVersion of `live`."""
    return {
        "op": "replace",
        "path": "/metadata/resourceVersion",
        "value": live["metadata"]["resourceVersion"],
    }


def _legacy_managers(live: Manifest) -> tuple[str, ...]:
    """Return the field managers of the hand tools whose entries nimlab takes over, sorted."""
    is_applied = own_entry(live) is not None
    managers = {
        str(entry.get("manager", ""))
        for entry in entries_of(live)
        if _is_legacy(entry) and (not is_applied or entry.get("manager") == _BEFORE_FIRST_APPLY)
    }
    return tuple(sorted(managers))


def _is_legacy(entry: Mapping[str, Any]) -> bool:
    return (
        is_hand_tool(str(entry.get("manager", "")))
        and entry.get("operation") == "Update"
        and not entry.get("subresource")
    )


def _merged_entries(live: Manifest, managers: frozenset[str]) -> list[Mapping[str, Any]]:
    """Return the object's managedFields, with the entries of `managers` merged into nimlab's Apply entry."""
    fields: FieldTree = {}
    kept = []
    for entry in entries_of(live):
        if is_own_entry(entry) or (_is_legacy(entry) and entry.get("manager") in managers):
            fields = merge_trees(fields, entry.get("fieldsV1") or {})
        else:
            kept.append(entry)
    own = {
        "manager": FIELD_MANAGER,
        "operation": "Apply",
        "apiVersion": live["apiVersion"],
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
    }
    return [*kept, own]


def _location(live: Manifest, path: Sequence[str]) -> tuple[str | int, ...] | None:
    """Convert a managedFields path to field names and list indexes; None if the field is missing."""
    location: list[str | int] = []
    value: Any = live
    for part in path:
        step = part[2:] if part.startswith("f:") else index_of_item(value, part)
        value = descend(value, part)
        if step is None or value is None:
            return None
        location.append(step)
    return tuple(location)


def _at(live: Manifest, path: Sequence[str]) -> object:
    """Return the value at a managedFields path; None if there is no value."""
    value: Any = live
    for part in path:
        value = descend(value, part)
    return value


def _json_pointer(location: Sequence[str | int]) -> str:
    """Return a location as a JSON pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in location)
