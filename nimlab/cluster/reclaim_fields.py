"""Server-side apply that reclaims fields from manual edits (`kubectl edit`, `kubectl scale` and the like).

The caller passes the apply itself. So observation passes a dry run, and only `apply` passes a write.
"""

from __future__ import annotations

from typing import Protocol

from nimlab.errors import Conflict, FieldConflict
from nimlab.objects.hand_tools import is_hand_tool
from nimlab.objects.manifest import Manifest


class Apply(Protocol):
    """A server-side apply of one manifest, with or without force. Raises ClusterError."""

    def __call__(self, *, force: bool) -> Manifest:
        """Send the apply and return the resulting object."""


def reclaim_fields(apply: Apply, *, force: bool) -> tuple[Manifest, tuple[Conflict, ...]]:
    """Apply; if only manual edits conflict, apply again with force. Return the object and those conflicts.

    Raises FieldConflict when any other field manager owns one of the fields, ClusterError.
    """
    try:
        return apply(force=force), ()
    except FieldConflict as conflict:
        if not all(is_hand_tool(owned.manager) for owned in conflict.conflicts):
            raise
        return apply(force=True), conflict.conflicts
