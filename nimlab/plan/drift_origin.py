"""Origin of a difference: another manager has changed the cluster, or the checkout has changed.

In: a change with its live object. Out: True or False. The managedFields show the origin. A field that nimlab
still owns has the value of nimlab's last apply. A field that another manager has written since then belongs
to that manager. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nimlab.objects.managed_fields import entries_of, is_own_entry, own_entry, path_text
from nimlab.plan.change import Action, Change
from nimlab.plan.diff import ABSENT


def has_other_writer(change: Change) -> bool:
    """Return True if a field differs because another manager has overwritten nimlab's value."""
    if change.action is not Action.UPDATE or change.live is None:
        return False
    own = _paths(own_entry(change.live))
    foreign = {
        path
        for entry in entries_of(change.live)
        if not is_own_entry(entry) and entry.get("subresource") != "status"
        for path in _paths(entry.get("fieldsV1"))
    }
    changed = {field.path for field in change.fields if field.old is not ABSENT}
    return any(path in foreign and path not in own for path in changed)


def checkout_has_changed(change: Change) -> bool:
    """Return True if a field has the value of nimlab's last apply, but the files specify another value.

    For a prune, return True if nimlab has applied the object, because earlier files must have specified it.
    """
    if change.action is Action.PRUNE:
        return change.live is not None and own_entry(change.live) is not None
    if change.action not in (Action.UPDATE, Action.REPLACE) or change.live is None:
        return False
    own = _paths(own_entry(change.live))
    return any(field.old is not ABSENT and field.path in own for field in change.fields)


def _paths(fields: Any) -> frozenset[str]:  # noqa: ANN401 -- any JSON
    """Return the paths of all fields in an entry, in readable form."""
    return frozenset(_walk(fields, ())) if isinstance(fields, Mapping) else frozenset()


def _walk(fields: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    for name, subtree in fields.items():
        if name == ".":
            continue
        yield path_text((*path, name))
        if isinstance(subtree, Mapping):
            yield from _walk(subtree, (*path, name))
