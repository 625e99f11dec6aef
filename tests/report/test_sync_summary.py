"""The summary at the end of a sync."""

from __future__ import annotations

from dataclasses import replace

from nimlab import report
from nimlab.files.spec import (
    BrokenFile,
)
from nimlab.plan.change import Action
from nimlab.plan.sync_events import (
    ObjectDone,
    Outcome,
)
from tests.support.plans import (
    CHANGING,
    STUCK,
    all_objects,
    done_events,
    experiment,
    plan,
    text_of,
    wrong_plan,
)


def test_summary_does_not_mention_prunes_if_none_was_planned() -> None:
    planned = plan(CHANGING, stops=())
    summary = report.format_summary(planned, [*done_events(planned), STUCK], elapsed_s=61.0, paint=False)
    assert summary.splitlines()[-1] == "1 of 1 experiment synced. Not ready: purple."


def test_failed_apply_withholds_the_prunes() -> None:
    planned = plan(experiment("a", *all_objects(Action.PRUNE, "a"), without_file=True), CHANGING)
    events = done_events(planned, purple=Outcome.FAILED, a=Outcome.NOT_ATTEMPTED)
    summary = report.format_summary(planned, events, elapsed_s=1.0, paint=False).splitlines()
    assert summary[-3:] == [
        "0 of 2 experiments synced. Not synced: a (not pruned), purple (nothing was changed).",
        "Nothing was pruned: a sync with errors never prunes.",
        "Fix the errors and sync again; completed changes are kept.",
    ]


def test_partly_failed_prune_is_reported() -> None:
    planned = plan(experiment("a", *all_objects(Action.PRUNE, "a"), without_file=True))
    first, second, *rest = done_events(planned, a=Outcome.NOT_ATTEMPTED)
    assert isinstance(first, ObjectDone)
    assert isinstance(second, ObjectDone)
    events = [replace(first, outcome=Outcome.PRUNED), replace(second, outcome=Outcome.FAILED), *rest]
    summary = report.format_summary(planned, events, elapsed_s=1.0, paint=False)
    assert "Not synced: a (3 not pruned)." in summary
    assert "Nothing was pruned" not in summary


def test_long_lists_of_names_end_in_a_count() -> None:
    broken = tuple(BrokenFile(name=f"x{n}", source=f"x{n}.yaml") for n in range(12))
    summary = report.format_summary(plan(broken=broken), (), elapsed_s=1.0, paint=False)
    assert "0 of 12 experiments synced." in summary
    assert summary.count("and 4 more.") == 1


def test_error_and_hint_of_a_plan_are_not_repeated_in_the_summary() -> None:
    planned = wrong_plan()
    (blocked,) = [entry for entry in planned.changes if entry.error is not None]
    assert blocked.error is not None
    plan_text = text_of(planned, dry_run=False)
    events = done_events(planned, blue=Outcome.NOT_ATTEMPTED)
    end = report.format_summary(planned, events, elapsed_s=1.0, paint=False)
    assert blocked.error.what in plan_text
    assert blocked.error.what not in end
    assert f"{blocked.key}: error[{blocked.error.code}], see the plan" in end
    for stop in planned.stops:
        assert (plan_text + end).count(f"hint: {stop.hint}") == 1
