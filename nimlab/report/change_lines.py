"""One experiment's changes -> lines: what is done with each object, which fields, what to know of it.

In: changes. Out: lines, and with one of them what the experiment adds. Deletions stand first. Whoever prints
them puts the experiment's name before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from nimlab.files.spec import OnImmutableChange
from nimlab.objects.manifest import WORKLOADS
from nimlab.objects.takeover import Takeover
from nimlab.plan.change import Action, Change
from nimlab.plan.kstatus import peers_of
from nimlab.plan.make_plan import ExperimentPlan, Plan
from nimlab.plan.workload import caveats_of, restarts_together
from nimlab.report.format_value import added_texts, change_texts, json_parts
from nimlab.report.problems import error_about
from nimlab.report.styled_text import Line, Span, Style, count, flat, hint_line, line, named_list, width_of

_SIGNS: Final = {
    Action.CREATE: ("+", Style.NEW),
    Action.UPDATE: ("~", Style.CHANGED),
    Action.REPLACE: ("-/+", Style.GONE),
    Action.PRUNE: ("-", Style.GONE),
    Action.KEEP: ("=", Style.FAINT),
}
_FIELDS: Final = 12
_PATH_COLUMNS: Final = 60
_ADDED_COLUMN: Final = 84  # a line that reaches beyond it carries its numbers right behind
_GAP: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How wide the column of signs is, and whether everything is shown."""

    sign_width: int
    verbose: bool

    @property
    def indent(self) -> int:
        """Where the verbs begin; what belongs to an object stands below."""
        return self.sign_width + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeBlock:
    """A line and, where it has one, what it adds: pods, CPU and memory in a column at the right."""

    line: Line
    added: tuple[str, str, str] | None = None


def layout_of(changes: Sequence[Change], *, verbose: bool) -> Layout:
    """Return the layout in which these changes line up."""
    signs = [_SIGNS[change.action][0] for change in changes]
    return Layout(sign_width=max([1, *map(len, signs)]), verbose=verbose)


def experiment_entries(
    one: ExperimentPlan, layout: Layout, *, removed_in: str | None, withheld: bool
) -> list[ChangeBlock]:
    """Return an experiment's entries; empty if there is nothing to tell.

    `removed_in` is the commit that removed its file, where that is known; `withheld` says that its prunes
    don't happen. What it adds stands with its workload.
    """
    blocks = [b for b in _blocks(one, layout, removed_in=removed_in, withheld=withheld) if b[1]]
    added = added_texts(one.added)
    place = next((i for i, (is_workload, _) in enumerate(blocks) if is_workload), 0)
    return [
        ChangeBlock(line=text, added=added if any(added) and (i, k) == (place, 0) else None)
        for i, (_, block) in enumerate(blocks)
        for k, text in enumerate(block)
    ]


def set_right(entries: Sequence[ChangeBlock]) -> Iterator[Line]:
    """Yield the entries' lines with what is added set in columns at the right."""
    added = [entry.added for entry in entries if entry.added]
    widths = [max(len(text) for text in column) for column in zip(*added, strict=True)]
    ends = [width_of(entry.line) + _GAP for entry in entries if entry.added]
    place = max((end for end in ends if end <= _ADDED_COLUMN), default=0)
    for entry in entries:
        if entry.added is None:
            yield entry.line
            continue
        cells = (cell.ljust(width) for cell, width in zip(entry.added, widths, strict=True))
        gap = max(place - width_of(entry.line), _GAP)
        yield (*entry.line, Span(" " * gap + "  ".join(cells).rstrip()))


def held_lines(plan: Plan, *, hint: bool) -> Iterator[Line]:
    """Yield which new experiments are not created, why, and how to create them."""
    if not plan.held:
        return
    what = "a new experiment is" if len(plan.held) == 1 else f"{len(plan.held)} new experiments are"
    names = named_list(plan.held)
    why = "new peers would run beside the peers that are not pruned"
    yield line(Span(f"! {what} not created:", Style.BAD), f" {names}: {why}")
    if hint:
        yield hint_line("once the prunes are allowed they are created; to run both, add `--no-prune`")


