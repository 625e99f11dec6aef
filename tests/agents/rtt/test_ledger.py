from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimlab.agents.rtt.outcome import Method, Outcome, Result
from nimlab.agents.rtt.peer_window import PeerWindow, Row

LOST = Outcome(result=Result.TIMEOUT)


def took(rtt_s: float) -> Outcome:
    return Outcome(result=Result.SUCCESS, rtt_s=rtt_s)


def a_ledger(*, window_probes: int = 4, linger_s: float = 60.0, max_peers: int = 16) -> PeerWindow:
    return PeerWindow(window_probes=window_probes, linger_s=linger_s, max_peers=max_peers)


def rows_after(*outcomes: Outcome) -> list[Row]:
    ledger = a_ledger()
    ledger.retarget(["p"], now_s=0)
    for outcome in outcomes:
        ledger.record("p", Method.TCP, outcome)
    return [*ledger.rows()]


def a_row(*, last_s: float | None, least_s: float | None, loss_ratio: float) -> Row:
    return Row(peer="p", method=Method.TCP, last_s=last_s, least_s=least_s, loss_ratio=loss_ratio)


def test_nothing_is_said_before_the_first_probe() -> None:
    assert rows_after() == []


def test_last_least_and_loss() -> None:
    assert rows_after(took(2), took(1), LOST, took(3)) == [a_row(last_s=3, least_s=1, loss_ratio=0.25)]


def test_what_is_out_of_the_window_is_forgotten() -> None:
    assert rows_after(took(1), took(5), took(6), took(7), LOST) == [
        a_row(last_s=7, least_s=5, loss_ratio=0.25)
    ]


def test_a_dead_peer_has_no_times_any_more() -> None:
    assert rows_after(took(1), LOST) == [a_row(last_s=1, least_s=1, loss_ratio=0.5)]
    assert rows_after(took(1), *[LOST] * 4) == [a_row(last_s=None, least_s=None, loss_ratio=1)]


@pytest.mark.parametrize("result", [Result.TIMEOUT, Result.REFUSED, Result.UNREACHABLE])
def test_no_answer_is_a_loss_whatever_the_reason(result: Result) -> None:
    assert rows_after(Outcome(result=result))[0].loss_ratio == 1


def test_a_failure_of_our_own_is_no_loss() -> None:
    assert rows_after(took(1), Outcome(result=Result.ERROR))[0].loss_ratio == 0
    assert rows_after(Outcome(result=Result.ERROR)) == []


def test_who_left_stays_for_the_stated_time_and_no_longer() -> None:
    ledger = a_ledger(linger_s=60)
    ledger.retarget(["gone", "here"], now_s=0)
    for peer in ("gone", "here"):
        ledger.record(peer, Method.TCP, took(1))
    ledger.retarget(["here"], now_s=100)
    ledger.retarget(["here"], now_s=150)  # the linger time starts when the peer leaves
    ledger.forget(now_s=159.9)
    assert [row.peer for row in ledger.rows()] == ["gone", "here"]
    ledger.forget(now_s=160)
    assert [row.peer for row in ledger.rows()] == ["here"]


def test_who_comes_back_in_time_is_the_same() -> None:
    ledger = a_ledger(linger_s=60)
    ledger.retarget(["p"], now_s=0)
    ledger.record("p", Method.TCP, took(1))
    ledger.retarget([], now_s=10)
    ledger.retarget(["p"], now_s=20)
    ledger.record("p", Method.TCP, LOST)
    ledger.forget(now_s=1000)
    assert [row.loss_ratio for row in ledger.rows()] == [0.5]


def test_a_probe_that_ends_after_its_peer_is_forgotten_brings_nothing_back() -> None:
    ledger = a_ledger(linger_s=0)
    ledger.retarget(["p"], now_s=0)
    ledger.retarget([], now_s=1)
    ledger.record("p", Method.TCP, took(1))
    assert [*ledger.rows()] == []


def test_too_many_have_left_the_first_goes_first() -> None:
    ledger = a_ledger(max_peers=3)
    for now_s, peer in enumerate("abcd"):
        ledger.retarget([peer], now_s=now_s)
        ledger.record(peer, Method.TCP, took(1))
    assert [row.peer for row in ledger.rows()] == ["b", "c", "d"]


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
def test_however_peers_come_and_go_series_are_few_and_targets_are_among_them(
    steps: list[tuple[str, object]],
) -> None:
    ledger = a_ledger(linger_s=60, max_peers=6)
    now_s, targets, recorded = 0.0, set[str](), set[str]()
    for what, how in steps:
        if what == "retarget":
            assert isinstance(how, set)
            targets = how
            ledger.retarget(targets, now_s=now_s)
            recorded &= {row.peer for row in ledger.rows()}
        elif what == "record":
            assert isinstance(how, str)
            ledger.record(how, Method.TCP, took(1))
            recorded |= {how} & targets
        else:
            assert isinstance(how, int)
            now_s += how
            ledger.forget(now_s=now_s)
        shown = {row.peer for row in ledger.rows()}
        assert len(shown) <= 6
        assert recorded & targets <= shown
