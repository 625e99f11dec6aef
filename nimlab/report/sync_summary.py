"""A plan and the events of its sync -> the summary: counts, failures, and the next steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from nimlab.plan.change import Action, Change
from nimlab.plan.make_plan import ExperimentPlan, Plan
from nimlab.plan.sync_events import Event, ExperimentStuck, ObjectDone, Outcome
from nimlab.report.change_lines import held_lines
from nimlab.report.event_lines import done_lines, stuck_lines
from nimlab.report.file_problems import error_label
from nimlab.report.outcomes_by_object import SyncResult, is_not_done, result_of
from nimlab.report.styled_text import (
    Line,
    Span,
    Style,
    count,
    flat,
    hint_line,
    join,
    line,
    named,
    named_list,
    shown_name,
)

_ALWAYS_SHOWN = (Outcome.CREATED, Outcome.UPDATED, Outcome.PRUNED, Outcome.UNCHANGED)


def format_summary(
    plan: Plan, events: Sequence[Event], *, elapsed_s: float, paint: bool, has_events: bool = False
) -> str:
    """Return the summary of a sync: one line if everything was done.

    Otherwise, a table comes first. It shows the outcome of each change in the experiments that have a
    problem. The lines after the counts explain the result and the next steps. `elapsed_s` is the time of the
    whole run. With `has_events`, the same output has already shown the events, so the troubles of peers are
    not repeated.
    """
    result = result_of(plan, events)
    not_done = _not_done(plan, result)
    lines = [
        *_table(plan, result, {} if has_events else result.stuck, frozenset(not_done)),
        line(_counts_text(result) + _peers_text(result, plan.apply_set.noun, elapsed_s)),
    ]
    if not_done or result.not_ready:
        lines.append(line(_verdict(plan, not_done, result.not_ready)))
    lines += _prune_lines(plan, result)
    if not_done:
        has_errors = plan.stops or plan.broken or result.outcome_counts[Outcome.FAILED]
        action = "Fix the errors and sync again" if has_errors else "Sync again"
        lines.append(line(f"{action}; completed changes are kept."))
    return join(lines, paint=paint)


def _counts_text(result: SyncResult) -> str:
    counts = result.outcome_counts
    shown = [outcome for outcome in Outcome if outcome in _ALWAYS_SHOWN or counts[outcome]]
    return ", ".join(f"{counts[outcome]} {outcome.value}" for outcome in shown)


def _peers_text(result: SyncResult, noun: str, elapsed_s: float) -> str:
    peers = result.peers.values()
    if not peers:
        return f" ({elapsed_s:.1f} s)"
    running, wanted = sum(p.running for p in peers), sum(p.wanted for p in peers)
    has_waited = any(p.waited_s for p in peers)
    time = f" after {elapsed_s:.1f} s" if has_waited else f" ({elapsed_s:.1f} s)"
    return f"; {running} of {count(wanted, noun)} running{time}"


def _not_done(plan: Plan, result: SyncResult) -> dict[str, str]:
    """Return the progress of each experiment that does not match its file, by name."""
    progress = {broken.name: str(broken) for broken in plan.broken}
    for experiment in plan.experiments:
        text = _progress(experiment, result)
        if text is not None:
            progress[experiment.name] = text
    return dict(sorted(progress.items()))


def _progress(experiment: ExperimentPlan, result: SyncResult) -> str | None:
    """Return how many of an experiment's changes were made; None if all were made."""
    done = [result.outcomes[change.key] for change in experiment.changes if change.action is not Action.KEEP]
    failed = [entry for entry in done if is_not_done(entry)]
    if not failed:
        return None
    if experiment.held:
        return "new, held back"
    changed = len(done) - len(failed)
    prunes = {change.key for change in experiment.changes if change.action is Action.PRUNE}
    if prunes >= {entry.key for entry in failed}:
        return "not pruned" if not changed else f"{len(failed)} not pruned"
    return f"{changed} of {count(len(done), 'object')} changed" if changed else "nothing was changed"


def _table(
    plan: Plan,
    result: SyncResult,
    stuck: Mapping[str, ExperimentStuck],
    not_done: frozenset[str],
) -> Iterator[Line]:
    """Yield the outcome of each planned change in the experiments that have a problem."""
    for experiment in plan.experiments:
        name = shown_name(experiment.name)
        for change in experiment.changes if experiment.name in not_done else ():
            for text in _done_lines(change, result.outcomes[change.key], name):
                yield text
                name = ""
        if experiment.name in stuck:
            yield from stuck_lines(stuck[experiment.name])
    for broken in plan.broken:
        yield named(broken.name, Span("broken", Style.BAD), f" {broken}")


def _done_lines(change: Change, done: ObjectDone, name: str) -> Iterator[Line]:
    """Yield the outcome of an object; an error that the plan has already shown is not repeated."""
    if change.error is None or done.error is not change.error or done.key != change.key:
        yield from done_lines(done, name)
    elif done.outcome is Outcome.FAILED:
        text = f" {change.key}: {error_label(change.error.code).text}, see the plan"
        yield named(name, Span("blocked", Style.BAD), text)


def _verdict(plan: Plan, not_done: Mapping[str, str], not_ready: Sequence[str]) -> str:
    names = {experiment.name for experiment in plan.experiments} | {broken.name for broken in plan.broken}
    sentences = [f"{len(names) - len(not_done)} of {count(len(names), 'experiment')} synced."]
    if not_done:
        parts = [f"{shown_name(name)} ({progress})" for name, progress in not_done.items()]
        sentences.append(f"Not synced: {named_list(parts)}.")
    if not_ready:
        sentences.append(f"Not ready: {named_list(not_ready)}.")
    return " ".join(sentences)


def _prune_lines(plan: Plan, result: SyncResult) -> Iterator[Line]:
    """Yield the reason why nothing was pruned, if prunes were planned."""
    pruned = [result.outcomes[c.key] for c in plan.changes if c.action is Action.PRUNE]
    if not pruned or any(done.outcome is not Outcome.NOT_ATTEMPTED for done in pruned):
        return
    for stop in plan.stops:
        yield line("Nothing was pruned: ", flat(stop.what))
        yield hint_line(stop.hint)
    yield from held_lines(plan, hint=True)
    others = [done for done in result.outcomes.values() if is_not_done(done) and done not in pruned]
    if not plan.stops and others:
        yield line("Nothing was pruned: a sync with errors never prunes.")
