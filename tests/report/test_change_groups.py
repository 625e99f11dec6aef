"""A long plan groups similar changes, and shows every other change under its experiment's name."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from nimlab.errors import Conflict, OwnershipConflict
from nimlab.files.spec import OnImmutableChange
from nimlab.objects.foreign_fields import ForeignField
from nimlab.objects.takeover import Takeover
from nimlab.plan.change import Action
from nimlab.plan.make_plan import ExperimentPlan
from nimlab.plan.prune_limits import PruneBlocked
from tests.support.plans import (
    all_objects,
    change,
    experiment,
    field,
    plan,
    plan_json,
    text_of,
)

IMAGE = "spec.template.spec.containers[nimp2p].image"


FOREIGN = ForeignField(manager="mesh", path=("f:spec", "f:x"), text="spec.x", value=1)


def updated(name: str, new: str = "v2", **more: Any) -> ExperimentPlan:
    """Return an experiment whose image and recorded hash change, and whose five peers restart."""
    fields = (field(IMAGE, "v1", new),)
    record = change(Action.UPDATE, "ConfigMap", name, fields=(field("data.sha", "0", name),))
    return experiment(
        name, record, change(Action.UPDATE, "StatefulSet", name, fields=fields, restarts=5, **more)
    )


def many(count: int, new: str = "v2", letter: str = "n") -> list[ExperimentPlan]:
    """Return `count` experiments with the same change."""
    return [updated(f"{letter}{number:04}", new) for number in range(count)]


def test_thousand_similar_changes_fit_on_a_screen() -> None:
    text = text_of(plan(*many(612), *many(388, "v3", "o")))
    assert len(text.splitlines()) < 30
    assert "612 experiments" in text
    assert '"v1" → "v2"' in text
    assert '"v1" → "v3"' in text
    assert "of n0000, n0001, n0002 and 609 more" in text
    assert "612 different changes" in text
    assert "restarts 3060 running peers of 612 experiments: the pod template changes" in text
    assert "1940 running peers of 388 experiments" in text
    assert "2000 to update" in text


def test_thousand_new_experiments_are_one_group() -> None:
    new = [experiment(f"n{n:04}", *all_objects(Action.CREATE, f"n{n:04}"), pods=5) for n in range(1000)]
    text = text_of(plan(*new))
    assert len(text.splitlines()) < 20
    assert "4000 objects: NetworkPolicy, ConfigMap, Service, StatefulSet" in text
    assert "+5000 pods" in text


def test_short_plan_and_verbose_plan_show_each_experiment() -> None:
    assert "3 experiments" not in text_of(plan(*many(3)))
    text = text_of(plan(*many(200)), verbose=True)
    assert "n0199" in text
    assert "200 experiments" not in text


def test_plan_longer_than_the_terminal_is_grouped() -> None:
    assert "5 experiments" in text_of(plan(*many(5)), rows=10)


def shown_alone() -> list[ExperimentPlan]:
    """Return experiments whose changes must be shown under their own names."""
    gone = experiment("gone", *all_objects(Action.PRUNE, "gone"), without_file=True)
    error = OwnershipConflict("the object already exists and was not created by nimlab", where="x", hint="y")
    replaced = change(
        Action.REPLACE, "StatefulSet", "recreated", restarts=5, replace_by=OnImmutableChange.RECREATE
    )
    kept = change(Action.KEEP, "StatefulSet", "kept", foreign=(FOREIGN,))
    return [
        gone,
        experiment("recreated", replaced),
        experiment("kept", kept),
        updated("mixed", foreign=(FOREIGN,)),
        updated("hand", reclaimed_fields=(Conflict(manager="kubectl", field=".spec.replicas"),)),
        updated("bad", error=error),
        updated("given", takeover=Takeover(managers=("kubectl",), removed=())),
    ]


@pytest.mark.parametrize("notable", shown_alone(), ids=lambda notable: notable.name)
def test_notable_change_is_shown_under_its_experiments_name(notable: ExperimentPlan) -> None:
    twins = [replace(notable, name=f"{notable.name}{number}") for number in range(50)]
    text = text_of(plan(*many(200), *twins))
    assert "200 experiments" in text
    assert all(twin.name in text for twin in twins)


def test_text_does_not_depend_on_the_order_of_experiments() -> None:
    experiments = [*many(40), *many(40, "v3", "o"), *many(40, "v4", "p")]
    shuffled = random.Random(1).sample(experiments, len(experiments))  # noqa: S311 -- no secret
    assert text_of(plan(*experiments)) == text_of(plan(*shuffled))


def test_json_lists_every_object() -> None:
    assert plan_json(plan(*many(200))).count('"key"') == 400


def test_held_experiments_form_their_own_group() -> None:
    stop = PruneBlocked(code="limit", what="too many", hint="add `--max-prune 9`")
    held = [
        replace(experiment(f"h{n}", *all_objects(Action.CREATE, f"h{n}"), pods=5), held=True)
        for n in range(50)
    ]
    text = text_of(plan(*many(50), *held, stops=(stop,)), rows=50)
    assert "200 objects, held back: " in text
    assert "50 new experiments are not created" in text
