"""Run one round of probes, and compute when the next round starts.

If a round is still running when the next round should start, the next round is skipped. Rounds never overlap,
and a skipped round is not repeated later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nimlab.agents.rtt.outcome import Method, Outcome, Prober
from nimlab.agents.rtt.peers import Peer


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One completed probe."""

    peer: str
    method: Method
    outcome: Outcome


async def probe_all(targets: Iterable[Peer], probers: Mapping[Method, Prober]) -> tuple[Probe, ...]:
    """Probe all targets by all methods concurrently; return when the last probe has completed."""
    return tuple(
        await asyncio.gather(
            *(_probe(peer, method, prober) for peer in targets for method, prober in probers.items())
        )
    )


def next_start(started_s: float, now_s: float, *, interval_s: float, stretch: float) -> tuple[float, int]:
    """Return the start of the next round and the number of skipped rounds before it. Pure.

    Args:
        started_s: scheduled start of the last round.
        now_s: end of the last round.
        interval_s: average time between two rounds.
        stretch: jitter factor for this interval, around 1.
    """
    start_s = started_s + interval_s * stretch
    if start_s >= now_s:
        return start_s, 0
    missed = int((now_s - start_s) // interval_s) + 1
    return start_s + missed * interval_s, missed


async def _probe(peer: Peer, method: Method, prober: Prober) -> Probe:
    outcome = await prober(peer.address or peer.host, peer.port)
    return Probe(peer=peer.name, method=method, outcome=outcome)
