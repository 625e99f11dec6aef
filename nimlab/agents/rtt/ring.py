"""Choose the targets of a peer: a few names, which change little when peers join or leave. Pure.

The names form a ring in the order of their sha256. A peer probes the names that follow its own. So each peer
is probed by the same number of peers, and no coordination is needed. When a peer joins or leaves, at most one
target of each other peer changes. `fraction_of` uses the same hash to spread the rounds of the peers over
time.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable


def choose_targets(own: str, peers: Iterable[str], *, fanout: int) -> tuple[str, ...]:
    """Return up to `fanout` different names that follow `own` on the ring, nearest first."""
    order = sorted((_place(name), name) for name in {*peers} - {own})
    start = bisect_right(order, (_place(own), own))
    rotated = order[start:] + order[:start]
    return tuple(name for _, name in rotated[:fanout])


def fraction_of(text: str) -> float:
    """Return a pseudo-random number (0 <= n < 1) that depends only on the text."""
    return int.from_bytes(_place(text)[:6], "big") / 2**48


def _place(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()
