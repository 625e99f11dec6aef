"""Rounds of probes: when the next one begins, and one round itself.

In: targets, and a prober per method. Out: what became of each probe. A round that isn't over when the next
one should begin makes that one fall out: rounds never overlap and never catch up. Not done here: counting,
and the loop around it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nimlab.rtt.outcome import Method, Outcome, Prober
from nimlab.rtt.peers import Peer


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One probe that has ended."""

    peer: str
    method: Method
    outcome: Outcome


async def probe_all(targets: Iterable[Peer], probers: Mapping[Method, Prober]) -> tuple[Probe, ...]:
    """Probe each target by each method, all at once; ends with the last of them."""
    return tuple(
        await asyncio.gather(
            *(_probe(peer, method, prober) for peer in targets for method, prober in probers.items())
        )
    )


def next_start(started_s: float, now_s: float, *, interval_s: float, stretch: float) -> tuple[float, int]:
    """Return when the next round begins and how many fall out before it. Pure.

    Args:
        started_s: when the last one should have begun.
        now_s: when it ended.
        interval_s: time between two rounds, on average.
        stretch: this time's factor for the interval, around 1.
    """
    start_s = started_s + interval_s * stretch
    if start_s >= now_s:
        return start_s, 0
    missed = int((now_s - start_s) // interval_s) + 1
    return start_s + missed * interval_s, missed


async def _probe(peer: Peer, method: Method, prober: Prober) -> Probe:
    outcome = await prober(peer.address or peer.host, peer.port)
    return Probe(peer=peer.name, method=method, outcome=outcome)
