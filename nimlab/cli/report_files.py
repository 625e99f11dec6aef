"""The files that GitLab reads: what a plan says, or what became of it, in GitLab's own forms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from nimlab import report
from nimlab.cli.terminal import print_error
from nimlab.cluster.apply import Event
from nimlab.errors import EditError
from nimlab.files.git import folder_in_repository
from nimlab.files.safe_write import write_text
from nimlab.plan.make_plan import Plan
from nimlab.workflow.session import Run, commits_of_removal


def write_reports(run: Run, plan: Plan, events: Sequence[Event] | None) -> bool:
    """Write the reports that were asked for; `events` is None for a plan that isn't carried out.

    Return False when one of them can't be written. Its error is printed, and the others are written all the
    same: what was done to the cluster is reported in any case.
    """
    written = True
    for path, text in _texts(run, plan, events):
        try:
            write_text(path, text + "\n")
        except EditError as error:
            print_error(error)
            written = False
    return written


def _texts(run: Run, plan: Plan, events: Sequence[Event] | None) -> Iterator[tuple[Path, str]]:
    options, errors = run.options, run.intent.errors
    if options.terraform is not None:
        yield options.terraform, report.terraform_json(plan)
    if options.junit is not None:
        gone = commits_of_removal(run, plan)
        yield options.junit, report.junit_xml(plan, events, errors=errors, removed_in=gone)
    if options.codequality is not None:
        folder = folder_in_repository(run.root)
        yield options.codequality, report.codequality_json(plan=plan, errors=errors, folder=folder)
