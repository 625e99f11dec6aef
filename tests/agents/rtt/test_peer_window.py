from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimlab.agents.rtt.outcome import Method, Outcome, Result
from nimlab.agents.rtt.peer_window import PeerWindow, Row

LOST = Outcome(result=Result.TIMEOUT)


def took(rtt_s: float) -> Outcome:
    return Outcome(result=Result.SUCCESS, rtt_s=rtt_s)


def make_window(*, window_probes: int = 4, linger_s: float = 60.0, max_peers: int = 16) -> PeerWindow:
    return PeerWindow(window_probes=window_probes, linger_s=linger_s, max_peers=max_peers)


def rows_after(*outcomes: Outcome) -> list[Row]:
    window = make_window()
    window.retarget(["p"], now_s=0)
    for outcome in outcomes:
        window.record("p", Method.TCP, outcome)
    return [*window.rows()]


def a_row(*, last_s: float | None, least_s: float | None, loss_ratio: float) -> Row:
    return Row(peer="p", method=Method.TCP, last_s=last_s, least_s=least_s, loss_ratio=loss_ratio)


def test_there_are_no_rows_before_the_first_probe() -> None:
    assert rows_after() == []


def test_a_row_contains_the_last_and_minimum_time_and_the_loss() -> None:
    assert rows_after(took(2), took(1), LOST, took(3)) == [a_row(last_s=3, least_s=1, loss_ratio=0.25)]


def test_probes_outside_the_window_are_dropped() -> None:
    assert rows_after(took(1), took(5), took(6), took(7), LOST) == [
        a_row(last_s=7, least_s=5, loss_ratio=0.25)
    ]


def test_a_dead_peer_has_no_times() -> None:
    assert rows_after(took(1), LOST) == [a_row(last_s=1, least_s=1, loss_ratio=0.5)]
    assert rows_after(took(1), *[LOST] * 4) == [a_row(last_s=None, least_s=None, loss_ratio=1)]


@pytest.mark.parametrize("result", [Result.TIMEOUT, Result.REFUSED, Result.UNREACHABLE])
def test_every_missing_response_is_a_loss(result: Result) -> None:
    assert rows_after(Outcome(result=result))[0].loss_ratio == 1


def test_a_local_error_is_not_a_loss() -> None:
    assert rows_after(took(1), Outcome(result=Result.ERROR))[0].loss_ratio == 0
    assert rows_after(Outcome(result=Result.ERROR)) == []


def test_a_removed_peer_lingers_for_the_configured_time() -> None:
    window = make_window(linger_s=60)
    window.retarget(["gone", "here"], now_s=0)
    for peer in ("gone", "here"):
        window.record(peer, Method.TCP, took(1))
    window.retarget(["here"], now_s=100)
    window.retarget(["here"], now_s=150)  # the linger time starts when the peer leaves
    window.forget(now_s=159.9)
    assert [row.peer for row in window.rows()] == ["gone", "here"]
    window.forget(now_s=160)
    assert [row.peer for row in window.rows()] == ["here"]


def test_a_peer_that_returns_in_time_keeps_its_window() -> None:
    window = make_window(linger_s=60)
    window.retarget(["p"], now_s=0)
    window.record("p", Method.TCP, took(1))
    window.retarget([], now_s=10)
    window.retarget(["p"], now_s=20)
    window.record("p", Method.TCP, LOST)
    window.forget(now_s=1000)
    assert [row.loss_ratio for row in window.rows()] == [0.5]


def test_a_late_result_does_not_restore_a_removed_peer() -> None:
    window = make_window(linger_s=0)
    window.retarget(["p"], now_s=0)
    window.retarget([], now_s=1)
    window.record("p", Method.TCP, took(1))
    assert [*window.rows()] == []


def test_above_the_limit_the_oldest_peer_is_dropped_first() -> None:
    window = make_window(max_peers=3)
    for now_s, peer in enumerate("abcd"):
        window.retarget([peer], now_s=now_s)
        window.record(peer, Method.TCP, took(1))
    assert [row.peer for row in window.rows()] == ["b", "c", "d"]


PEERS = st.sampled_from("abcdefghij")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("retarget"), st.sets(PEERS, max_size=4)),
        st.tuples(st.just("record"), PEERS),
        st.tuples(st.just("wait"), st.integers(min_value=0, max_value=40)),
    ),
    max_size=40,
)


@given(STEPS)
def test_series_are_limited_and_include_all_targets(
    steps: list[tuple[str, object]],
) -> None:
    window = make_window(linger_s=60, max_peers=6)
    now_s, targets, recorded = 0.0, set[str](), set[str]()
    for action, argument in steps:
        if action == "retarget":
            assert isinstance(argument, set)
            targets = argument
            window.retarget(targets, now_s=now_s)
            recorded &= {row.peer for row in window.rows()}
        elif action == "record":
            assert isinstance(argument, str)
            window.record(argument, Method.TCP, took(1))
            recorded |= {argument} & targets
        else:
            assert isinstance(argument, int)
            now_s += argument
            window.forget(now_s=now_s)
        shown = {row.peer for row in window.rows()}
        assert len(shown) <= 6
        assert recorded & targets <= shown
