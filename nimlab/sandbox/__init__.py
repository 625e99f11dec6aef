"""A Kubernetes control plane on this machine, with simulated nodes: `up`, `down`, `status`.

In: the sandbox's folder (`home`), the number of nodes, the cache folder for built programs. Out: values, and
steps of progress through a callback; nothing is printed. Every server listens on 127.0.0.1 only and requires
client certificates. The sandbox never reads or changes the user's cluster.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nimlab.sandbox.saved_processes import is_up
from nimlab.sandbox.state_values import PartState, Phase, SandboxState, Step

__all__ = [
    "PartState",
    "Phase",
    "SandboxState",
    "Step",
    "down",
    "is_up",
    "provide_programs",
    "read_state",
    "up",
]


def provide_programs(home: Path, *, cache: Path, report: Callable[[Step], None]) -> None:
    """Find the control plane's programs, or build them; start no process. Raises SandboxError."""
    from nimlab.sandbox import lifecycle  # a slow import, which other commands do not need

    lifecycle.provide_programs(home, cache=cache, report=report)


def up(home: Path, *, nodes: int = 3, cache: Path, report: Callable[[Step], None]) -> SandboxState:
    """Start the parts that are not running, and wait until all nodes are Ready. Raises SandboxError.

    It does nothing if everything is running. If any process has been killed, even during an earlier `up`, it
    repairs the sandbox and keeps its ports, credentials and data.
    """
    from nimlab.sandbox import lifecycle  # a slow import, which other commands do not need

    return lifecycle.bring_up(home, nodes=nodes, cache=cache, report=report)


def down(home: Path, *, report: Callable[[Step], None]) -> bool:
    """Stop every process and remove `home`; return False if there was neither. Raises SandboxError.

    The cache and the build log are kept.
    """
    from nimlab.sandbox import lifecycle  # a slow import, which other commands do not need

    return lifecycle.take_down(home, report=report)


def read_state(home: Path) -> SandboxState | None:
    """Return the state of the sandbox, or None if no sandbox exists. Send at most one request."""
    from nimlab.sandbox import sandbox_status  # a slow import, which other commands do not need

    return sandbox_status.read_state(home)
