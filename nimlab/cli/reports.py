"""The files that GitLab reads: what a plan says, or what became of it, in GitLab's own forms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nimlab import report
from nimlab.apply import Event
from nimlab.cli.run import Run, commits_of_removal
from nimlab.edit import write_text
from nimlab.git import folder_in_repository
from nimlab.plan import Plan


def write_reports(run: Run, plan: Plan, events: Sequence[Event] | None) -> None:
    """Write the reports that were asked for; `events` is None for a plan that isn't carried out.

    Raises EditError when a file can't be written.
    """
    options, errors = run.options, run.intent.errors
    if options.terraform is not None:
        _write(options.terraform, report.terraform_json(plan))
    if options.junit is not None:
        gone = commits_of_removal(run, plan)
        _write(options.junit, report.junit_xml(plan, events, errors=errors, removed_in=gone))
    if options.codequality is not None:
        folder = folder_in_repository(run.root)
        _write(options.codequality, report.codequality_json(plan=plan, errors=errors, folder=folder))


def _write(path: Path, text: str) -> None:
    write_text(path, text + "\n")
