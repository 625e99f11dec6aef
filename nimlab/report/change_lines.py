"""The changes of one experiment -> lines: the action for each object, its changed fields and its notes.

In: changes. Out: lines, prunes first. One of the lines shows the resources that the experiment adds. The
caller adds the name of the experiment.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from nimlab.objects.kinds_and_order import WORKLOADS
from nimlab.plan.change import Action, Change
from nimlab.plan.make_plan import ExperimentPlan, Plan
from nimlab.report.change_notes import notes_of
from nimlab.report.file_problems import error_about
from nimlab.report.format_value import added_texts, change_texts, expand_json
from nimlab.report.styled_text import Line, Span, Style, count, flat, hint_line, line, named_list, width_of

_SIGNS: Final = {
    Action.CREATE: ("+", Style.NEW),
    Action.UPDATE: ("~", Style.CHANGED),
    Action.REPLACE: ("-/+", Style.GONE),
    Action.PRUNE: ("-", Style.GONE),
    Action.KEEP: ("=", Style.FAINT),
}
MAX_FIELDS: Final = 12
_PATH_COLUMNS: Final = 60
_ADDED_COLUMN: Final = 84  # if a line is longer, the resources follow directly after it
_GAP: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The width of the column for the signs (`+`, `!`), and whether all details are shown."""

    sign_width: int
    verbose: bool

    @property
    def indent(self) -> int:
        """The column in which the action starts; details of the object are indented at least this far."""
        return self.sign_width + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeLine:
    """A line of a plan. The texts in `added` (pods, CPU, memory) are shown in columns on the right."""

    line: Line
    added: tuple[str, str, str] | None = None


def layout_of(changes: Sequence[Change], *, verbose: bool) -> Layout:
    """Return the layout that aligns the lines of these changes."""
    signs = [_SIGNS[change.action][0] for change in changes]
    return Layout(sign_width=max([1, *map(len, signs)]), verbose=verbose)


def experiment_lines(
    experiment: ExperimentPlan, layout: Layout, *, removed_in: str | None, withheld: bool
) -> list[ChangeLine]:
    """Return the lines of an experiment; none if there is nothing to report.

    `removed_in` is the commit that removed the experiment's file, if known. If `withheld` is set, the sync
    does not carry out the experiment's prunes. The line of the first changed workload shows the resources
    that the experiment adds.
    """
    blocks = [
        (has_workload, lines)
        for has_workload, lines in _blocks(experiment, layout, removed_in=removed_in, withheld=withheld)
        if lines
    ]
    added = added_texts(experiment.added)
    first = next((index for index, (has_workload, _) in enumerate(blocks) if has_workload), 0)
    return [
        ChangeLine(line=text, added=added if any(added) and (block, row) == (first, 0) else None)
        for block, (_, lines) in enumerate(blocks)
        for row, text in enumerate(lines)
    ]


def align_resources(entries: Sequence[ChangeLine]) -> Iterator[Line]:
    """Yield the lines; the resources are aligned in columns on the right."""
    added = [entry.added for entry in entries if entry.added]
    widths = [max(len(text) for text in column) for column in zip(*added, strict=True)]
    ends = [width_of(entry.line) + _GAP for entry in entries if entry.added]
    start = max((end for end in ends if end <= _ADDED_COLUMN), default=0)
    for entry in entries:
        if entry.added is None:
            yield entry.line
            continue
        cells = (cell.ljust(width) for cell, width in zip(entry.added, widths, strict=True))
        gap = max(start - width_of(entry.line), _GAP)
        yield (*entry.line, Span(" " * gap + "  ".join(cells).rstrip()))


def held_lines(plan: Plan, *, hint: bool) -> Iterator[Line]:
    """Yield the lines about new experiments that are not created: their names, the reason, and a hint."""
    if not plan.held:
        return
    what = "a new experiment is" if len(plan.held) == 1 else f"{len(plan.held)} new experiments are"
    names = named_list(plan.held)
    why = "new peers would run beside the peers that are not pruned"
    yield line(Span(f"! {what} not created:", Style.BAD), f" {names}: {why}")
    if hint:
        yield hint_line("allow the prunes first; to run old and new peers together, pass `--no-prune`")


def _blocks(
    experiment: ExperimentPlan, layout: Layout, *, removed_in: str | None, withheld: bool
) -> Iterator[tuple[bool, list[Line]]]:
    """Yield, for each object or group of objects, whether it contains a changed workload, and its lines."""
    valid = [change for change in experiment.changes if change.error is None]
    pruned = [change for change in valid if change.action is Action.PRUNE]
    created = [change for change in valid if change.action is Action.CREATE and not change.reason]
    for namespace in sorted({_former_namespace(change) for change in pruned}):
        group = [change for change in pruned if _former_namespace(change) == namespace]
        why = _prune_reason(experiment, namespace, removed_in)
        text = f"{count(len(group), 'object')}{', withheld' if withheld else ''}: {why}"
        yield _has_workload(group), _group(Action.PRUNE, text, group, layout, listed=True)
    if len(created) == 1 and len(experiment.changes) > 1:
        yield _has_workload(created), _object_lines(created[0], layout)
    elif created:
        listed = layout.verbose or len(created) < len(experiment.changes)
        text = f"{count(len(created), 'object')}{', held back' if experiment.held else ''}"
        yield _has_workload(created), _group(Action.CREATE, text, created, layout, listed=listed)
    for change in experiment.changes:
        if change not in pruned and change not in created:
            yield _has_workload([change]), _object_lines(change, layout)
    if len(valid) < len(experiment.changes) and any(_is_applied(change) for change in valid):
        group_name = experiment.name or "this group"
        yield (
            False,
            [
                layout_note(
                    f"nothing of {group_name} is changed, because at least one of its objects is blocked",
                    layout,
                )
            ],
        )


