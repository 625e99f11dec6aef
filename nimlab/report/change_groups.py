"""Many experiments with similar changes -> groups, so that a plan of a thousand changes stays readable.

In: the experiments of a plan. Out: groups of experiments whose changes differ only in names and values, and
the lines of each group. Only plain creates and updates are grouped. Prunes, replacements, conflicts, foreign
fields and errors are shown per experiment.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from nimlab.plan.change import Action, Change
from nimlab.plan.make_plan import ExperimentPlan
from nimlab.report.change_lines import MAX_FIELDS, ChangeLine, Layout, head_of, layout_note
from nimlab.report.change_notes import general_notes_of, restart_cause
from nimlab.report.format_value import added_texts, change_texts, expand_json
from nimlab.report.styled_text import Line, count, line, named_list
from nimlab.report.totals import sum_resources

_Shape: TypeAlias = tuple[Any, ...]

_MIN_MEMBERS: Final = 3  # a smaller group is not formed; its experiments are shown one by one
_MAX_VALUES: Final = 4  # a field splits a group only if it has at most this many different changes
_MAX_NAMES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeGroup:
    """Experiments with similar changes, sorted by name."""

    members: tuple[ExperimentPlan, ...]

    @property
    def name(self) -> str:
        """The text in the column of the experiments' names."""
        return count(len(self.members), "experiment")


def group_similar(
    experiments: Sequence[ExperimentPlan],
) -> tuple[tuple[ChangeGroup, ...], tuple[ExperimentPlan, ...]]:
    """Return the groups, largest first, and the experiments that belong to no group."""
    by_shape: dict[_Shape, list[ExperimentPlan]] = {}
    for experiment in experiments:
        if _is_plain(experiment):
            by_shape.setdefault(_shape(experiment), []).append(experiment)
    groups = [
        ChangeGroup(members=tuple(sorted(part, key=lambda member: member.name)))
        for members in by_shape.values()
        for part in _split_by_values(members)
        if len(part) >= _MIN_MEMBERS
    ]
    groups.sort(key=lambda group: (-len(group.members), group.members[0].name))
    grouped = {member.name for group in groups for member in group.members}
    return tuple(groups), tuple(e for e in experiments if e.name not in grouped)


def group_entries(group: ChangeGroup, layout: Layout) -> Iterator[ChangeLine]:
    """Yield the lines of a group: kinds of objects, names of experiments, changed fields, restarted peers."""
    first = group.members[0]
    indent = " " * (layout.indent + 2)
    texts = added_texts(sum_resources(member.added for member in group.members))
    held = ", held back" if first.held else ""
    for action in (Action.CREATE, Action.UPDATE):
        changes = [change for change in _changing(first) if change.action is action]
        if changes:
            kinds = ", ".join(change.key.kind for change in changes)
            objects = count(len(changes) * len(group.members), "object")
            head = head_of(action, f"{objects}{held}: {kinds}", layout)
            yield ChangeLine(line=head, added=texts if any(texts) else None)
            texts = ("", "", "")
    names = named_list([member.name for member in group.members], limit=_MAX_NAMES)
    yield ChangeLine(line=line(indent, f"of {names} (--verbose shows each)"))
    fields = list(_field_lines(group, indent))
    yield from (ChangeLine(line=text) for text in fields[:MAX_FIELDS])
    if len(fields) > MAX_FIELDS:
        yield ChangeLine(line=line(indent, f"… and {count(len(fields) - MAX_FIELDS, 'more field')}"))
    yield from (ChangeLine(line=text) for text in _note_lines(group, layout))


def _changing(experiment: ExperimentPlan) -> list[Change]:
    return [change for change in experiment.changes if change.action is not Action.KEEP]


def _is_plain(experiment: ExperimentPlan) -> bool:
    """Return True if the experiment has changes, and all of them may be shown in a group."""
    return bool(_changing(experiment)) and all(_is_plain_change(change) for change in experiment.changes)


def _is_plain_change(change: Change) -> bool:
    if change.error or change.foreign or change.reclaimed_fields or change.takeover:
        return False
    if change.action is Action.KEEP:
        return not change.reason
    return change.action in (Action.CREATE, Action.UPDATE)


def _shape(experiment: ExperimentPlan) -> _Shape:
    """Return the properties that all members of a group share: actions, kinds, reasons, paths, notes."""
    return (
        experiment.held,
        tuple(
            (
                change.action,
                change.key.kind,
                change.reason,
                change.unverified,
                restart_cause(change),
                tuple(general_notes_of(change)),
                tuple(field.path for field in expand_json(change.fields)),
            )
            for change in _changing(experiment)
        ),
    )


def _field_texts(experiment: ExperimentPlan) -> tuple[tuple[str, str, str], ...]:
    """Return the path, old value and new value of each changed field, in the same order as in `_shape`."""
    fields = (field for change in _changing(experiment) for field in expand_json(change.fields))
    return tuple(change_texts(field, in_full=False) for field in fields)


def _split_by_values(members: Sequence[ExperimentPlan]) -> list[list[ExperimentPlan]]:
    """Split experiments of one shape into parts.

    If a field has only a few different changes, all members of a part have the same change of this field.
    """
    rows = [_field_texts(member) for member in members]
    indexes = [i for i, column in enumerate(zip(*rows, strict=True)) if len(set(column)) <= _MAX_VALUES]
    parts: dict[_Shape, list[ExperimentPlan]] = {}
    for member, row in zip(members, rows, strict=True):
        parts.setdefault(tuple(row[index] for index in indexes), []).append(member)
    return list(parts.values())


def _field_lines(group: ChangeGroup, indent: str) -> Iterator[Line]:
    kinds = [c.key.kind for c in _changing(group.members[0]) for _ in expand_json(c.fields)]
    columns = zip(*(_field_texts(member) for member in group.members), strict=True)
    for kind, column in zip(kinds, columns, strict=True):
        path, old, new = column[0]
        different = len(set(column))
        what = f"{old} → {new}" if different == 1 else f"{different} different changes"
        yield line(indent, f"{kind} {path}     {what}")


def _note_lines(group: ChangeGroup, layout: Layout) -> Iterator[Line]:
    """Yield the general notes of each change once, and how many peers it restarts in the whole group."""
    for index, change in enumerate(_changing(group.members[0])):
        for text in general_notes_of(change):
            yield layout_note(text, layout)
        cause = restart_cause(change)
        if cause:
            similar = [_changing(member)[index] for member in group.members]
            peers = count(sum(other.restarts for other in similar), "running peer")
            longest_s = max(other.restart_s for other in similar)
            experiments = count(sum(other.restarts > 0 for other in similar), "experiment")
            text = f"restarts {peers} of {experiments}{cause} (up to about {longest_s} s each)"
            yield layout_note(text, layout)
