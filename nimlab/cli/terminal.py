"""Print text: results to stdout, progress and errors to stderr, progress bars only on a terminal.

The package `report` produces the text. This module chooses the stream, the colours and the bars.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

from nimlab import stopwatch
from nimlab.errors import NimlabError, SpecError
from nimlab.objects.mask_secrets import redact_credentials
from nimlab.plan.sync_events import (
    Event,
    ExperimentSettled,
    ExperimentStuck,
    ObjectDone,
    PeersProgress,
)

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from nimlab.objects.manifest import ObjectKey
    from nimlab.sandbox import Step


_LOG_ROWS: Final = 100
_PROGRESS_EVERY_S: Final = 5.0


def print_result(text: str) -> None:
    """Print a result to stdout, with exactly one newline at its end."""
    sys.stdout.write(text.rstrip("\n") + "\n")
    sys.stdout.flush()


def print_document(text: str) -> None:
    """Print YAML or JSON to stdout, always in UTF-8: other encodings could change values."""
    sys.stdout.flush()
    sys.stdout.buffer.write((text.rstrip("\n") + "\n").encode(errors="backslashreplace"))
    sys.stdout.buffer.flush()


def print_note(text: str | None) -> None:
    """Print a line of progress to stderr; print nothing for None."""
    if text is None:
        return
    sys.stderr.write(text.rstrip("\n") + "\n")
    sys.stderr.flush()


def print_error(error: NimlabError, *, files: int | None = None) -> None:
    """Print an error, or every problem of a SpecError, to stderr."""
    from nimlab import report  # not needed for `--help`

    paint = wants_colour(sys.stderr)
    if isinstance(error, SpecError):
        count = len({p.location.path for p in error.problems}) if files is None else files
        print_note(report.format_problems(error.problems, files=count, paint=paint))
    else:
        print_note(redact_credentials(report.format_error(error, paint=paint)))


def print_timings() -> None:
    """Print how many seconds each stage took since the start of the process, and the total."""
    stages = dict(stopwatch.spent())
    before_s = max(_age_s() - sum(stages.values()), 0.0)
    shares = {stopwatch.START: before_s + stages.pop(stopwatch.START, 0.0), **stages}
    parts = ", ".join(f"{name} {spent_s:.3f}" for name, spent_s in shares.items())
    print_note(f"timings  {parts}: {sum(shares.values()):.3f} s in all")


def _age_s() -> float:
    """Return the age of this process, as exactly as the operating system reports it."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        started_s = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # field 22 in proc(5); the list starts at 3
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started_s
    except (OSError, AttributeError):  # not Linux
        import psutil

        return time.time() - psutil.Process().create_time()


def wants_colour(stream: TextIO) -> bool:
    """Return True for a terminal, unless NO_COLOR is set (no-color.org) or TERM is `dumb`."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def is_one_output() -> bool:
    """Return True if stdout and stderr go to the same terminal, file or pipe, as with `2>&1`."""
    try:
        out, err = (os.fstat(stream.fileno()) for stream in (sys.stdout, sys.stderr))
    except (OSError, ValueError):
        return False
    return (out.st_dev, out.st_ino) == (err.st_dev, err.st_ino)


def columns_of(stream: TextIO) -> int | None:
    """Return the width of the terminal; None for a file or a pipe, whose lines are not shortened."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def rows_of(stream: TextIO) -> int:
    """Return the height of the terminal in lines, or 100 for a file or a pipe."""
    return shutil.get_terminal_size().lines if stream.isatty() else _LOG_ROWS


def show_events(events: Iterable[Event], *, shown: frozenset[ObjectKey] = frozenset()) -> Iterator[Event]:
    """Show each event, then yield it.

    On a terminal, progress updates one bar per experiment. Elsewhere, progress is printed as lines, at most
    one line per experiment every five seconds. The errors of the objects in `shown` were already shown with
    the plan, so they are not repeated.
    """
    from nimlab import report  # not needed for `--help`

    paint = wants_colour(sys.stderr)
    if not sys.stderr.isatty():
        printed_at: dict[str, float] = {}
        for event in events:
            text = None if _is_shown(event, shown) else report.format_event(event, paint=paint)
            if text is not None and not _is_too_soon(event, printed_at):
                print_note(text)
            yield event
        return
    with _progress() as progress:
        bars: dict[str, tuple[TaskID, Bar]] = {}
        for event in events:
            _draw(progress, bars, event)
            text = None if _is_shown(event, shown) else report.format_event(event, paint=False)
            if text is not None and not isinstance(event, PeersProgress):
                progress.console.print(text, highlight=False, markup=False)
            yield event


def _is_shown(event: Event, shown: frozenset[ObjectKey]) -> bool:
    return isinstance(event, ObjectDone) and event.key in shown


