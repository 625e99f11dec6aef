"""Field managers of tools that people use by hand, such as kubectl.

In: the name of a field manager. Out: True if the manager is such a tool. Pure.
"""

from __future__ import annotations

from typing import Final

_HAND_TOOLS: Final = ("kubectl", "before-first-apply", "k9s", "rancher")


def is_hand_tool(manager: str) -> bool:
    """Return True if a field manager is a tool that people use by hand.

    A sync reverts a change by hand, which is drift. A change by a controller is intended, so a sync reports
    it as a conflict. The manager of most kubectl commands has the command's name (`kubectl-edit`); the
    manager of `kubectl scale` is `kubectl`.
    """
    return manager.startswith(_HAND_TOOLS)
