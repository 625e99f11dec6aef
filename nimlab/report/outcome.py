"""What was done: a line an event while it happens, the sum at the end, and the exit code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from nimlab.apply.events import (
    Event,
    ExperimentSettled,
    ExperimentStuck,
    Notice,
    ObjectDone,
    Outcome,
    PeersProgress,
    PeersRestarted,
)
from nimlab.change import Action
from nimlab.plan import Plan
from nimlab.report.ink import ink, plural, visible
from nimlab.report.problems import format_error

_WIDTH = 8


def format_event(event: Event, *, paint: bool) -> str | None:
    """Return the line that tells of an event, None for one that needs none."""
    match event:
        case ObjectDone():
            return _object_done(event, paint=paint)
        case PeersRestarted():
            return f"{event.experiment:<{_WIDTH}} restarted {plural(event.peers, 'peer')} together"
        case PeersProgress():
            left = f", {event.leaving} leaving" if event.leaving else ""
            return f"{event.experiment:<{_WIDTH}} {event.running} of {event.wanted} peers running{left}"
        case ExperimentSettled(after_s=0.0):
            return None
        case ExperimentSettled():
            return (
                f"{event.experiment:<{_WIDTH}} settled, {plural(event.running, 'peer')} running "
                f"after {event.after_s:.1f} s"
            )
        case ExperimentStuck():
            return _stuck(event, paint=paint)
        case Notice():
            return event.text


def _object_done(event: ObjectDone, *, paint: bool) -> str | None:
    said = f"{event.experiment:<{_WIDTH}} {event.outcome.value} {event.key}"
    if event.outcome is Outcome.NOT_ATTEMPTED:
        return None if event.error is None else f"{said}: after an error"
    return said if event.error is None else f"{said}\n{format_error(event.error, paint=paint)}"


def _stuck(event: ExperimentStuck, *, paint: bool) -> str:
    why = f"not ready after {event.waited_s:.0f} s" if event.timed_out else "will not be ready"
    head = f"{event.experiment:<{_WIDTH}} {why}: {event.running} of {event.wanted} peers running"
    lines = [ink(head, "red", paint=paint)]
    lines += [
        f"{'':<{_WIDTH}} {trouble.pod}: {trouble.reason}, {visible(trouble.message)}"
        for trouble in event.troubles[:5]
    ]
    if len(event.troubles) > 5:
        lines.append(f"{'':<{_WIDTH}} … and {len(event.troubles) - 5} more peers")
    return "\n".join(lines)


def format_outcome(plan: Plan, events: Sequence[Event], *, elapsed_s: float, paint: bool) -> str:
    """Return the end of a sync: the counts, and when something went wrong what was and wasn't done."""
    counts = Counter(e.outcome for e in events if isinstance(e, ObjectDone))
    said = [
        f"{counts[outcome]} {outcome.value}"
        for outcome in (Outcome.CREATED, Outcome.UPDATED, Outcome.REPLACED, Outcome.PRUNED)
        if counts[outcome] or outcome is not Outcome.REPLACED
    ]
    said.append(f"{plan.count(Action.KEEP)} unchanged")
    said += [
        f"{counts[outcome]} {outcome.value}"
        for outcome in (Outcome.FAILED, Outcome.NOT_ATTEMPTED)
        if counts[outcome]
    ]
    line = ", ".join(said)
    ended = [e for e in events if isinstance(e, ExperimentSettled | ExperimentStuck)]
    if ended:
        running = sum(e.running for e in ended)
        wanted = sum(e.wanted if isinstance(e, ExperimentStuck) else e.running for e in ended)
        line += f"; {running} of {plural(wanted, 'peer')} running after {elapsed_s:.1f} s"
    return "\n".join([*_trouble(plan, events, paint=paint), line])


def _trouble(plan: Plan, events: Sequence[Event], *, paint: bool) -> Iterator[str]:
    """The table of what was not done; nothing when all went well."""
    not_done = _not_done(plan, events)
    stuck = sorted(e.experiment for e in events if isinstance(e, ExperimentStuck))
    if not (not_done or stuck or plan.stops):
        return
    for event in events:
        if isinstance(event, ObjectDone) and event.outcome is Outcome.FAILED and event.error:
            yield format_error(event.error, paint=paint)
        if isinstance(event, ExperimentStuck):
            yield _stuck(event, paint=paint)
    names = {one.name for one in plan.experiments} | {broken.name for broken in plan.broken}
    good = len(names - set(not_done))
    parts = [f"{good} of {plural(len(names), 'experiment')} synced."]
    if not_done:
        parts.append(f"Not done: {', '.join(f'{n} ({why})' for n, why in not_done.items())}.")
    if stuck:
        parts.append(f"Not ready: {', '.join(stuck)}.")
    yield " ".join(parts)
    if plan.count(Action.PRUNE) and (plan.stops or not_done):
        whys = "; ".join(stop.what for stop in plan.stops) or "a sync with errors never prunes"
        yield f"Nothing was pruned: {visible(whys)}."
        for stop in plan.stops:
            yield f"  hint: {stop.hint}"
    yield "Run it again once mended; what is done stays done."


def _not_done(plan: Plan, events: Sequence[Event]) -> dict[str, str]:
    """Experiments that are not as their files say, and how far each got."""
    found = {broken.name: f"{broken.source} can't be used" for broken in plan.broken}
    done = {e.experiment for e in events if isinstance(e, ObjectDone) and _is_done(e)}
    for event in events:
        if isinstance(event, ObjectDone) and event.outcome in (
            Outcome.FAILED,
            Outcome.NOT_ATTEMPTED,
        ):
            part = "partly done" if event.experiment in done else "nothing was changed"
            found.setdefault(event.experiment, part)
    return dict(sorted(found.items()))


def _is_done(event: ObjectDone) -> bool:
    return event.outcome not in (Outcome.FAILED, Outcome.NOT_ATTEMPTED, Outcome.UNCHANGED)


def exit_code_of(plan: Plan, events: Sequence[Event], *, dry_run: bool, exit_code: bool) -> int:
    """Return the exit code: 0 done, 1 not all applied, 3 changes pending (asked for), 4 not ready in time."""
    blocked = any(change.error is not None for change in plan.changes)
    if plan.refusal is not None or plan.broken or plan.stops or blocked:
        return 1
    if dry_run:
        return 3 if exit_code and not plan.is_empty else 0
    if any(
        isinstance(e, ObjectDone) and e.outcome in (Outcome.FAILED, Outcome.NOT_ATTEMPTED) for e in events
    ):
        return 1
    return 4 if any(isinstance(e, ExperimentStuck) for e in events) else 0
