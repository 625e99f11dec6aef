"""Plans for random states of a lab: each plan prunes exactly our left-over objects.

The environment variable `NIMLAB_SITUATIONS` sets the number of states, and `NIMLAB_SEED` sets the seed. A
failure reports the number of the state.
"""

from __future__ import annotations

import os
import random
from collections import Counter

from nimlab.files.git_history import Relation
from nimlab.objects.manifest import ObjectKey
from nimlab.plan.change import Action
from nimlab.plan.make_plan import Plan, make_plan
from tests.prune_safety.counters import Counters
from tests.prune_safety.object_variants import AUTHOR_VARIANTS, METADATA_VARIANTS
from tests.prune_safety.oracle import LabScope, applyset_id
from tests.prune_safety.snapshot_generator import Part, Situation, make_situation
from tests.support.examples import examples

SITUATIONS = int(os.environ.get("NIMLAB_SITUATIONS", "0")) or examples(10_000)


def test_ids_of_the_oracle_equal_those_in_the_tests_of_kubectl() -> None:
    """The test vectors come from kubectl's own tests."""
    assert (
        applyset_id("my-set", "test", "Secret") == "applyset-0eFHV8ySqp7XoShsGvyWFQD3s96yqwHmzc4e0HR1dsY-v1"
    )
    company = applyset_id("my-set", "", "ApplySet", "company.com")
    assert company == "applyset-rhp1a-HVAVT_dFgyEygyA1BEB82HPp2o10UiFTpqtAs-v1"
    assert LabScope("a").id != LabScope("b").id


def test_random_labs_lose_only_their_own_left_over_objects(counters: Counters) -> None:
    occurrences: Counter[str] = Counter()
    for number in range(SITUATIONS):
        situation = make_situation(random.Random(f"{counters.seed}:{number}"))  # noqa: S311 -- repeatable, no secret
        plan = make_plan(situation.desired(), situation.snapshot(), situation.policy())
        pruned = {change.key for change in plan.changes if change.action is Action.PRUNE}
        wrong = pruned - situation.deletions(with_doubtful=True)
        not_deleted = situation.deletions(with_doubtful=False) - pruned
        counters.planned += 1
        counters.foreign_deleted += len(wrong)
        counters.ours_left += len(not_deleted)
        where = f"NIMLAB_SEED={counters.seed}, situation {number}"
        assert not wrong, f"{where}: would delete {describe(situation, wrong)}"
        assert not not_deleted, f"{where}: would leave {describe(situation, not_deleted)}"
        assert_withheld(situation, plan, pruned, where)
        assert_replaced(situation, plan, where)
        count(situation, plan, pruned, occurrences)
    if SITUATIONS >= 5000:
        assert_every_variant_occurred(occurrences)


def describe(situation: Situation, keys: set[ObjectKey]) -> str:
    """Return one text per object: its key, its relation to the lab and its variants."""
    return "; ".join(
        f"{key} ({piece.part.value}: {', '.join(piece.oddities) or 'no variant'})"
        for key in sorted(keys)
        for piece in (situation.pieces[key],)
    )


def assert_withheld(situation: Situation, plan: Plan, pruned: set[ObjectKey], where: str) -> None:
    """Check that the plan is refused or deletions are withheld for exactly the expected reasons."""
    relabelled = {piece.experiment for piece in situation.pieces.values() if piece.doubtful}
    if situation.may_be_another_labs() and any(c.action is not Action.KEEP for c in plan.changes):
        assert plan.refusal is not None, where
        return
    doubted = {name for name, relation in situation.ages_by_name().items() if relation is Relation.UNKNOWN}
    if (doubted or Relation.UNKNOWN in situation.ages()) and not situation.refusals():
        pending = {change.experiment for change in plan.changes if change.action is not Action.KEEP}
        if pending if Relation.UNKNOWN in situation.ages() else pending & doubted:
            assert plan.refusal is not None, where
            return
    if plan.refusal is not None and not situation.refusals():
        assert relabelled & (situation.names or set()), where  # a user has removed the name from the labels
        return
    assert (plan.refusal is not None) is bool(situation.refusals()), where
    stops = {stop.code for stop in plan.stops}
    if not pruned:
        assert not stops, where
        return
    either = {situation.is_over(pruned, of_ours=ours) for ours in (True, False)}
    if any(situation.pieces[key].doubtful for key in pruned):
        either.add(True)  # the experiment of a pruned object is unknown
    assert ("limit" in stops) in either, where
    assert stops - {"limit"} == situation.stops(), where


def assert_replaced(situation: Situation, plan: Plan, where: str) -> None:
    """Check that the plan replaces exactly the objects that it must replace."""
    replaced = {c.key for c in plan.changes if c.action is Action.REPLACE and c.error is None}
    assert replaced == situation.replacements(), where


def count(situation: Situation, plan: Plan, pruned: set[ObjectKey], occurrences: Counter[str]) -> None:
    """Count the variants and the results that occur in this state."""
    occurrences.update(oddity for piece in situation.pieces.values() for oddity in piece.oddities)
    occurrences.update(f"stop {stop.code}" for stop in plan.stops)
    occurrences.update(f"refused, {reason}" for reason in situation.refusals())
    occurrences.update(piece.part.name for piece in situation.pieces.values())
    occurrences["of unknown age"] += Relation.UNKNOWN in situation.ages() and plan.refusal is not None
    occurrences["another lab's"] += situation.may_be_another_labs() and plan.refusal is not None
    occurrences["narrowed"] += situation.names is not None
    occurrences["replaced"] += bool(situation.replacements())
    occurrences["namespace pruned"] += any(key.kind == "Namespace" for key in pruned)
    if pruned and not plan.stops and plan.refusal is None:
        occurrences["deletes"] += 1


def assert_every_variant_occurred(occurrences: Counter[str]) -> None:
    """Check that every variant and every result occurred in enough states."""
    stops = ("broken-files", "blocked", "empty", "limit")
    demanded = [
        *METADATA_VARIANTS,
        *(name for name in AUTHOR_VARIANTS if name != "us"),
        *(f"stop {code}" for code in stops),
        "refused, stale",
        "of unknown age",
        "another lab's",
        "refused, unknown name",
        *(part.name for part in Part),
        "a rival",
        "a kind never pruned",
        "a kind of another group",
        "narrowed",
        "replaced",
        "namespace pruned",
    ]
    assert [name_of_variant for name_of_variant in demanded if occurrences[name_of_variant] < 20] == []
    assert occurrences["deletes"] > SITUATIONS / 5, "more than a fifth of the states must lead to deletions"