def _blocks(
    one: ExperimentPlan, layout: Layout, *, removed_in: str | None, withheld: bool
) -> Iterator[tuple[bool, list[Line]]]:
    """Each object's lines, or a group's, and whether a workload is among them."""
    fine = [change for change in one.changes if change.error is None]
    pruned = [change for change in fine if change.action is Action.PRUNE]
    created = [change for change in fine if change.action is Action.CREATE and not change.reason]
    for namespace in sorted({change.former.namespace if change.former else "" for change in pruned}):
        group = [c for c in pruned if (c.former.namespace if c.former else "") == namespace]
        why = (
            f"left in namespace {namespace}, where the lab was"
            if namespace
            else _prune_reason(one, removed_in)
        )
        text = f"{count(len(group), 'object')}{', withheld' if withheld else ''}: {why}"
        yield _has_workload(group), _group(Action.PRUNE, text, group, layout, listed=True)
    if len(created) == 1 and len(one.changes) > 1:
        yield _has_workload(created), _object_lines(created[0], layout)
    elif created:
        listed = layout.verbose or len(created) < len(one.changes)
        text = f"{count(len(created), 'object')}{', held back' if one.held else ''}"
        yield _has_workload(created), _group(Action.CREATE, text, created, layout, listed=listed)
    for change in one.changes:
        if change not in pruned and change not in created:
            yield _has_workload([change]), _object_lines(change, layout)
    if len(fine) < len(one.changes) and any(_is_pending(change) for change in fine):
        text = f"nothing of {one.name or 'these'} is changed while an object is blocked"
        yield False, [layout_note(text, layout)]


def _has_workload(changes: Sequence[Change]) -> bool:
    return any(c.key.kind in WORKLOADS and c.action is not Action.KEEP for c in changes)


def _is_pending(change: Change) -> bool:
    return change.action not in (Action.KEEP, Action.PRUNE)


def _prune_reason(one: ExperimentPlan, removed_in: str | None) -> str:
    if one.source is not None:
        return f"no longer part of {one.source}"
    if removed_in is not None:
        return f"experiments/{one.name}.yaml is gone since {removed_in}"
    return "no file asks for it any more"


def _group(
    action: Action, text: str, changes: Sequence[Change], layout: Layout, *, listed: bool
) -> list[Line]:
    keys = [line(" " * (layout.indent + 2), str(change.key)) for change in changes if listed]
    return [head_of(action, text, layout), *keys]


def head_of(action: Action, text: str, layout: Layout) -> Line:
    """Return the line of an action: its sign, its name and a text."""
    sign, style = _SIGNS[action]
    return _marked(sign, action.value, style, text, layout)


def _marked(sign: str, verb: str, style: Style, text: str, layout: Layout) -> Line:
    return line(Span(f"{sign:<{layout.sign_width}} {verb:<7}", style), " ", text)


def _object_lines(change: Change, layout: Layout) -> list[Line]:
    """All lines of one object; none where it is kept and there is nothing to say of it."""
    lines: list[Line] = []
    if change.error is not None:
        mark, what = error_about(change.error, change.key)
        head = _marked("!", "blocked", Style.BAD, f"{change.key}: ", layout)
        lines.append((*head, mark, Span(what)))
        if change.error.hint is not None:
            lines.append(hint_line(change.error.hint, layout.indent + 2))
    elif change.action is not Action.KEEP or change.reason or layout.verbose:
        reason = f": {flat(change.reason)}" if change.reason else ""
        lines.append(head_of(change.action, f"{change.key}{reason}", layout))
    lines += _field_lines(change, layout)
    lines += [layout_note(text, layout) for text in _notes(change)]
    return [*lines, *_foreign_lines(change, layout)]


def _field_lines(change: Change, layout: Layout) -> Iterator[Line]:
    fields = [part for field in change.fields for part in json_parts(field)]
    shown = fields if layout.verbose else fields[:_FIELDS]
    texts = [change_texts(field, whole=layout.verbose) for field in shown]
    width = min(max((len(path) for path, _, _ in texts), default=0), _PATH_COLUMNS)
    for path, old, new in texts:
        yield line(" " * (layout.indent + 2), f"{path:<{width}}     {old} → {new}")
    left = len(fields) - len(shown)
    if left:
        yield line(" " * (layout.indent + 2), f"… and {count(left, 'more field')} (--verbose shows all)")


def layout_note(text: str, layout: Layout) -> Line:
    """Return a line that warns of something."""
    return line(" " * layout.indent, Span("!", Style.BAD), f" {text}")


