"""Run a sync or a dry run for the command line: events -> stdout, stderr, report files and the exit code.

The result goes to stdout, the progress to stderr. `workflow.sync` does the work.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from nimlab import __version__, report
from nimlab.cli.lab_session import ClusterFlags, open_lab_session
from nimlab.cli.report_files import ReportFiles, write_reports
from nimlab.cli.shared_options import Output
from nimlab.cli.terminal import is_one_output, print_note, print_result, rows_of, show_events, wants_colour
from nimlab.errors import ExitCode
from nimlab.files.safe_write import write_text
from nimlab.plan.make_plan import Plan
from nimlab.plan.sync_events import Event, ExecutionStarted, LockAwaited, LockLost, Notice, PlanMade
from nimlab.workflow.observe_and_plan import commits_of_removal, plan
from nimlab.workflow.plan_file import make_saved_plan, read_saved_plan
from nimlab.workflow.session import Session
from nimlab.workflow.sync import sync
from nimlab.workflow.sync_options import SyncOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions:
    """What a sync prints and writes, and how its exit code is chosen.

    `out` is the file for the plan of a dry run; `saved_plan` is the file with the plan to execute.
    """

    dry_run: bool = False
    output: Output = Output.TEXT
    verbose: bool = False
    exit_code: bool = False
    strict: bool = False
    out: Path | None = None
    saved_plan: Path | None = None
    reports: ReportFiles = field(default_factory=ReportFiles)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """One sync or dry run; `started_s` is on the monotonic clock."""

    session: Session
    options: SyncOptions
    output: OutputOptions
    started_s: float

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started_s


def run_sync(options: SyncOptions, output: OutputOptions, flags: ClusterFlags) -> int:
    """Sync, or show the plan, and return the exit code. Raises NimlabError before anything is changed."""
    started_s = time.monotonic()
    if output.saved_plan is not None:
        saved = read_saved_plan(output.saved_plan)
        options = replace(options, saved_plan=saved, policy=saved.policy)
    with open_lab_session(flags, options.policy.names) as session:
        run = _Run(session=session, options=options, output=output, started_s=started_s)
        return _show_plan(run) if output.dry_run else _execute(run)


def _show_plan(run: _Run) -> int:
    """Print the plan of a dry run, and save it if the user wants to."""
    output, made = run.output, plan(run.session, run.options.policy)
    code = report.exit_code_of(made, (), dry_run=True, exit_code=output.exit_code, strict=output.strict)
    if not write_reports(run.session, output.reports, made, None):
        code = ExitCode.ERROR
    _print_plan(run, made, code)
    if output.out is not None:
        write_text(output.out, _plan_json(run, made, code, is_saved=True) + "\n")
    return ExitCode.INTERRUPTED if run.session.stop.is_set() else code


def _execute(run: _Run) -> int:
    """Sync and print each step; return the exit code."""
    with closing(sync(run.session, run.options)) as stream:
        made = _show_preparation(run, stream)
        if made.refusal is not None:
            _print_plan(run, made, made.refusal.exit_code)
            write_reports(run.session, run.output.reports, made, None)
            return made.refusal.exit_code
        blocked = frozenset(change.key for change in made.changes if change.error is not None)
        shown = blocked if run.output.output is Output.TEXT else frozenset()
        events = list(show_events(stream, shown=shown))
    code = report.exit_code_of(made, events, dry_run=False, exit_code=False, strict=run.output.strict)
    if not write_reports(run.session, run.output.reports, made, events):
        code = ExitCode.ERROR
    if any(isinstance(event, LockLost) for event in events):
        print_note("lock     it has expired, and another sync may be at work: stopped")
        code = ExitCode.ERROR
    elif run.session.stop.is_set():
        code = ExitCode.INTERRUPTED
    _print_outcome(run, made, events, code)
    return code


def _show_preparation(run: _Run, stream: Iterator[Event]) -> Plan:
    """Print everything up to the start of the execution; return the plan that is executed or refused."""
    made: Plan | None = None
    for event in stream:
        match event:
            case PlanMade():
                made = event.plan
                if made.refusal is None and run.output.output is Output.TEXT:
                    print_result(_plan_text(run, made))
            case LockAwaited():
                print_note(report.format_note("lock", f"waiting for {event.holder}", paint=False))
            case Notice():
                print_note(report.format_event(event, paint=False))
            case ExecutionStarted():
                break
    if made is None:
        raise RuntimeError("a sync always makes a plan")
    return made


def _print_plan(run: _Run, made: Plan, code: int) -> None:
    """Print a plan that is not executed, in the format that was chosen."""
    if run.output.output is Output.JSON:
        print_result(_plan_json(run, made, code, is_saved=False))
    else:
        print_result(_plan_text(run, made))


def _plan_text(run: _Run, made: Plan) -> str:
    """Return the plan as text, with the number of requests that it took."""
    requests = run.session.cluster.requests()
    return report.format_plan(
        made,
        requests=requests.total,
        writes=requests.writes,
        elapsed_s=run.elapsed_s,
        removed_in=commits_of_removal(run.session, made),
        dry_run=run.output.dry_run,
        verbose=run.output.verbose,
        paint=wants_colour(sys.stdout),
        rows=rows_of(sys.stdout),
    )


def _plan_json(run: _Run, made: Plan, code: int, *, is_saved: bool) -> str:
    """Return the plan as JSON; a plan that is saved also contains what must be unchanged to execute it."""
    saved = make_saved_plan(made, run.options.policy, run.session.cluster) if is_saved else None
    return report.plan_json(
        made,
        cluster=run.session.target.name,
        tool_version=__version__,
        exit_code=code,
        binding=None if saved is None else saved.to_json(),
        warnings=run.session.warnings(),
    )


def _print_outcome(run: _Run, made: Plan, events: list[Event], code: int) -> None:
    """Print the totals of a sync, in the format that was chosen."""
    if run.output.output is Output.JSON:
        text = report.run_json(
            made,
            events,
            cluster=run.session.target.name,
            tool_version=__version__,
            exit_code=code,
            warnings=run.session.warnings(),
        )
    else:
        paint = wants_colour(sys.stdout)
        text = report.format_summary(
            made, events, elapsed_s=run.elapsed_s, paint=paint, has_events=is_one_output()
        )
    print_result(text)