def _former_namespace(change: Change) -> str:
    return change.former.namespace if change.former else ""


def _has_workload(changes: Sequence[Change]) -> bool:
    return any(c.key.kind in WORKLOADS and c.action is not Action.KEEP for c in changes)


def _is_applied(change: Change) -> bool:
    return change.action not in (Action.KEEP, Action.PRUNE)


def _prune_reason(experiment: ExperimentPlan, former_namespace: str, removed_in: str | None) -> str:
    if former_namespace:
        return f"left in namespace {former_namespace}, where the lab was before"
    if experiment.source is not None:
        return f"no longer part of {experiment.source}"
    if removed_in is not None:
        return f"experiments/{experiment.name}.yaml was removed in {removed_in}"
    return "no longer defined by any file"


def _group(
    action: Action, text: str, changes: Sequence[Change], layout: Layout, *, listed: bool
) -> list[Line]:
    keys = [line(" " * (layout.indent + 2), str(change.key)) for change in changes if listed]
    return [head_of(action, text, layout), *keys]


def head_of(action: Action, text: str, layout: Layout) -> Line:
    """Return the first line of an action: its sign, its name and a text."""
    sign, style = _SIGNS[action]
    return _head(sign, action.value, style, text, layout)


def _head(sign: str, verb: str, style: Style, text: str, layout: Layout) -> Line:
    return line(Span(f"{sign:<{layout.sign_width}} {verb:<7}", style), " ", text)


def _object_lines(change: Change, layout: Layout) -> list[Line]:
    """Return all lines of one object; none for a kept object with nothing to report."""
    lines: list[Line] = []
    if change.error is not None:
        label, what = error_about(change.error, change.key)
        head = _head("!", "blocked", Style.BAD, f"{change.key}: ", layout)
        lines.append((*head, label, Span(what)))
        if change.error.hint is not None:
            lines.append(hint_line(change.error.hint, layout.indent + 2))
    elif change.action is not Action.KEEP or change.reason or layout.verbose:
        reason = f": {flat(change.reason)}" if change.reason else ""
        lines.append(head_of(change.action, f"{change.key}{reason}", layout))
    lines += _field_lines(change, layout)
    lines += [layout_note(text, layout) for text in notes_of(change)]
    return [*lines, *_foreign_lines(change, layout)]


def _field_lines(change: Change, layout: Layout) -> Iterator[Line]:
    fields = expand_json(change.fields)
    shown = fields if layout.verbose else fields[:MAX_FIELDS]
    texts = [change_texts(field, in_full=layout.verbose) for field in shown]
    width = min(max((len(path) for path, _, _ in texts), default=0), _PATH_COLUMNS)
    for path, old, new in texts:
        yield line(" " * (layout.indent + 2), f"{path:<{width}}     {old} → {new}")
    hidden = len(fields) - len(shown)
    if hidden:
        yield line(" " * (layout.indent + 2), f"… and {count(hidden, 'more field')} (--verbose shows all)")


def layout_note(text: str, layout: Layout) -> Line:
    """Return the indented line of a note, which starts with `!`."""
    return line(" " * layout.indent, Span("!", Style.BAD), f" {text}")


def _foreign_lines(change: Change, layout: Layout) -> Iterator[Line]:
    """Yield one line per foreign field manager. If it added several fields, each follows on its own line."""
    for manager in sorted({foreign.manager for foreign in change.foreign}):
        texts = [f.text for f in change.foreign if f.manager == manager]
        in_pods = any(f.in_template for f in change.foreign if f.manager == manager)
        effect = "this run no longer matches Git" if in_pods else "not in Git, left unchanged"
        what = _short(texts[0], change) if len(texts) == 1 else count(len(texts), "field")
        text = f"{change.key}: {what} added by `{manager}`; {effect}"
        yield _head("!", "foreign", Style.BAD, text, layout)
        if len(texts) > 1:
            yield from (line(" " * (layout.indent + 2), _short(path, change)) for path in texts)


def _short(path: str, change: Change) -> str:
    """Return a path without the prefix of the pod template and of its only container: `env[DEBUG]`."""
    live = change.live or {}
    pod = ((live.get("spec") or {}).get("template") or {}).get("spec") or {}
    names = [container["name"] for container in pod.get("containers") or ()]
    short = path.removeprefix("spec.template.spec.")
    return short.removeprefix(f"containers[{names[0]}].") if len(names) == 1 else short
