"""Reclaim fields from manual edits (`kubectl edit`, `kubectl scale`) by server-side apply.

The caller passes the function that sends the apply. The observation passes a function that sends a dry run.
Only the package `apply` passes a function that writes.
"""

from __future__ import annotations

from typing import Protocol

from nimlab.errors import Conflict, FieldConflict
from nimlab.objects.manifest import Manifest
from nimlab.objects.manual_edit_tools import is_hand_tool


class Apply(Protocol):
    """A server-side apply of one manifest, with or without force. Raises ClusterError."""

    def __call__(self, *, force: bool) -> Manifest:
        """Send the apply and return the object in the response."""


def reclaim_fields(apply: Apply, *, force: bool) -> tuple[Manifest, tuple[Conflict, ...]]:
    """Apply; if only manual edits conflict, apply again with force. Return the object and the conflicts.

    Raises FieldConflict if one of the conflicts is not a manual edit. Raises ClusterError if an apply fails.
    """
    try:
        return apply(force=force), ()
    except FieldConflict as conflict:
        if not all(is_hand_tool(owned.manager) for owned in conflict.conflicts):
            raise
        return apply(force=True), conflict.conflicts
