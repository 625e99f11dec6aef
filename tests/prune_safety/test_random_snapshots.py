"""Planning among forgeries: of all that a snapshot may hold, exactly what is ours and left over is pruned.

`NIMLAB_SITUATIONS` and `NIMLAB_SEED` set how many situations and which; a failure names its own number.
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
from tests.prune_safety.object_variants import AUTHORS, MARKS
from tests.prune_safety.oracle import Home, applyset_id
from tests.prune_safety.snapshot_generator import Part, Scene, make_scene
from tests.support.examples import examples

SITUATIONS = int(os.environ.get("NIMLAB_SITUATIONS", "0")) or examples(10_000)


def test_ids_are_as_the_enhancement_proposal_says() -> None:
    """The vectors are kubectl's; the oracle must not be wrong itself."""
    assert (
        applyset_id("my-set", "test", "Secret") == "applyset-0eFHV8ySqp7XoShsGvyWFQD3s96yqwHmzc4e0HR1dsY-v1"
    )
    company = applyset_id("my-set", "", "ApplySet", "company.com")
    assert company == "applyset-rhp1a-HVAVT_dFgyEygyA1BEB82HPp2o10UiFTpqtAs-v1"
    assert Home("a").id != Home("b").id


def test_random_labs_lose_only_what_is_theirs_and_left_over(counters: Counters) -> None:
    seen: Counter[str] = Counter()
    for number in range(SITUATIONS):
        scene = make_scene(random.Random(f"{counters.seed}:{number}"))  # noqa: S311 -- repeatable, no secret
        plan = make_plan(scene.desired(), scene.snapshot(), scene.policy())
        pruned = {change.key for change in plan.changes if change.action is Action.PRUNE}
        wrong = pruned - scene.deletions(with_doubtful=True)
        left = scene.deletions(with_doubtful=False) - pruned
        counters.planned += 1
        counters.foreign_deleted += len(wrong)
        counters.ours_left += len(left)
        where = f"NIMLAB_SEED={counters.seed}, situation {number}"
        assert not wrong, f"{where}: would delete {describe(scene, wrong)}"
        assert not left, f"{where}: would leave {describe(scene, left)}"
        assert_withheld(scene, plan, pruned, where)
        assert_replaced(scene, plan, where)
        count(scene, plan, pruned, seen)
    if SITUATIONS >= 5000:
        assert_everything_was_met(seen)


def describe(scene: Scene, keys: set[ObjectKey]) -> str:
    """What the objects are, and how they were forged."""
    return "; ".join(
        f"{key} ({scene.pieces[key].part.value}: {', '.join(scene.pieces[key].oddities) or 'nothing odd'})"
        for key in sorted(keys)
    )


def assert_withheld(scene: Scene, plan: Plan, pruned: set[ObjectKey], where: str) -> None:
    """Nothing is deleted when there is a reason not to, and there is no reason but those."""
    relabelled = {piece.experiment for piece in scene.pieces.values() if piece.doubtful}
    if scene.may_be_another_labs() and any(c.action is not Action.KEEP for c in plan.changes):
        assert plan.refusal is not None, where
        return
    doubted = {name for name, relation in scene.ages_by_name().items() if relation is Relation.UNKNOWN}
    if (doubted or Relation.UNKNOWN in scene.ages()) and not scene.refusals():
        pending = {change.experiment for change in plan.changes if change.action is not Action.KEEP}
        if pending if Relation.UNKNOWN in scene.ages() else pending & doubted:
            assert plan.refusal is not None, where
            return
    if plan.refusal is not None and not scene.refusals():
        assert relabelled & (scene.names or set()), where  # nothing carries the name any more
        return
    assert (plan.refusal is not None) is bool(scene.refusals()), where
    stops = {stop.code for stop in plan.stops}
    if not pruned:
        assert not stops, where
        return
    either = {scene.is_over(pruned, of_ours=ours) for ours in (True, False)}
    if any(scene.pieces[key].doubtful for key in pruned):
        either.add(True)  # nobody can say that it is a single experiment's
    assert ("limit" in stops) in either, where
    assert stops - {"limit"} == scene.stops(), where


def assert_replaced(scene: Scene, plan: Plan, where: str) -> None:
    """A replacement deletes too: only what a file asks for, where its experiment allows it."""
    replaced = {c.key for c in plan.changes if c.action is Action.REPLACE and c.error is None}
    assert replaced == scene.replacements(), where


def count(scene: Scene, plan: Plan, pruned: set[ObjectKey], seen: Counter[str]) -> None:
    """Note what this situation held."""
    seen.update(oddity for piece in scene.pieces.values() for oddity in piece.oddities)
    seen.update(f"stop {stop.code}" for stop in plan.stops)
    seen.update(f"refused, {reason}" for reason in scene.refusals())
    seen.update(piece.part.name for piece in scene.pieces.values())
    seen["of unknown age"] += Relation.UNKNOWN in scene.ages() and plan.refusal is not None
    seen["another lab's"] += scene.may_be_another_labs() and plan.refusal is not None
    seen["narrowed"] += scene.names is not None
    seen["replaced"] += bool(scene.replacements())
    seen["namespace pruned"] += any(key.kind == "Namespace" for key in pruned)
    if pruned and not plan.stops and plan.refusal is None:
        seen["deletes"] += 1


def assert_everything_was_met(seen: Counter[str]) -> None:
    """A torture that leaves out an instrument has shown nothing of it."""
    stops = ("broken-files", "blocked", "empty", "limit")
    demanded = [
        *MARKS,
        *(name for name in AUTHORS if name != "us"),
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
    assert [what for what in demanded if seen[what] < 20] == []
    assert seen["deletes"] > SITUATIONS / 5, "most situations have to be dangerous"
