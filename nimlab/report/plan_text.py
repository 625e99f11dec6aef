"""A plan -> text: the changes of each experiment, the withheld changes with the reason, and the totals.

In: a plan, the number of requests for it, and the time that it took. Out: the text that a person reads
before a sync.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from nimlab.files.git_history import Commit
from nimlab.plan.change import Action
from nimlab.plan.make_plan import ExperimentPlan, Plan
from nimlab.report.change_groups import ChangeGroup, group_entries, group_similar
from nimlab.report.change_lines import ChangeLine, align_resources, experiment_lines, held_lines, layout_of
from nimlab.report.file_problems import error_lines
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
    shown_name,
)
from nimlab.report.totals import totals_of, withholds_prunes


def format_header(name: str, why: str, commit: Commit | None) -> str:
    """Return the first line of the output: the cluster, why it was chosen, and the commit."""
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
    """Return the plan, with its totals if it is a dry run or if nothing is done.

    In a sync that does something, the summary shows the totals at the end. Experiments with prunes come
    first, then the others; both parts are sorted by name. `removed_in` contains, by experiment, the commit
    that removed its file. If the changes take more than `rows` lines, similar changes are grouped unless
    `verbose` is set.
    """
    width = max([NAME_WIDTH, *(len(escape(experiment.name)) for experiment in plan.experiments)])
    entries = _entries(plan, plan.experiments, removed_in, width, verbose=verbose)
    if len(entries) > rows and not verbose:
        groups, others = group_similar(plan.experiments)
        width = max([width, *(len(group.name) for group in groups)])
        own = _entries(plan, others, removed_in, width, verbose=False)
        entries = [*own, *_group_entries(plan, groups, width)]
    lines = [
        *align_resources(entries),
        *_lab_lines(plan, width),
        *_withheld_lines(plan, hints=dry_run),
    ]
    if dry_run or plan.is_empty or plan.refusal:
        cost = f"{count(requests, 'request')}, {count(writes, 'write') if writes else 'no writes'}"
        lines.append(line(Span(_totals_text(plan), Style.STRONG), f" ({cost}, {elapsed_s:.1f} s)"))
    return join(lines, paint=paint)


def _has_prunes(experiment: ExperimentPlan) -> bool:
    return any(change.action is Action.PRUNE for change in experiment.changes)


def _entries(
    plan: Plan,
    experiments: Sequence[ExperimentPlan],
    removed_in: Mapping[str, str],
    width: int,
    *,
    verbose: bool,
) -> list[ChangeLine]:
    """Return the lines of the experiments; the first line of an experiment starts with its name."""
    layout = layout_of(plan.changes, verbose=verbose)
    entries: list[ChangeLine] = []
    for experiment in sorted(experiments, key=lambda member: (not _has_prunes(member), member.name)):
        own = experiment_lines(
            experiment, layout, removed_in=removed_in.get(experiment.name), withheld=withholds_prunes(plan)
        )
        entries += _with_name(shown_name(experiment.name), own, width)
    return entries


def _group_entries(plan: Plan, groups: Sequence[ChangeGroup], width: int) -> list[ChangeLine]:
    layout = layout_of(plan.changes, verbose=False)
    return [e for group in groups for e in _with_name(group.name, list(group_entries(group, layout)), width)]


def _with_name(name: str, entries: Sequence[ChangeLine], width: int) -> list[ChangeLine]:
    """Return the lines; the first line starts with the name."""
    return [
        ChangeLine(line=named("" if index else name, *entry.line, width=width), added=entry.added)
        for index, entry in enumerate(entries)
    ]


def _lab_lines(plan: Plan, width: int) -> Iterator[Line]:
    """Yield the lines about the lab's namespaces and about broken files."""
    if plan.create_namespace and not plan.is_empty:
        text = f" Namespace/{plan.apply_set.namespace}"
        yield named("(lab)", Span("+ create ", Style.NEW), text, width=width)
    for namespace in plan.unchecked:
        text = f" namespace {namespace} of an earlier lab.yaml: the check requires `get` on its ConfigMaps"
        yield named("(lab)", Span("! not checked", Style.BAD), text, width=width)
    for former in plan.retired:
        text = f" {former.apply_set.parent_key}: the record of a former namespace, deleted last"
        yield named("(lab)", Span("- prune  ", Style.BAD), text, width=width)
    for broken in plan.broken:
        text = f" {broken}: its objects are not changed"
        yield named(broken.name, Span("! broken ", Style.BAD), text, width=width)


def _withheld_lines(plan: Plan, *, hints: bool) -> Iterator[Line]:
    """Yield the withheld changes and the reasons; in a sync, the summary at its end shows the hints."""
    for stop in plan.stops:
        yield line(Span("! nothing is pruned:", Style.BAD), f" {flat(stop.what)}")
        if hints or plan.refusal is not None:
            yield hint_line(stop.hint)
    yield from held_lines(plan, hint=hints or plan.refusal is not None)
    if plan.refusal is not None:
        first, *others = error_lines(plan.refusal)
        yield line(Span("! nothing is done: ", Style.BAD), *first)
        yield from others


def _totals_text(plan: Plan) -> str:
    """Return a text such as `Plan: 1 to update, 4 to prune, 12 unchanged`."""
    totals = totals_of(plan)
    left_alone = sum(c.action is Action.KEEP and c.desired is None for c in plan.changes)
    foreign = sum(len(change.foreign) for change in plan.changes)
    counts = (
        (totals.create, "to create"),
        (totals.update, "to update"),
        (totals.replace, "to replace"),
        (totals.prune, "to prune"),
        (totals.blocked, "blocked"),
        (totals.withheld, "withheld from pruning"),
        (totals.held, "held back from creation"),
        (len(plan.broken), "broken file" if len(plan.broken) == 1 else "broken files"),
        (left_alone, "left alone"),
        (foreign, "foreign field" if foreign == 1 else "foreign fields"),
    )
    parts = [f"{number} {text}" for number, text in counts if number]
    if totals.keep > left_alone or not parts:
        parts.append(f"{totals.keep - left_alone} unchanged")
    if plan.refusal is not None:
        head = "Refused"
    elif plan.is_empty:
        head = "Nothing to do"
    else:
        head = "Plan for the named experiments" if plan.narrowed else "Plan"
    return f"{head}: {', '.join(parts)}"
