"""A real Kubernetes control plane on this machine, with simulated nodes: `up`, `down`, `status`.

In: the folder it lives in (`home`), how many nodes, where built programs are kept. Out: values, and
steps of progress through a callback; nothing is printed. Everything listens on 127.0.0.1 alone and
checks certificates. The rooms behind this door: state (the values, and what is remembered on disk),
programs and build (where the five programs come from), pki (certificates, kubeconfigs), parts
(their command lines), process (daemons), api (a little HTTPS client), nodes, queue (in which
controllers wait), view (how it is now),
launch and control (starting, repairing, stopping).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nimlab.sandbox.state import PartState, Phase, SandboxState, Step, is_up

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
    """Find the programs, or build them; nothing is started. Raises SandboxError."""
    from nimlab.sandbox import control  # 80 ms that other commands need not pay

    control.provide_programs(home, cache=cache, report=report)


def up(home: Path, *, nodes: int = 3, cache: Path, report: Callable[[Step], None]) -> SandboxState:
    """Start what isn't running, until all nodes are Ready; harmless when everything is.

    A sandbox that was killed, in part or as a whole, or whose `up` was, is repaired: ports,
    credentials and data stay. Raises SandboxError.
    """
    from nimlab.sandbox import control  # 80 ms that other commands need not pay

    return control.bring_up(home, nodes=nodes, cache=cache, report=report)


def down(home: Path, *, report: Callable[[Step], None]) -> bool:
    """Stop every process and remove `home`; return False if there was nothing. Raises SandboxError.

    The cache and the build's log stay.
    """
    from nimlab.sandbox import control  # as above

    return control.take_down(home, report=report)


def read_state(home: Path) -> SandboxState | None:
    """Return how the sandbox is, with one request to its API server; None if there is none."""
    from nimlab.sandbox import inspect as view  # 45 ms, as above

    return view.look(home)
