"""Run a sync or a dry run for the command line: events -> stdout, stderr, report files and exit code.

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
from nimlab.cli.open_session import ClusterFlags, open_lab_session
from nimlab.cli.report_files import ReportFiles, write_reports
from nimlab.cli.shared_options import Output
from nimlab.cli.terminal import is_one_output, print_note, print_result, rows_of, show_events, wants_colour
from nimlab.errors import ExitCode
from nimlab.files.safe_write import write_text
from nimlab.plan.make_plan import Plan
from nimlab.plan.sync_events import Event, ExecutionStarted, LockAwaited, LockLost, Notice, PlanMade
from nimlab.workflow.observe_and_plan import commits_of_removal, plan
from nimlab.workflow.read_write_plan_file import make_saved_plan, read_saved_plan
from nimlab.workflow.session import Session
from nimlab.workflow.sync import sync
from nimlab.workflow.sync_options import SyncOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions:
    """Options for the output of a sync, and for the choice of its exit code.

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
    """Print the plan of a dry run, save it if `out` is set, and return the exit code."""
    output, planned = run.output, plan(run.session, run.options.policy)
    code = report.exit_code_of(planned, (), dry_run=True, exit_code=output.exit_code, strict=output.strict)
    if not write_reports(run.session, output.reports, planned, None):
        code = ExitCode.ERROR
    _print_plan(run, planned, code)
    if output.out is not None:
        write_text(output.out, _plan_json(run, planned, code, is_saved=True) + "\n")
    return ExitCode.INTERRUPTED if run.session.stop.is_set() else code


def _execute(run: _Run) -> int:
    """Sync, print each step, and return the exit code."""
    with closing(sync(run.session, run.options)) as stream:
        planned = _show_preparation(run, stream)
        if planned.refusal is not None:
            _print_plan(run, planned, planned.refusal.exit_code)
            write_reports(run.session, run.output.reports, planned, None)
            return planned.refusal.exit_code
        blocked = frozenset(change.key for change in planned.changes if change.error is not None)
        shown = blocked if run.output.output is Output.TEXT else frozenset()
        events = list(show_events(stream, shown=shown))
    code = report.exit_code_of(planned, events, dry_run=False, exit_code=False, strict=run.output.strict)
    if not write_reports(run.session, run.output.reports, planned, events):
        code = ExitCode.ERROR
    if any(isinstance(event, LockLost) for event in events):
        print_note("lock     expired; this sync stops, because another sync may be running")
        code = ExitCode.ERROR
    elif run.session.stop.is_set():
        code = ExitCode.INTERRUPTED
    _print_outcome(run, planned, events, code)
    return code


def _show_preparation(run: _Run, stream: Iterator[Event]) -> Plan:
    """Print all events until the execution starts; return the plan, which is then executed or refused."""
    planned: Plan | None = None
    for event in stream:
        match event:
            case PlanMade():
                planned = event.plan
                if planned.refusal is None and run.output.output is Output.TEXT:
                    print_result(_plan_text(run, planned))
            case LockAwaited():
                print_note(report.format_note("lock", f"waiting for {event.holder}", paint=False))
            case Notice():
                print_note(report.format_event(event, paint=False))
            case ExecutionStarted():
                break
    if planned is None:
        raise RuntimeError("a sync always makes a plan")
    return planned


def _print_plan(run: _Run, planned: Plan, code: int) -> None:
    """Print a plan that is not executed, as text or as JSON."""
    if run.output.output is Output.JSON:
        print_result(_plan_json(run, planned, code, is_saved=False))
    else:
        print_result(_plan_text(run, planned))


def _plan_text(run: _Run, planned: Plan) -> str:
    """Return the plan as text, with the number of requests for the observation."""
    requests = run.session.cluster.requests()
    return report.format_plan(
        planned,
        requests=requests.total,
        writes=requests.writes,
        elapsed_s=run.elapsed_s,
        removed_in=commits_of_removal(run.session, planned),
        dry_run=run.output.dry_run,
        verbose=run.output.verbose,
        paint=wants_colour(sys.stdout),
        rows=rows_of(sys.stdout),
    )


def _plan_json(run: _Run, planned: Plan, code: int, *, is_saved: bool) -> str:
    """Return the plan as JSON; a saved plan also contains the cluster state for which it is valid."""
    saved = make_saved_plan(planned, run.options.policy, run.session.cluster) if is_saved else None
    return report.plan_json(
        planned,
        cluster=run.session.target.name,
        tool_version=__version__,
        exit_code=code,
        binding=None if saved is None else saved.to_json(),
        warnings=run.session.warnings(),
    )


def _print_outcome(run: _Run, planned: Plan, events: list[Event], code: int) -> None:
    """Print the totals of a sync, as text or as JSON."""
    if run.output.output is Output.JSON:
        text = report.run_json(
            planned,
            events,
            cluster=run.session.target.name,
            tool_version=__version__,
            exit_code=code,
            warnings=run.session.warnings(),
        )
    else:
        paint = wants_colour(sys.stdout)
        text = report.format_summary(
            planned, events, elapsed_s=run.elapsed_s, paint=paint, has_events=is_one_output()
        )
    print_result(text)
