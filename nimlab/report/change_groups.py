"""Many experiments that change alike -> one block each, so that a plan of a thousand changes can be read.

In: a plan's experiments. Out: groups of experiments whose changes differ in names and values only, and the
lines of a group. Only plain creates and updates are grouped: prunes, replacements, conflicts, foreign fields
and errors are shown for each experiment. Restarts are counted in the group's lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from nimlab.plan.change import Action, Change
from nimlab.plan.diff import FieldChange
from nimlab.plan.make_plan import ExperimentPlan
from nimlab.plan.workload import Resources
from nimlab.report.change_lines import ChangeBlock, Layout, head_of, layout_note, notes_of, restart_cause
from nimlab.report.format_value import added_texts, change_texts, json_parts
from nimlab.report.styled_text import Line, count, line, named_list

_Sight: TypeAlias = tuple[Any, ...]

_SMALLEST: Final = 3  # fewer experiments are shown one by one
_VALUES: Final = 4  # a field with more different changes than that does not split a group
_NAMES: Final = 3
_FIELDS: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class AlikeGroup:
    """Experiments, sorted by name, whose changes are alike."""

    members: tuple[ExperimentPlan, ...]

    @property
    def name(self) -> str:
        """What stands where an experiment's name would."""
        return count(len(self.members), "experiment")


def group_alike(
    experiments: Sequence[ExperimentPlan],
) -> tuple[tuple[AlikeGroup, ...], tuple[ExperimentPlan, ...]]:
    """Return the groups, largest first, and the experiments that are to be shown one by one."""
    alike: dict[_Sight, list[ExperimentPlan]] = {}
    for one in experiments:
        if _is_plain(one):
            alike.setdefault(_shape(one), []).append(one)
    groups = [
        AlikeGroup(members=tuple(sorted(part, key=lambda one: one.name)))
        for members in alike.values()
        for part in _split(members)
        if len(part) >= _SMALLEST
    ]
    groups.sort(key=lambda group: (-len(group.members), group.members[0].name))
    grouped = {one.name for group in groups for one in group.members}
    return tuple(groups), tuple(one for one in experiments if one.name not in grouped)


def group_entries(group: AlikeGroup, layout: Layout) -> Iterator[ChangeBlock]:
    """Yield a group's lines: which kinds, which experiments, which fields, and how many peers restart."""
    first = group.members[0]
    indent = " " * (layout.indent + 2)
    added = Resources(
        pods=sum(one.added.pods for one in group.members),
        cpu_m=sum(one.added.cpu_m for one in group.members),
        memory_bytes=sum(one.added.memory_bytes for one in group.members),
    )
    texts = added_texts(added)
    held = ", held back" if first.held else ""
    for action in (Action.CREATE, Action.UPDATE):
        changes = [change for change in _shown(first) if change.action is action]
        if changes:
            kinds = ", ".join(change.key.kind for change in changes)
            objects = count(len(changes) * len(group.members), "object")
            head = head_of(action, f"{objects}{held}: {kinds}", layout)
            yield ChangeBlock(line=head, added=texts if any(texts) else None)
            texts = ("", "", "")
    names = named_list([one.name for one in group.members], limit=_NAMES)
    yield ChangeBlock(line=line(indent, f"of {names} (--verbose shows each)"))
    fields = list(_field_lines(group, indent))
    yield from (ChangeBlock(line=text) for text in fields[:_FIELDS])
    if len(fields) > _FIELDS:
        yield ChangeBlock(line=line(indent, f"… and {count(len(fields) - _FIELDS, 'more field')}"))
    yield from (ChangeBlock(line=text) for text in _notes(group, layout))


def _shown(one: ExperimentPlan) -> list[Change]:
    return [change for change in one.changes if change.action is not Action.KEEP]


def _is_plain(one: ExperimentPlan) -> bool:
    """True if nothing of it has to be seen with the experiment's own name."""
    shown = _shown(one)
    return bool(shown) and all(_is_plain_change(change) for change in one.changes)


def _is_plain_change(change: Change) -> bool:
    if change.error or change.foreign or change.taken or change.takeover:
        return False
    if change.action is Action.KEEP:
        return not change.reason
    return change.action in (Action.CREATE, Action.UPDATE)


def _shape(one: ExperimentPlan) -> _Sight:
    """What is the same for all of a group: actions, kinds, reasons, paths, notes, cause of restarts."""
    return (
        one.held,
        tuple(
            (
                change.action,
                change.key.kind,
                change.reason,
                change.unverified,
                restart_cause(change),
                tuple(notes_of(change)),
                tuple(field.path for field in _fields(change)),
            )
            for change in _shown(one)
        ),
    )


def _fields(change: Change) -> list[FieldChange]:
    return [part for field in change.fields for part in json_parts(field)]


def _texts(one: ExperimentPlan) -> tuple[tuple[str, str, str], ...]:
    """Path, old and new text of every changed field, in the order of the shape."""
    fields = (field for change in _shown(one) for field in _fields(change))
    return tuple(change_texts(field, whole=False) for field in fields)


def _split(members: Sequence[ExperimentPlan]) -> list[list[ExperimentPlan]]:
    """Part experiments of one shape by the values of each field that has few different ones."""
    texts = [_texts(one) for one in members]
    places = [place for place, column in enumerate(zip(*texts, strict=True)) if len(set(column)) <= _VALUES]
    parts: dict[_Sight, list[ExperimentPlan]] = {}
    for one, found in zip(members, texts, strict=True):
        parts.setdefault(tuple(found[place] for place in places), []).append(one)
    return list(parts.values())


def _field_lines(group: AlikeGroup, indent: str) -> Iterator[Line]:
    kinds = [change.key.kind for change in _shown(group.members[0]) for _ in _fields(change)]
    columns = list(zip(*(_texts(one) for one in group.members), strict=True))
    for kind, column in zip(kinds, columns, strict=True):
        path, old, new = column[0]
        different = len(set(column))
        what = f"{old} → {new}" if different == 1 else f"{different} different changes"
        yield line(indent, f"{kind} {path}     {what}")


def _notes(group: AlikeGroup, layout: Layout) -> Iterator[Line]:
    """What a reader has to know, each once, and how many running peers restart for which cause."""
    first = _shown(group.members[0])
    for place, change in enumerate(first):
        for text in notes_of(change):
            yield layout_note(text, layout)
        cause = restart_cause(change)
        if cause:
            alike = [_shown(one)[place] for one in group.members]
            peers = count(sum(other.restarts for other in alike), "running peer")
            longest_s = max(other.restart_s for other in alike)
            experiments = count(sum(other.restarts > 0 for other in alike), "experiment")
            text = f"restarts {peers} of {experiments}{cause} (up to about {longest_s} s each)"
            yield layout_note(text, layout)
