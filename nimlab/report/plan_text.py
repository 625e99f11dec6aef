"""A plan -> text: what will be done, experiment by experiment, what is withheld and why, and the sum.

In: a plan and what making it took. Out: text as a person reads it before saying yes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from nimlab.files.git import Commit
from nimlab.plan.change import Action
from nimlab.plan.make_plan import ExperimentPlan, Plan
from nimlab.report.change_groups import AlikeGroup, group_alike, group_entries
from nimlab.report.change_lines import ChangeBlock, experiment_entries, held_lines, layout_of, set_right
from nimlab.report.problems import error_lines
from nimlab.report.styled_text import (
    NAME_WIDTH,
    Line,
    Span,
    Style,
    count,
    escape,
    flat,
    hint_line,
    join,
    line,
    named,
)
from nimlab.report.totals import totals_of


def format_header(name: str, why: str, commit: Commit | None) -> str:
    """Return a run's first line: which cluster, why this one, and from which commit."""
    cluster = f"cluster  {escape(name)} ({escape(why)})"
    if commit is None:
        return cluster
    branch = f"on {escape(commit.branch)}" if commit.branch else "on no branch"
    state = "with uncommitted changes" if commit.dirty else "clean"
    if commit.hidden:
        state = f"with {count(len(commit.hidden), 'file')} that Git hides"
    return f"{cluster}        commit {commit.sha[:7]} {branch}, {state}"


def format_plan(
    plan: Plan,
    *,
    requests: int,
    writes: int,
    elapsed_s: float,
    removed_in: Mapping[str, str],
    dry_run: bool,
    verbose: bool,
    paint: bool,
    rows: int = 100,
) -> str:
    """Return the plan; without `dry_run` the sum is left to the outcome, unless nothing is done.

    Experiments with prunes come first, then by name. `removed_in` names the commits that removed files, by
    experiment. If the changes take more than `rows` lines, alike ones are grouped unless `verbose` is set.
    """
    width = max([NAME_WIDTH, *(len(escape(one.name)) for one in plan.experiments)])
    entries = _entries(plan, plan.experiments, removed_in, width, verbose=verbose)
    if len(entries) > rows and not verbose:
        groups, others = group_alike(plan.experiments)
        width = max([width, *(len(group.name) for group in groups)])
        own = _entries(plan, others, removed_in, width, verbose=False)
        entries = [*own, *_group_entries(plan, groups, width)]
    lines = [
        *set_right(entries),
        *_rest(plan, width),
        *_withheld(plan, hints=dry_run),
    ]
    if dry_run or plan.is_empty or plan.refusal:
        cost = f"{count(requests, 'request')}, {count(writes, 'write') if writes else 'no writes'}"
        lines.append(line(Span(_sum(plan), Style.STRONG), f" ({cost}, {elapsed_s:.1f} s)"))
    return join(lines, paint=paint)


def _has_prunes(one: ExperimentPlan) -> bool:
    return any(change.action is Action.PRUNE for change in one.changes)


def _entries(
    plan: Plan,
    experiments: Sequence[ExperimentPlan],
    removed_in: Mapping[str, str],
    width: int,
    *,
    verbose: bool,
) -> list[ChangeBlock]:
    """The experiments' entries, each experiment's name before its first."""
    layout = layout_of(plan.changes, verbose=verbose)
    withheld = bool(plan.stops or plan.refusal)
    entries: list[ChangeBlock] = []
    for one in sorted(experiments, key=lambda one: (not _has_prunes(one), one.name)):
        gone = removed_in.get(one.name)
        found = experiment_entries(one, layout, removed_in=gone, withheld=withheld)
        entries += _with_name(one.name or "(none)", found, width)
    return entries


def _group_entries(plan: Plan, groups: Sequence[AlikeGroup], width: int) -> list[ChangeBlock]:
    layout = layout_of(plan.changes, verbose=False)
    return [e for group in groups for e in _with_name(group.name, list(group_entries(group, layout)), width)]


def _with_name(name: str, entries: Sequence[ChangeBlock], width: int) -> list[ChangeBlock]:
    """The entries with a name before the first."""
    return [
        ChangeBlock(line=named("" if place else name, *entry.line, width=width), added=entry.added)
        for place, entry in enumerate(entries)
    ]


def _rest(plan: Plan, width: int) -> Iterator[Line]:
    """What belongs to no experiment's objects: the lab's own namespace, files that can't be used."""
    if plan.create_namespace and not plan.is_empty:
        yield named(
            "(lab)", Span("+ create ", Style.NEW), f" Namespace/{plan.apply_set.namespace}", width=width
        )
    for namespace in plan.unchecked:
        text = f" namespace {namespace}, which an earlier lab.yaml names: needs `get` on configmaps there"
        yield named("(lab)", Span("! not checked", Style.BAD), text, width=width)
    for former in plan.retired:
        text = f" {former.apply_set.parent_key}: the record of the former namespace, deleted last"
        yield named("(lab)", Span("- prune  ", Style.BAD), text, width=width)
    for broken in plan.broken:
        text = f" {broken}: nothing of it is touched"
        yield named(broken.name, Span("! broken ", Style.BAD), text, width=width)


def _withheld(plan: Plan, *, hints: bool) -> Iterator[Line]:
    """What is not done and why; a sync that goes on gives the hints at its end, once."""
    for stop in plan.stops:
        yield line(Span("! nothing is pruned:", Style.BAD), f" {flat(stop.what)}")
        if hints or plan.refusal is not None:
            yield hint_line(stop.hint)
    yield from held_lines(plan, hint=hints or plan.refusal is not None)
    if plan.refusal is not None:
        first, *others = error_lines(plan.refusal)
        yield line(Span("! nothing is done: ", Style.BAD), *first)
        yield from others


def _sum(plan: Plan) -> str:
    sums = totals_of(plan)
    left_alone = sum(c.action is Action.KEEP and c.desired is None for c in plan.changes)
    foreign = sum(len(change.foreign) for change in plan.changes)
    words = (
        (sums.create, "to create"),
        (sums.update, "to update"),
        (sums.replace, "to replace"),
        (sums.prune, "to prune"),
        (sums.blocked, "blocked"),
        (sums.withheld, "withheld from pruning"),
        (sums.held, "held back from creating"),
        (len(plan.broken), "broken file" if len(plan.broken) == 1 else "broken files"),
        (left_alone, "left alone"),
        (foreign, "foreign field" if foreign == 1 else "foreign fields"),
    )
    said = [f"{number} {word}" for number, word in words if number]
    if sums.keep > left_alone or not said:
        said.append(f"{sums.keep - left_alone} unchanged")
    if plan.refusal is not None:
        head = "Refused"
    elif plan.is_empty:
        head = "Nothing to do"
    else:
        head = "Plan for the experiments named" if plan.narrowed else "Plan"
    return f"{head}: {', '.join(said)}"
