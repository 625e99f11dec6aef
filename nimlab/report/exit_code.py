"""A plan, a sync or the rows of `list` -> the exit code of the command."""

from __future__ import annotations

from collections.abc import Sequence

from nimlab.errors import ExitCode
from nimlab.plan.make_plan import Plan
from nimlab.plan.sync_events import Event
from nimlab.report.git_state import GitState
from nimlab.report.list_rows import Row
from nimlab.report.outcomes_by_object import is_not_done, result_of
from nimlab.report.totals import blocked_experiments


def exit_code_of(
    plan: Plan, events: Sequence[Event], *, dry_run: bool, exit_code: bool, strict: bool = False
) -> int:
    """Return the exit code of a sync or, if `dry_run` is set, of a dry run.

    0: done or in sync. 1: an error, so not everything was or would be done. 3: changes are pending (only for
    a dry run with `exit_code`), or foreign fields exist (only with `strict`). 4: synced, but not all peers
    are ready.
    """
    foreign = strict and any(change.foreign for change in plan.changes)
    if plan.refusal or plan.broken or plan.file_errors or plan.stops or blocked_experiments(plan):
        return ExitCode.ERROR
    if dry_run:
        pending = any(change.is_pending for change in plan.changes)
        return ExitCode.PENDING if (exit_code and pending) or foreign else ExitCode.DONE
    result = result_of(plan, events)
    if any(is_not_done(done) for done in result.outcomes.values()):
        return ExitCode.ERROR
    if result.not_ready:
        return ExitCode.NOT_READY
    return ExitCode.PENDING if foreign else ExitCode.DONE


def exit_code_of_rows(rows: Sequence[Row]) -> int:
    """Return the exit code of `list` and `status` with `--exit-code`; the worst row decides.

    1: a file is broken, or an object is blocked. 4: not all requested pods run. 3: Git and the cluster
    differ. 0: none of these.
    """
    if any(row.state in (GitState.BROKEN, GitState.BLOCKED) for row in rows):
        return ExitCode.ERROR
    if any(row.verdict.is_bad for row in rows):
        return ExitCode.NOT_READY
    return ExitCode.PENDING if any(row.is_pending for row in rows) else ExitCode.DONE