def _is_too_soon(event: Event, printed_at: dict[str, float]) -> bool:
    """Return True if the event is progress, and its experiment's last line is only a few seconds old.

    Otherwise, frequent lines would fill a log file.
    """
    if not isinstance(event, PeersProgress):
        return False
    now = time.monotonic()
    if now - printed_at.get(event.experiment, -_PROGRESS_EVERY_S) < _PROGRESS_EVERY_S:
        return True
    printed_at[event.experiment] = now
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """The state of a progress bar.

    `completed` counts running peers and deleted peers; `total` counts the peers that should run and the peers
    to delete. `most` is the largest number of peers to delete so far.
    """

    completed: int
    total: int
    most: int

    @classmethod
    def of(cls, event: PeersProgress, before: Bar | None) -> Bar:
        """Return the bar for an event; `before` is the experiment's previous bar. Pure."""
        most = max(event.leaving, before.most if before else 0)
        total = event.wanted + most
        return cls(completed=min(event.running + most - event.leaving, total), total=max(total, 1), most=most)


def _draw(progress: Progress, bars: dict[str, tuple[TaskID, Bar]], event: Event) -> None:
    """Update the bar of an experiment; remove it once the experiment is settled or stuck."""
    if isinstance(event, PeersProgress):
        task, before = bars.get(event.experiment, (None, None))
        from nimlab.report import progress_text  # not needed for `--help`

        bar, text = Bar.of(event, before), progress_text(event)
        if task is None:
            task = progress.add_task(event.experiment, total=bar.total, text=text)
        bars[event.experiment] = (task, bar)
        progress.update(task, completed=bar.completed, total=bar.total, text=text)
    elif isinstance(event, ExperimentSettled | ExperimentStuck) and event.experiment in bars:
        progress.remove_task(bars.pop(event.experiment)[0])


@contextmanager
def show_steps() -> Iterator[StepPrinter]:
    """Yield a printer for the sandbox's steps; on a terminal, it shows a bar for steps with a count."""
    if not sys.stderr.isatty():
        yield StepPrinter(None)
        return
    with _build_progress() as progress:
        yield StepPrinter(progress)


class StepPrinter:
    """A printer of the sandbox's steps: one line per text, and a bar for steps with a count."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._bars: dict[str, TaskID] = {}
        self._shown = ""
        self._tenth = -1

    def __call__(self, step: Step) -> None:
        """Print one step, or update its bar."""
        counted = step.done is not None and step.total is not None
        if self._progress is not None and (counted or step.done is not None):
            self._draw(self._progress, step)
        elif counted:
            tenth = 10 * (step.done or 0) // max(step.total or 0, 1)
            if tenth != self._tenth:
                self._tenth = tenth
                self._line(f"sandbox  {step.text}  {step.done} of {step.total} packages")
        else:
            self._line(f"sandbox  {_step_text(step)}")

    def _draw(self, progress: Progress, step: Step) -> None:
        if step.text not in self._bars:
            for done in self._bars.values():
                progress.remove_task(done)
            self._bars = {step.text: progress.add_task(step.text, total=step.total, remaining="")}
        remaining = "" if step.eta_s is None else f"about {max(1, round(step.eta_s / 60))} min left"
        progress.update(self._bars[step.text], completed=step.done, total=step.total, remaining=remaining)

    def _line(self, text: str) -> None:
        if text == self._shown:
            return
        self._shown = text
        if self._progress is None:
            print_note(text)
        else:
            self._progress.console.print(text, highlight=False, markup=False)


def _relative(path: Path | None) -> Path | None:
    """Return the path relative to the working directory, or unchanged if it lies outside."""
    try:
        folder = Path.cwd()
    except OSError:  # the working directory was deleted
        return path
    return path.relative_to(folder) if path and path.is_relative_to(folder) else path


def _step_text(step: Step) -> str:
    """Return the text for a step; it depends on the phase of the step."""
    match step.phase.value:
        case "start":
            return f"starting {step.text}"
        case "stop":
            return f"stopping {step.text}"
        case "wait":
            return f"waiting for {step.text}"
        case "build":
            return f"{step.text}   log: {_relative(step.log)}"
    return step.text


def _build_progress() -> Progress:
    """Return a bar that counts packages; the caller sets its field `remaining` to the estimated time."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description:<24}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:.0f} of {task.total} packages  {task.fields[remaining]}"),
        console=Console(stderr=True, soft_wrap=True),
        transient=True,
    )


def _progress() -> Progress:
    from rich.console import Console  # slow to import, and only needed on a terminal
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description:<12}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[text]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True, soft_wrap=True),
        transient=True,
    )
