"""A plan carried out -> the end of a sync: the counts, and when something went wrong, what and what now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from nimlab.objects.manifest import ObjectKey
from nimlab.plan.change import Action, Change
from nimlab.plan.make_plan import Plan
from nimlab.plan.sync_events import Event, ExperimentStuck, ObjectDone, Outcome
from nimlab.report.change_lines import held_lines
from nimlab.report.event_lines import done_lines, stuck_lines
from nimlab.report.problems import error_mark
from nimlab.report.styled_text import Line, Span, Style, count, flat, hint_line, join, line, named, named_list
from nimlab.report.totals import is_not_done, outcomes_of, peers_by_experiment

_ALWAYS = (Outcome.CREATED, Outcome.UPDATED, Outcome.PRUNED, Outcome.UNCHANGED)


def format_outcome(
    plan: Plan, events: Sequence[Event], *, elapsed_s: float, paint: bool, has_events: bool = False
) -> str:
    """Return the end of a sync: one line when all is well.

    When not, before it a table of what was done, what failed and what was not attempted in the experiments
    concerned, and after it what that means and what to do. `elapsed_s` is the time of the whole run. With
    `has_events`, the same output has shown the events, and what troubles peers is not repeated.
    """
    outcomes = outcomes_of(plan, events)
    stuck = {e.experiment: e for e in events if isinstance(e, ExperimentStuck)}
    not_done = _not_done(plan, outcomes)
    lines = [
        *_table(plan, outcomes, {} if has_events else stuck, frozenset(not_done)),
        line(_counts(outcomes) + _peers(events, plan.apply_set.noun, elapsed_s)),
    ]
    not_ready = sorted(n for n, peers in peers_by_experiment(events).items() if not peers.settled)
    if not_done or not_ready:
        lines.append(line(_verdict(plan, not_done, not_ready)))
    lines += _prunes(plan, outcomes)
    if not_done:
        failed = plan.stops or plan.broken or any(d.outcome is Outcome.FAILED for d in outcomes.values())
        mended = " once mended" if failed else ""
        lines.append(line(f"Run it again{mended}; what is done stays done."))
    return join(lines, paint=paint)


def _counts(outcomes: Mapping[ObjectKey, ObjectDone]) -> str:
    found = Counter(done.outcome for done in outcomes.values())
    shown = [o for o in Outcome if o in _ALWAYS or found[o]]
    return ", ".join(f"{found[outcome]} {outcome.value}" for outcome in shown)


def _peers(events: Sequence[Event], noun: str, elapsed_s: float) -> str:
    peers = peers_by_experiment(events).values()
    if not peers:
        return f" ({elapsed_s:.1f} s)"
    running, wanted = sum(p.running for p in peers), sum(p.wanted for p in peers)
    waited = any(p.waited_s for p in peers)
    time = f" after {elapsed_s:.1f} s" if waited else f" ({elapsed_s:.1f} s)"
    return f"; {running} of {count(wanted, noun)} running{time}"


def _not_done(plan: Plan, outcomes: Mapping[ObjectKey, ObjectDone]) -> dict[str, str]:
    """The experiments that are not as their files say, by name, and how far each got."""
    found = {broken.name: str(broken) for broken in plan.broken}
    for one in plan.experiments:
        done = [outcomes[change.key] for change in one.changes if change.action is not Action.KEEP]
        failed = [entry for entry in done if is_not_done(entry)]
        if not failed:
            continue
        only_prunes = {c.key for c in one.changes if c.action is Action.PRUNE} >= {e.key for e in failed}
        changed = len(done) - len(failed)
        if one.held:
            found[one.name] = "new, held back"
        elif only_prunes:
            found[one.name] = "not pruned" if not changed else f"{len(failed)} not pruned"
        else:
            far = f"{changed} of {count(len(done), 'object')} changed"
            found[one.name] = far if changed else "nothing was changed"
    return dict(sorted(found.items()))


def _table(
    plan: Plan,
    outcomes: Mapping[ObjectKey, ObjectDone],
    stuck: Mapping[str, ExperimentStuck],
    not_done: frozenset[str],
) -> Iterator[Line]:
    """Every object that was to change, in the experiments where something went wrong."""
    for one in plan.experiments:
        name = one.name or "(none)"
        for change in one.changes if one.name in not_done else ():
            for text in _done_lines(change, outcomes[change.key], name):
                yield text
                name = ""
        if one.name in stuck:
            yield from stuck_lines(stuck[one.name])
    for broken in plan.broken:
        yield named(broken.name, Span("broken", Style.BAD), f" {broken}")


def _done_lines(change: Change, done: ObjectDone, name: str) -> Iterator[Line]:
    """What became of an object; an error that the plan has shown is not repeated."""
    if change.error is None or done.error is not change.error or done.key != change.key:
        yield from done_lines(done, name)
    elif done.outcome is Outcome.FAILED:
        text = f" {change.key}: {error_mark(change.error.code).text}, see the plan"
        yield named(name, Span("blocked", Style.BAD), text)


def _verdict(plan: Plan, not_done: Mapping[str, str], not_ready: Sequence[str]) -> str:
    names = {one.name for one in plan.experiments} | {broken.name for broken in plan.broken}
    said = [f"{len(names) - len(not_done)} of {count(len(names), 'experiment')} synced."]
    if not_done:
        parts = [f"{name or '(none)'} ({far})" for name, far in not_done.items()]
        said.append(f"Not done: {named_list(parts)}.")
    if not_ready:
        said.append(f"Not ready: {named_list(not_ready)}.")
    return " ".join(said)


def _prunes(plan: Plan, outcomes: Mapping[ObjectKey, ObjectDone]) -> Iterator[Line]:
    """Why nothing was pruned, where something was to be."""
    pruned = [outcomes[c.key] for c in plan.changes if c.action is Action.PRUNE]
    if not pruned or any(done.outcome is not Outcome.NOT_ATTEMPTED for done in pruned):
        return
    for stop in plan.stops:
        yield line("Nothing was pruned: ", flat(stop.what))
        yield hint_line(stop.hint)
    yield from held_lines(plan, hint=True)
    others = [d for key, d in outcomes.items() if is_not_done(d) and d not in pruned]
    if not plan.stops and others:
        yield line("Nothing was pruned: a sync with errors never prunes.")
