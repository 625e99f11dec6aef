"""Report files for GitLab: a plan or the result of a sync, in the formats that GitLab reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nimlab import report
from nimlab.cli.terminal import print_error
from nimlab.errors import EditError
from nimlab.files.git_history import folder_in_repository
from nimlab.files.safe_write import write_text
from nimlab.plan.make_plan import Plan
from nimlab.plan.sync_events import Event
from nimlab.workflow.observe_and_plan import commits_of_removal
from nimlab.workflow.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFiles:
    """The report files to write; None means that a report is not written."""

    terraform: Path | None = None
    junit: Path | None = None
    codequality: Path | None = None


def write_reports(session: Session, files: ReportFiles, plan: Plan, events: Sequence[Event] | None) -> bool:
    """Write the report files; `events` is None for a plan that is not executed.

    Return False if a file cannot be written. In this case, the error is printed, and the other files are
    still written, because the changes to the cluster must be reported in any case.
    """
    is_written = True
    for path, text in _texts(session, files, plan, events):
        try:
            write_text(path, text + "\n")
        except EditError as error:
            print_error(error)
            is_written = False
    return is_written


def _texts(
    session: Session, files: ReportFiles, plan: Plan, events: Sequence[Event] | None
) -> Iterator[tuple[Path, str]]:
    errors = session.lab.desired.errors
    if files.terraform is not None:
        yield files.terraform, report.terraform_json(plan)
    if files.junit is not None:
        removed_in = commits_of_removal(session, plan)
        yield files.junit, report.junit_xml(plan, events, errors=errors, removed_in=removed_in)
    if files.codequality is not None:
        folder = folder_in_repository(session.lab.root)
        yield files.codequality, report.codequality_json(plan=plan, errors=errors, folder=folder)
