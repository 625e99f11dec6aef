"""The exit codes of a plan and of a sync."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nimlab import report
from nimlab.errors import (
    PlanError,
)
from nimlab.files.spec import (
    BrokenFile,
)
from nimlab.plan.change import Action
from nimlab.plan.make_plan import Plan
from nimlab.plan.sync_events import (
    Event,
    Outcome,
)
from tests.support.plans import (
    ALREADY_SETTLED,
    CHANGING,
    CONFLICT,
    DEBUG,
    HALFWAY,
    LIMIT,
    SCALE,
    STUCK,
    change,
    done_events,
    experiment,
    plan,
)


@pytest.mark.parametrize(
    ("planned", "expected"),
    [
        (plan(), 0),
        (plan(CHANGING), 3),
        (plan(experiment("red", change(Action.KEEP, "Service", "red", foreign=(DEBUG,)))), 0),
        (plan(CHANGING, stops=(LIMIT,)), 1),
        (plan(CHANGING, refusal=PlanError("stale")), 1),
        (plan(broken=(BrokenFile(name="red", source="experiments/red.yaml"),)), 1),
        (plan(experiment("purple", replace(SCALE, error=CONFLICT))), 1),
    ],
)
def test_exit_code_of_a_dry_run_depends_on_the_plan(planned: Plan, expected: int) -> None:
    assert report.exit_code_of(planned, (), dry_run=True, exit_code=True) == expected
    unasked = 0 if expected == 3 else expected
    assert report.exit_code_of(planned, (), dry_run=True, exit_code=False) == unasked


@pytest.mark.parametrize(
    ("planned", "events", "expected"),
    [
        (plan(), (), 0),
        (plan(CHANGING), (), 1),
        (plan(CHANGING), (*done_events(plan(CHANGING)),), 0),
        (plan(CHANGING), (*done_events(plan(CHANGING)), ALREADY_SETTLED), 0),
        (plan(CHANGING), (*done_events(plan(CHANGING)), HALFWAY, ALREADY_SETTLED), 0),
        (plan(CHANGING), (*done_events(plan(CHANGING)), HALFWAY), 4),
        (plan(CHANGING), (*done_events(plan(CHANGING)), HALFWAY, STUCK), 4),
        (plan(CHANGING), (*done_events(plan(CHANGING), purple=Outcome.FAILED), STUCK), 1),
        (plan(CHANGING), (*done_events(plan(CHANGING), purple=Outcome.NOT_ATTEMPTED),), 1),
        (plan(CHANGING, stops=(LIMIT,)), (*done_events(plan(CHANGING)),), 1),
        (plan(broken=(BrokenFile(name="red", source="x"),)), (ALREADY_SETTLED,), 1),
    ],
)
def test_exit_code_of_a_sync_depends_on_plan_and_events(
    planned: Plan, events: tuple[Event, ...], expected: int
) -> None:
    assert report.exit_code_of(planned, events, dry_run=False, exit_code=False) == expected
