"""Field managers of tools that people use by hand, such as kubectl.

In: the name of a field manager. Out: True if the manager is such a tool. Pure.
"""

from __future__ import annotations

from typing import Final

_HAND_TOOLS: Final = ("kubectl", "before-first-apply", "k9s", "rancher")


def is_hand_tool(manager: str) -> bool:
    """Return True if a field manager is a tool that people use by hand.

    A change by hand is drift, and a sync reverts it. A change by a controller is intended, and a sync reports
    it as a conflict. Most kubectl commands use a manager with the command's name (`kubectl-edit`). The
    command `kubectl scale` uses the manager `kubectl`.
    """
    return manager.startswith(_HAND_TOOLS)
