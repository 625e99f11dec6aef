"""The detail of one experiment -> the page of `status`: row, health, differences, troubles, pods, events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from nimlab.report.change_lines import align_resources, experiment_lines, layout_of
from nimlab.report.event_lines import trouble_lines
from nimlab.report.experiment_detail import Detail
from nimlab.report.experiment_events import EventLine
from nimlab.report.format_value import age_text
from nimlab.report.styled_text import Line, Span, Style, count, flat, join, line, table
from nimlab.report.tables import ROW_DROP, ROW_HEAD, row_cells

_MAX_PODS: Final = 20
_INDENT: Final = 2


def format_status(detail: Detail, *, paint: bool, columns: int | None = None) -> str:
    """Return the page of `status`.

    It lists at most 20 pods. If there are more pods, those that do not run come first. The tables of the page
    are at most `columns` wide if possible.
    """
    inner_columns = None if columns is None else columns - _INDENT
    message = detail.row.verdict.message
    lines = [
        *table([ROW_HEAD, row_cells(detail.row)], columns=columns, drop=ROW_DROP),
        line(f"from {detail.source}" if detail.source else "no file defines it"),
        *([line(f"health: {flat(message)}")] if message else []),
        *_section("differs from its file:", _difference(detail)),
        *_section("trouble:", trouble_lines(detail.troubles)),
        *_section(f"{detail.noun}s:", _pods(detail, inner_columns)),
        *_section("recent events:", _events(detail.events, inner_columns)),
    ]
    return join(lines, paint=paint)


def _section(title: str, lines: Iterator[Line]) -> Iterator[Line]:
    """Yield the title and the indented lines; nothing for a section without lines."""
    content = list(lines)
    if content:
        yield ()
        yield line(Span(title, Style.STRONG))
        yield from ((Span(" " * _INDENT), *text) for text in content)


def _difference(detail: Detail) -> Iterator[Line]:
    if detail.plan is None:
        return
    layout = layout_of(detail.plan.changes, verbose=False)
    yield from align_resources(experiment_lines(detail.plan, layout, removed_in=None, withheld=False))


def _pods(detail: Detail, columns: int | None) -> Iterator[Line]:
    pods = detail.pods
    if not pods:
        return
    shown = sorted(pods, key=lambda pod: pod.is_running)[:_MAX_PODS] if len(pods) > _MAX_PODS else pods
    rows = [(detail.noun.upper(), "STATE", "RESTARTS", "NODE", "AGE")]
    rows += [(pod.name, pod.state, str(pod.restarts), pod.node or "-", age_text(pod.age_s)) for pod in shown]
    yield from table(rows, columns=columns, drop=("NODE", "RESTARTS", "AGE"))
    hidden = len(pods) - len(shown) + detail.unread
    if hidden:
        yield line(f"… and {count(hidden, f'more {detail.noun}')}")


def _events(events: Sequence[EventLine], columns: int | None) -> Iterator[Line]:
    if not events:
        return
    rows = [("AGE", "ABOUT", "REASON", "MESSAGE")]
    for event in events:
        times = f" ({event.times} times)" if event.times > 1 else ""
        object_name = f"{event.kind}/{event.name}"
        rows.append((age_text(event.age_s), object_name, event.reason, f"{flat(event.message)}{times}"))
    yield from table(rows, columns=columns)
