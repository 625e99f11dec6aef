"""The rows of the command `list`."""

from __future__ import annotations

from datetime import UTC, datetime

from nimlab.plan.change import Action
from nimlab.plan.experiment_health import Health, Verdict
from nimlab.report.git_state import GitState
from nimlab.report.list_rows import Row, rows_of
from tests.support.live_plans import (
    MADE,
    NAME,
    NOW,
    change,
    experiment,
    keep,
    only_row,
    plan_of,
    spec_map,
    statefulset,
)


def test_experiment_in_sync_has_a_complete_row() -> None:
    assert only_row(plan_of(keep(spec_map("d")), keep(statefulset(running=3)))) == Row(
        experiment="purple",
        full_name=NAME,
        scale=5,
        running=3,
        started_at=MADE,
        age_s=38 * 60 + 24,
        state=GitState.IN_SYNC,
        verdict=Verdict(health=Health.NOT_READY, message="3 of 5 peers are ready"),
    )


def test_experiment_without_objects_is_not_synced_and_has_the_scale_of_its_file() -> None:
    row = only_row(plan_of(change(Action.CREATE, None, statefulset())))
    assert (row.state, row.scale, row.running) == (GitState.NOT_SYNCED, 7, 0)
    assert (row.started_at, row.age_s) == (None, None)


def test_orphan_takes_its_name_from_its_objects() -> None:
    plan = plan_of(change(Action.PRUNE, statefulset(scale=2, running=1), None), source=None)
    (row,) = rows_of(plan, (), NOW)
    assert (row.state, row.full_name, row.scale, row.running) == (GitState.ORPHANED, NAME, 2, 1)
    nameless = plan_of(change(Action.PRUNE, spec_map("d"), None), source=None)
    (row,) = rows_of(nameless, (), NOW)
    assert (row.full_name, row.scale, row.running) == ("", None, None)


def test_row_of_a_broken_file_has_unknown_values() -> None:
    rows = rows_of(plan_of(keep(statefulset()), broken=True), (experiment(),), NOW)
    assert [row.experiment for row in rows] == ["purple", "white"]
    assert (rows[1].state, rows[1].scale, rows[1].running) == (GitState.BROKEN, None, None)
    (row,) = rows_of(plan_of(broken=True), (experiment("white"),), NOW)
    assert (row.full_name, row.scale) == ("nimp2p-exp-white", 7)


def test_age_is_never_negative() -> None:
    early = datetime(2026, 11, 23, tzinfo=UTC)
    (row,) = rows_of(plan_of(keep(statefulset())), (), early)
    assert row.age_s == 0
