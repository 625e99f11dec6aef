"""The word in the column GIT of `list`."""

from __future__ import annotations

import pytest

from nimlab.errors import (
    OwnershipConflict,
)
from nimlab.plan.change import Action, Change
from nimlab.report.git_state import GitState
from tests.support.live_plans import (
    FOREIGN,
    change,
    keep,
    only_row,
    plan_of,
    spec_map,
    statefulset,
)


def state_of(*changes: Change, source: str | None = "experiments/purple.yaml") -> GitState:
    return only_row(plan_of(*changes, source=source)).state


@pytest.mark.parametrize("action", [Action.UPDATE, Action.REPLACE, Action.PRUNE])
def test_difference_is_drift(action: Action) -> None:
    assert state_of(keep(spec_map("d")), change(action, statefulset(), statefulset())) is GitState.DRIFTED


def test_missing_object_and_foreign_field_are_drift() -> None:
    assert state_of(keep(spec_map("d")), change(Action.CREATE, None, statefulset())) is GitState.DRIFTED
    assert state_of(keep(statefulset(), foreign=(FOREIGN,))) is GitState.DRIFTED


def test_file_changed_after_the_sync_is_not_drift() -> None:
    update = change(Action.UPDATE, statefulset(), statefulset())
    other = change(Action.UPDATE, spec_map("old"), spec_map("new"))
    assert state_of(other, update) is GitState.CHANGED
    assert state_of(other, keep(statefulset(), foreign=(FOREIGN,))) is GitState.DRIFTED


@pytest.mark.parametrize(
    "config",
    [
        change(Action.UPDATE, spec_map("edited", ours=False), spec_map("new")),
        change(Action.UPDATE, {**spec_map("old"), "metadata": {"name": "x"}}, spec_map("new")),
        change(Action.UPDATE, spec_map("same"), spec_map("same")),
        change(Action.UPDATE, spec_map("old"), spec_map(None)),
    ],
)
def test_hash_written_by_another_manager_is_ignored(config: Change) -> None:
    assert state_of(config) is GitState.DRIFTED


def test_object_with_an_error_is_blocked() -> None:
    error = OwnershipConflict("the object already exists and was not created by nimlab")
    assert state_of(change(Action.UPDATE, statefulset(), statefulset(), error=error)) is GitState.BLOCKED