def _notes(change: Change) -> Iterator[str]:
    """What a reader of the change has to know beside its fields."""
    managers = sorted({conflict.manager for conflict in change.taken})
    for manager in managers:
        fields = [c.field.lstrip(".") for c in change.taken if c.manager == manager]
        yield f"takes back what was changed by hand with `{manager}`: {named_list(fields)}"
    if change.takeover is not None:
        yield from _handover(change.takeover)
    if restart_cause(change):
        yield _restarts(change)
    yield from notes_of(change)


def notes_of(change: Change) -> Iterator[str]:
    """Yield what a reader has to know that depends on no number and no other manager."""
    if change.replace_by is OnImmutableChange.ORPHAN and change.error is None:
        stay = "until then they stay" if change.restarts else "its peers stay"
        yield f"{stay}: they are adopted by the new object"
    if change.action not in (Action.KEEP, Action.PRUNE):
        yield from caveats_of(change.desired)
    if change.unverified and change.action is not Action.KEEP:  # there, the reason says it
        yield "unverified: compared here, since the credentials don't allow a server dry-run"


def _handover(takeover: Takeover) -> Iterator[str]:
    """Whose object it was, and which additions of others go."""
    for manager in takeover.managers:
        yield f"takes over what `{manager}` made: from now on, what goes from Git goes here"
    for manager in sorted({f.manager for f in takeover.removed} - set(takeover.managers)):
        fields = [f.text for f in takeover.removed if f.manager == manager]
        yield f"removes what `{manager}` has added: {named_list(fields)}"


def _restarts(change: Change) -> str:
    """Which peers restart, how, and why."""
    return f"restarts {_restarting(change)}{restart_cause(change)} (about {change.restart_s} s)"


def restart_cause(change: Change) -> str:
    """Return how and why its peers restart, beginning with a comma or colon; empty if none restart."""
    if change.error is not None or not change.restarts:
        return ""
    if change.takes_peers:
        return ": the object is deleted and made anew"
    together = change.desired is not None and restarts_together(change.desired)
    how = "" if together or change.restarts == 1 else ", one after another"
    changes = any(field.in_template for field in change.fields)
    why = "the pod template changes" if changes else "they are of an older revision"
    return f"{how}: {why}"


def _restarting(change: Change) -> str:
    """Which peers, and how many of them run: what has never run loses nothing by a restart."""
    if change.live is None:
        return f"all {change.restarts} peers"
    peers = peers_of(change.live)
    if peers.running >= peers.existing:
        which = "the one running peer" if peers.existing == 1 else f"all {peers.existing} running peers"
        few = change.restarts < peers.existing
        return f"{change.restarts} of {peers.existing} running peers" if few else which
    if change.restarts < peers.existing:
        which = f"{change.restarts} of {peers.existing} peers"
    else:
        which = "the one peer" if peers.existing == 1 else f"all {peers.existing} peers"
    if not peers.running:
        return (
            f"{which}, which isn't running" if peers.existing == 1 else f"{which}, none of which is running"
        )
    return f"{which}, of which {peers.running} are running" if change.restarts == peers.existing else which


def _foreign_lines(change: Change, layout: Layout) -> Iterator[Line]:
    """What each other manager has put into the object; a single field stands on the manager's line."""
    for manager in sorted({foreign.manager for foreign in change.foreign}):
        texts = [f.text for f in change.foreign if f.manager == manager]
        in_pods = any(f.in_template for f in change.foreign if f.manager == manager)
        so = "this run is not the one in Git" if in_pods else "not in Git, left alone"
        what = _short(texts[0], change) if len(texts) == 1 else count(len(texts), "field")
        said = f"{change.key}: {what} added by `{manager}`; {so}"
        yield _marked("!", "foreign", Style.BAD, said, layout)
        if len(texts) > 1:
            yield from (line(" " * (layout.indent + 2), _short(text, change)) for text in texts)


def _short(text: str, change: Change) -> str:
    """A path without what is the same for all of a workload's: `env[DEBUG]`."""
    live = change.live or {}
    pod = ((live.get("spec") or {}).get("template") or {}).get("spec") or {}
    names = [container["name"] for container in pod.get("containers") or ()]
    short = text.removeprefix("spec.template.spec.")
    return short.removeprefix(f"containers[{names[0]}].") if len(names) == 1 else short
