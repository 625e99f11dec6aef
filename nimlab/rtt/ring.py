"""Which peers does this one probe: names -> a few names, stable under joins and leaves.

Pure. All names stand on a ring in the order of their sha256; a peer probes the next ones after itself. So
everyone is probed by equally many, one join or leave changes at most one target of each, and nobody has to
agree on it. Not done here: finding the names. Also here, since it is the same idea: numbers that differ from
peer to peer but not from run to run, which spread the peers' rounds over time.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable


def choose_targets(own: str, peers: Iterable[str], *, fanout: int) -> tuple[str, ...]:
    """Return up to `fanout` names, nearest first; never `own`, none twice."""
    order = sorted((_place(name), name) for name in {*peers} - {own})
    start = bisect_right(order, (_place(own), own))
    turned = order[start:] + order[:start]
    return tuple(name for _, name in turned[:fanout])


def fraction_of(text: str) -> float:
    """Return a number from 0 to below 1 that looks random and is always the same for this text."""
    return int.from_bytes(_place(text)[:6], "big") / 2**48


def _place(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()
