"""The text of a plan: its header and the order of its experiments."""

from __future__ import annotations

from nimlab import report
from nimlab.files.git_history import Commit
from nimlab.plan.change import Action
from tests.support.plans import (
    SCALE,
    all_objects,
    experiment,
    plan,
    text_of,
)


def test_experiments_with_prunes_come_first() -> None:
    planned = plan(
        experiment("a", SCALE), experiment("b", *all_objects(Action.PRUNE, "b"), without_file=True)
    )
    assert text_of(planned).startswith("b ")


def test_header_shows_uncommitted_changes() -> None:
    dirty = Commit(sha="a" * 40, branch=None, dirty=True)
    shown = report.format_header("lab", "why", dirty)
    assert shown.endswith("commit aaaaaaa on no branch, with uncommitted changes")
