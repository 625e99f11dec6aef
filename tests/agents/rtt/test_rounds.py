from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from nimlab.agents.rtt.outcome import Method, Outcome, Result
from nimlab.agents.rtt.peers import Peer
from nimlab.agents.rtt.rounds import Probe, next_start, probe_all


def a_peer(name: str, address: str | None) -> Peer:
    return Peer(name=name, host=f"{name}.example", port=len(name), address=address)


def test_all_targets_are_probed_by_all_methods_at_once() -> None:
    probed: list[tuple[str, int]] = []
    all_probed = asyncio.Event()

    async def prober(address: str, port: int) -> Outcome:
        probed.append((address, port))
        if len(probed) == 4:
            all_probed.set()
        await all_probed.wait()  # sequential probes would never finish
        return Outcome(result=Result.REFUSED)

    targets = [a_peer("a", "127.0.0.1"), a_peer("bb", "127.0.0.2")]
    probes = asyncio.run(
        asyncio.wait_for(probe_all(targets, {Method.TCP: prober, Method.UDP: prober}), timeout=5)
    )
    assert sorted(probed) == [("127.0.0.1", 1)] * 2 + [("127.0.0.2", 2)] * 2
    assert {(probe.peer, probe.method) for probe in probes} == {
        (peer, method) for peer in ("a", "bb") for method in (Method.TCP, Method.UDP)
    }
    assert probes[0] == Probe(peer="a", method=Method.TCP, outcome=Outcome(result=Result.REFUSED))


def test_without_targets_there_are_no_probes() -> None:
    assert asyncio.run(probe_all([], {})) == ()


def test_the_next_round_starts_one_interval_after_the_last_start() -> None:
    assert next_start(100.0, 101.0, interval_s=5, stretch=1.0) == (105.0, 0)
    assert next_start(100.0, 101.0, interval_s=5, stretch=1.2) == (106.0, 0)
    assert next_start(100.0, 105.0, interval_s=5, stretch=1.0) == (105.0, 0)


def test_a_late_round_causes_skipped_rounds() -> None:
    assert next_start(100.0, 105.1, interval_s=5, stretch=1.0) == (110.0, 1)
    assert next_start(100.0, 117.0, interval_s=5, stretch=1.0) == (120.0, 3)


@given(st.floats(0, 1e6), st.floats(0, 1e4), st.floats(0.05, 3600), st.floats(0.5, 1.5))
def test_rounds_never_overlap_and_skipped_rounds_are_not_repeated(
    started_s: float, lasted_s: float, interval_s: float, stretch: float
) -> None:
    ended_s = started_s + lasted_s
    start_s, skipped = next_start(started_s, ended_s, interval_s=interval_s, stretch=stretch)
    assert start_s >= ended_s - 1e-6
    assert skipped >= 0
    assert start_s <= max(ended_s, started_s + interval_s * stretch) + interval_s + 1e-6
