"""Deletions come first in the JUnit and Code Quality reports."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nimlab.files.spec import (
    OnImmutableChange,
)
from nimlab.plan.change import Action, Change
from tests.support.gitlab_reports import (
    GONE,
    POLICY,
    STALE,
    events_of,
    findings,
    places,
    plan_cases,
    replaced_plan,
    replacing,
    run_cases,
    withheld_plan,
)
from tests.support.plans import (
    CONFLICT,
    LIMIT,
    SCALE,
    all_objects,
    change,
    engineer_plan,
    experiment,
    plan,
)


@pytest.mark.parametrize("name", ["blue", "m", "zz"])
def test_deletions_come_first_under_their_headlines(name: str) -> None:
    gone = experiment(name, *all_objects(Action.PRUNE, name), without_file=True)
    others = [experiment("a", SCALE), experiment("n", *all_objects(Action.KEEP, "n"))]
    planned = plan(*sorted([gone, *others], key=lambda member: member.name))
    for found_cases, name_of_deletion in (
        (plan_cases(planned), f"{name}: WOULD DELETE 4 objects"),
        (run_cases(planned, events_of(planned)), f"{name}: DELETED 4 objects"),
    ):
        assert [case.name for case in found_cases] == [name_of_deletion, "a", "n"]
    assert findings(plan=planned)[0]["description"].startswith(
        f"{name}: WOULD DELETE 4 objects: StatefulSet/"
    )


def test_planned_deletion_is_skipped_and_lists_its_objects() -> None:
    case, *others = plan_cases(engineer_plan(), removed_in=GONE)
    assert (case.name, case.status) == ("blue: WOULD DELETE 4 objects", "skipped")
    assert "experiments/blue.yaml was removed in 91ab3d0" in case.output
    assert all(str(c.key) in case.output for c in engineer_plan().changes if c.action is Action.PRUNE)
    assert [other.status for other in others] == ["success", "success"]


def test_replacement_is_a_deletion_too() -> None:
    first, blue, purple = plan_cases(replaced_plan())
    assert (first.name, first.status) == ("purple: WOULD DELETE AND RECREATE 1 object", "skipped")
    assert POLICY in first.output
    assert (blue.status, purple.status) == ("failed", "success")
    deletion, error = findings(plan=replaced_plan())
    assert (deletion["check_name"], deletion["severity"]) == ("deletion", "major")
    assert deletion["description"].startswith("purple: WOULD DELETE AND RECREATE 1 object: StatefulSet/")
    assert places([deletion, error]) == [("experiments/purple.yaml", 1), ("experiments/blue.yaml", 1)]


def test_blocked_replacement_deletes_nothing() -> None:
    both = (
        replacing("purple", OnImmutableChange.RECREATE),
        change(Action.UPDATE, "Service", "purple", error=CONFLICT),
    )
    planned = plan(experiment("purple", *both))
    assert [(c.name, c.status) for c in plan_cases(planned)] == [("purple", "failed")]
    assert [finding["check_name"] for finding in findings(plan=planned)] == ["field-conflict"]
    refused_plan = replace(replaced_plan(), refusal=STALE)
    assert not any("WOULD" in case.name for case in plan_cases(refused_plan))


def test_experiment_that_loses_an_object_has_two_cases() -> None:
    planned = plan(experiment("purple", SCALE, change(Action.PRUNE, "NetworkPolicy", "purple"), pods=2))
    assert [(c.name, c.status) for c in plan_cases(planned)] == [
        ("purple: WOULD DELETE 1 object", "skipped"),
        ("purple", "success"),
    ]
    assert places(findings(plan=planned)) == [("experiments/purple.yaml", 1)]


@pytest.mark.parametrize("kept", [(), (change(Action.KEEP, "ConfigMap", "blue", desired=None),)])
def test_experiment_with_a_remaining_file_or_object_keeps_its_own_case(kept: tuple[Change, ...]) -> None:
    """Either the file exists but lacks the pruned objects, or it is removed but an object is kept."""
    planned = plan(experiment("blue", *kept, *all_objects(Action.PRUNE, "blue"), without_file=bool(kept)))
    assert [case.name for case in plan_cases(planned)] == ["blue: WOULD DELETE 4 objects", "blue"]


def test_withheld_deletion_has_its_reason() -> None:
    deletion, stop, *_ = plan_cases(withheld_plan())
    assert (deletion.name, deletion.status) == ("blue: WOULD DELETE 4 objects, WITHHELD", "skipped")
    assert deletion.output.startswith(f"nothing is pruned: {LIMIT.what}\n")
    assert (stop.name, stop.status) == ("NOTHING IS DELETED: limit", "failed")
    assert LIMIT.hint in stop.output
    by_code = {finding["check_name"]: finding for finding in findings(plan=withheld_plan())}
    assert by_code["deletion"]["description"].startswith("blue: WOULD DELETE 4 objects, WITHHELD: ")
    assert LIMIT.hint in by_code["nothing-pruned-limit"]["description"]
