"""Events -> lines: one for each thing that happened, as it happens, for logs and terminals."""

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
from nimlab.report.problems import error_about
from nimlab.report.styled_text import Line, Span, Style, count, flat, hint_line, join, line, named

_TROUBLES: Final = 5
_SOON_S: Final = 5.0
_STYLES: Final = {
    Outcome.CREATED: Style.NEW,
    Outcome.UPDATED: Style.CHANGED,
    Outcome.REPLACED: Style.CHANGED,
    Outcome.PRUNED: Style.GONE,
    Outcome.NOT_ATTEMPTED: Style.BAD,
}


def format_event(event: Event, *, paint: bool) -> str | None:
    """Return an event's line, with its hints or reasons below; None where it needs none."""
    lines = list(_event_lines(event))
    return join(lines, paint=paint) if lines else None


def format_note(name: str, text: str, *, paint: bool) -> str:
    """Return a line of progress that belongs to no event: `warning`, `retry`, `lock`."""
    return join([named(name, flat(text))], paint=paint)


def _event_lines(event: Event) -> Iterator[Line]:
    match event:
        case ObjectDone() if event.outcome is not Outcome.NOT_ATTEMPTED:  # nothing happened
            yield from done_lines(event, event.experiment)
        case PeersRestarted():
            text = f"{count(event.peers, 'peer')} of the old revision deleted together"
            yield named(event.experiment, text)
        case PeersProgress():
            yield named(event.experiment, f"waiting: {progress_text(event)}")
        case ExperimentSettled() if event.after_s > 0:  # else it stood so before
            peers = count(event.running, event.noun) if event.running else f"no {event.noun}s"
            yield named(event.experiment, f"settled: {peers} running after {event.after_s:.1f} s")
        case ExperimentStuck():
            yield from stuck_lines(event)
        case Notice():
            yield named("lab", flat(event.text))


def progress_text(event: PeersProgress) -> str:
    """Return how far an experiment's peers are, in words."""
    if event.leaving and not event.wanted:
        return f"{count(event.leaving, event.noun)} still to go{_left(event)}"
    if event.why:
        return (
            f"{event.running} of {count(event.wanted, event.noun)} running; {flat(event.why)}"
            if event.wanted
            else flat(event.why)
        )
    leaving = f", {event.leaving} still to go" if event.leaving else ""
    return f"{event.running} of {count(event.wanted, event.noun)} running{leaving}{_left(event)}"


def _left(event: PeersProgress) -> str:
    """About how long it still takes, where that is worth saying."""
    if event.left_s is None or event.left_s < _SOON_S:
        return ""
    minutes = round(event.left_s / 60)
    return f", about {minutes} min left" if minutes > 1 else f", about {event.left_s:.0f} s left"


def done_lines(done: ObjectDone, name: str) -> Iterator[Line]:
    """Yield what became of one object; an error with its hint, nothing for one that is unchanged."""
    if done.error is not None and done.outcome is Outcome.FAILED:
        mark, what = error_about(done.error, done.key)
        yield named(name, f"{done.key}: ", mark, what)
        if done.error.hint is not None:
            yield hint_line(done.error.hint)
    elif done.outcome is not Outcome.UNCHANGED:
        style = _STYLES.get(done.outcome, Style.BAD)
        yield named(name, Span(done.outcome.value, style), f" {done.key}")


def stuck_lines(event: ExperimentStuck) -> Iterator[Line]:
    """Yield that an experiment isn't ready, and what keeps its peers from running."""
    if event.held and not event.wanted:
        others = f" and {count(len(event.held) - 1, 'more object')}" if len(event.held) > 1 else ""
        what, said = "not gone", f": {event.held[0]}{others} after {event.waited_s:.0f} s"
    else:
        what = "not ready"
        said = f": {event.running} of {count(event.wanted, event.noun)} running after {event.waited_s:.0f} s"
    yield named(event.experiment, Span(f"{what} in time" if event.timed_out else what, Style.BAD), said)
    yield from (named("", *text) for text in trouble_lines(event.troubles))


def trouble_lines(troubles: Sequence[Trouble]) -> Iterator[Line]:
    """Yield why pods don't run, the same reason once; after five reasons, how many pods are left."""
    alike: dict[tuple[str, str], list[Trouble]] = {}
    for trouble in troubles:
        alike.setdefault((trouble.reason, trouble.message), []).append(trouble)
    for (reason, message), found in list(alike.items())[:_TROUBLES]:
        first = found[0]
        # a refused pod doesn't exist: the trouble names its workload
        kind = "StatefulSet" if reason == "FailedCreate" else first.kind.replace("Pod", "pod")
        others = f" and {len(found) - 1} more" if len(found) > 1 else ""
        since = f" (since {first.since})" if first.since else ""
        yield line(f"{kind} {first.pod}{others}: {reason}, {flat(message)}{since}")
    left = sum(len(found) for found in list(alike.values())[_TROUBLES:])
    if left:
        yield line(f"… and {count(left, 'more pod')}")
