from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from nimlab.agents.rtt.ring import choose_targets, fraction_of

NAMES = st.sets(st.text(min_size=1, max_size=12), min_size=1, max_size=40)
FANOUT = st.integers(min_value=1, max_value=10)


@given(NAMES, FANOUT, st.data())
def test_targets_are_other_peers_up_to_the_fanout(names: set[str], fanout: int, data: st.DataObject) -> None:
    own = data.draw(st.sampled_from(sorted(names)))
    targets = choose_targets(own, names, fanout=fanout)
    assert len(targets) == len(set(targets)) == min(fanout, len(names) - 1)
    assert set(targets) <= names - {own}


@given(NAMES, FANOUT)
def test_every_peer_is_probed_by_the_same_number_of_peers(names: set[str], fanout: int) -> None:
    probed = Counter(target for own in names for target in choose_targets(own, names, fanout=fanout))
    assert {probed[name] for name in names} == {min(fanout, len(names) - 1)}


@given(NAMES, FANOUT, st.data())
def test_the_order_of_the_names_has_no_effect(names: set[str], fanout: int, data: st.DataObject) -> None:
    own, in_order = min(names), sorted(names)
    shuffled = data.draw(st.permutations(in_order))
    assert choose_targets(own, shuffled, fanout=fanout) == choose_targets(own, in_order, fanout=fanout)


@given(NAMES, st.text(min_size=1, max_size=12), FANOUT)
def test_a_join_or_a_leave_changes_at_most_one_target_of_each_peer(
    names: set[str], other: str, fanout: int
) -> None:
    for own in names - {other}:
        without = set(choose_targets(own, names - {other}, fanout=fanout))
        having = set(choose_targets(own, names | {other}, fanout=fanout))
        assert having - without <= {other}
        assert len(without - having) <= 1


@given(NAMES, st.text(min_size=1, max_size=12), FANOUT)
def test_a_join_changes_the_targets_of_at_most_fanout_peers(
    names: set[str], joined: str, fanout: int
) -> None:
    before = names - {joined}
    changed = [
        own
        for own in before
        if choose_targets(own, before, fanout=fanout) != choose_targets(own, before | {joined}, fanout=fanout)
    ]
    assert len(changed) <= fanout


@given(NAMES, FANOUT)
def test_an_unlisted_peer_chooses_as_if_it_were_listed(names: set[str], fanout: int) -> None:
    own = min(names)
    assert choose_targets(own, names - {own}, fanout=fanout) == choose_targets(own, names, fanout=fanout)


# The numbers N from 0 to 9, sorted by the output of `printf purple-N | sha256sum`.
BY_SHA256SUM = "5 8 0 2 9 6 3 7 4 1"


def test_the_choice_is_the_same_in_every_process() -> None:
    peers = [f"purple-{n}" for n in range(10)]
    order = BY_SHA256SUM.split()
    for place, own in enumerate(order):
        following = (order + order)[place + 1 : place + 4]
        assert choose_targets(f"purple-{own}", peers, fanout=3) == tuple(f"purple-{n}" for n in following)


@given(st.text())
def test_a_fraction_is_at_least_0_and_below_1(text: str) -> None:
    assert 0 <= fraction_of(text) < 1
    assert fraction_of(text) == fraction_of(text)


def test_fractions_are_spread() -> None:
    tenths = Counter(int(10 * fraction_of(f"nimp2p-exp-purple-{n}")) for n in range(1000))
    assert len(tenths) == 10
    assert max(tenths.values()) < 150
