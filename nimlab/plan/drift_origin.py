"""A change -> whether what differs was written by somebody else, or is newer in the checkout.

In: changes with their live object. Out: yes or no. An object's managedFields decide: a field that is still
ours has the value of our last apply; one that somebody has written since is theirs. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nimlab.objects.managed_fields import entries_of, is_own_entry, own_entry, path_text
from nimlab.plan.change import Action, Change
from nimlab.plan.diff import ABSENT


def has_other_writer(change: Change) -> bool:
    """Return True when a field that differs has a value that another manager has written over ours."""
    if change.action is not Action.UPDATE or change.live is None:
        return False
    ours = _texts(own_entry(change.live))
    theirs = {
        text
        for entry in entries_of(change.live)
        if not is_own_entry(entry) and entry.get("subresource") != "status"
        for text in _texts(entry.get("fieldsV1"))
    }
    changed = {field.path for field in change.fields if field.old is not ABSENT}
    return any(path in theirs and path not in ours for path in changed)


def is_newer(change: Change) -> bool:
    """Return True when what differs is as we have applied it: then the checkout asks for something else."""
    if change.action is Action.PRUNE:
        return change.live is not None and own_entry(change.live) is not None
    if change.action not in (Action.UPDATE, Action.REPLACE) or change.live is None:
        return False
    ours = _texts(own_entry(change.live))
    return any(field.old is not ABSENT and field.path in ours for field in change.fields)


def _texts(fields: Any) -> frozenset[str]:  # noqa: ANN401 -- any JSON
    """The paths of all fields of an entry, as people read them."""
    return frozenset(_walk(fields, ())) if isinstance(fields, Mapping) else frozenset()


def _walk(fields: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    for name, below in fields.items():
        if name == ".":
            continue
        yield path_text((*path, name))
        if isinstance(below, Mapping):
            yield from _walk(below, (*path, name))
