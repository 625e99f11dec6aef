"""Events of a sync -> lines for logs and terminals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from nimlab.plan.pod_trouble import Trouble
from nimlab.plan.sync_events import (
    Event,
    ExperimentSettled,
    ExperimentStuck,
    Notice,
    ObjectDone,
    Outcome,
    PeersProgress,
    PeersRestarted,
)
from nimlab.report.file_problems import error_about
from nimlab.report.styled_text import Line, Span, Style, count, flat, hint_line, join, line, named

_MAX_REASONS: Final = 5
_SOON_S: Final = 5.0
_STYLES: Final = {
    Outcome.CREATED: Style.NEW,
    Outcome.UPDATED: Style.CHANGED,
    Outcome.REPLACED: Style.CHANGED,
    Outcome.PRUNED: Style.GONE,
    Outcome.NOT_ATTEMPTED: Style.BAD,
}


def format_event(event: Event, *, paint: bool) -> str | None:
    """Return the line of an event, followed by its hints or reasons; None for an event that is not shown."""
    lines = list(_event_lines(event))
    return join(lines, paint=paint) if lines else None


def format_note(name: str, text: str, *, paint: bool) -> str:
    """Return a progress line that belongs to no event; `name` is `warning`, `retry` or `lock`."""
    return join([named(name, flat(text))], paint=paint)


def _event_lines(event: Event) -> Iterator[Line]:
    match event:
        # The summary lists the objects whose changes were not attempted.
        case ObjectDone() if event.outcome is not Outcome.NOT_ATTEMPTED:
            yield from done_lines(event, event.experiment)
        case PeersRestarted():
            text = f"{count(event.peers, 'peer')} of the old revision deleted together"
            yield named(event.experiment, text)
        case PeersProgress():
            yield named(event.experiment, f"waiting: {progress_text(event)}")
        case ExperimentSettled() if event.after_s > 0:  # at 0 s, the experiment was settled before the sync
            peers = count(event.running, event.noun) if event.running else f"no {event.noun}s"
            yield named(event.experiment, f"settled: {peers} running after {event.after_s:.1f} s")
        case ExperimentStuck():
            yield from stuck_lines(event)
        case Notice():
            yield named("lab", flat(event.text))


def progress_text(event: PeersProgress) -> str:
    """Return how many peers run and how many must still be deleted, or what the sync waits for."""
    leaving = f"{event.leaving} left to delete"
    if event.leaving and not event.wanted:
        return f"{count(event.leaving, event.noun)} left to delete{_remaining_time(event)}"
    if event.why and not event.wanted:
        return flat(event.why)
    running = f"{event.running} of {count(event.wanted, event.noun)} running"
    if event.why:
        return f"{running}; {flat(event.why)}"
    return f"{running}{f', {leaving}' if event.leaving else ''}{_remaining_time(event)}"


def _remaining_time(event: PeersProgress) -> str:
    """Return the estimated remaining time; empty if it is unknown or short."""
    if event.left_s is None or event.left_s < _SOON_S:
        return ""
    minutes = round(event.left_s / 60)
    return f", about {minutes} min left" if minutes > 1 else f", about {event.left_s:.0f} s left"


def done_lines(done: ObjectDone, name: str) -> Iterator[Line]:
    """Yield the outcome of one object, or the error and the hint; yield nothing for an unchanged object."""
    if done.error is not None and done.outcome is Outcome.FAILED:
        label, what = error_about(done.error, done.key)
        yield named(name, f"{done.key}: ", label, what)
        if done.error.hint is not None:
            yield hint_line(done.error.hint)
    elif done.outcome is not Outcome.UNCHANGED:
        style = _STYLES.get(done.outcome, Style.BAD)
        yield named(name, Span(done.outcome.value, style), f" {done.key}")


def stuck_lines(event: ExperimentStuck) -> Iterator[Line]:
    """Yield a line about an experiment that is not ready or not deleted, then the reasons."""
    if event.held and not event.wanted:
        others = f" and {count(len(event.held) - 1, 'more object')}" if len(event.held) > 1 else ""
        state, details = "not deleted", f"{event.held[0]}{others} after {event.waited_s:.0f} s"
    else:
        running = f"{event.running} of {count(event.wanted, event.noun)} running"
        state, details = "not ready", f"{running} after {event.waited_s:.0f} s"
    state = f"{state} in time" if event.timed_out else state
    yield named(event.experiment, Span(state, Style.BAD), f": {details}")
    yield from (named("", *text) for text in trouble_lines(event.troubles))


def trouble_lines(troubles: Sequence[Trouble]) -> Iterator[Line]:
    """Yield one line for each reason why pods do not run, at most five, then the number of other pods."""
    by_reason: dict[tuple[str, str], list[Trouble]] = {}
    for trouble in troubles:
        by_reason.setdefault((trouble.reason, trouble.message), []).append(trouble)
    groups = list(by_reason.items())
    for (reason, message), pods in groups[:_MAX_REASONS]:
        first = pods[0]
        # a pod that could not be created has no name, so the trouble contains the workload's name
        kind = "StatefulSet" if reason == "FailedCreate" else first.kind.replace("Pod", "pod")
        others = f" and {len(pods) - 1} more" if len(pods) > 1 else ""
        since = f" (since {first.since})" if first.since else ""
        yield line(f"{kind} {first.pod}{others}: {reason}, {flat(message)}{since}")
    hidden = sum(len(pods) for _, pods in groups[_MAX_REASONS:])
    if hidden:
        yield line(f"… and {count(hidden, 'more pod')}")
