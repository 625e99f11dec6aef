"""Styled spans -> lines of text, with or without colour.

In: spans. Out: strings. Each span is escaped here, exactly once. Text from files and from the cluster may
contain control characters that move the cursor, open a section in a CI log, or reverse the reading direction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

from nimlab.errors import truncate


class Style(Enum):
    """The appearance of a span on a terminal: the parameters of the ANSI sequence `ESC [ … m`."""

    PLAIN = ""
    STRONG = "1"
    FAINT = "2"
    BAD = "1;31"
    GONE = "31"
    NEW = "32"
    CHANGED = "33"
    HINT = "36"


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a line with one style."""

    text: str
    style: Style = Style.PLAIN


Line: TypeAlias = tuple[Span, ...]

NAME_WIDTH: Final = 7  # the width of `cluster` and `sandbox`, which are printed in the same column

_GAP: Final = 2
_MIN_CELL_WIDTH: Final = 8  # keeps a shortened cell readable


def line(*pieces: str | Span) -> Line:
    """Return a line; a plain string becomes a span without a style."""
    return tuple(Span(piece) if isinstance(piece, str) else piece for piece in pieces)


def named(name: str, *pieces: str | Span, width: int = NAME_WIDTH) -> Line:
    """Return a line that starts with a name in a column of its own; an empty name leaves the column blank."""
    gap = " " * (max(width - len(escape(name)), 0) + 2)
    return line(Span(name, Style.STRONG), gap, *pieces)


def shown_name(experiment: str) -> str:
    """Return the experiment's name, or `(none)` for objects that belong to no experiment."""
    return experiment or "(none)"


def hint_line(hint: str, indent: int = 2) -> Line:
    """Return the line that explains how to fix a problem."""
    return line(" " * indent, Span("hint:", Style.HINT), f" {flat(hint)}")


def width_of(pieces: Line) -> int:
    """Return the number of columns that a line occupies."""
    return sum(len(escape(span.text)) for span in pieces)


def join(lines: Iterable[Line], *, paint: bool) -> str:
    """Return the text of the lines, without trailing spaces and without a final newline."""
    return "\n".join("".join(_painted(span, paint=paint) for span in spans).rstrip() for spans in lines)


def table(
    rows: Sequence[Sequence[str]], *, columns: int | None = None, drop: Sequence[str] = ()
) -> list[Line]:
    """Return rows as aligned columns, separated by two spaces; the first row is the heading.

    If a row is wider than `columns`, the columns named in `drop` are removed in that order until it fits. If
    it still does not fit, the last column is shortened. The first column is never shortened, because it
    identifies the row.
    """
    safe = [[escape(cell) for cell in row] for row in rows]
    for name in drop:
        if columns is None or sum(_widths(safe)) + _GAP * (len(safe[0]) - 1) <= columns:
            break
        index = safe[0].index(name)
        safe = [[*row[:index], *row[index + 1 :]] for row in safe]
    widths = _widths(safe)
    if columns is not None and len(widths) > 1:
        available = columns - sum(widths[:-1]) - _GAP * (len(widths) - 1)
        widths[-1] = min(widths[-1], max(available, len(safe[0][-1]), _MIN_CELL_WIDTH))
    texts = (
        (" " * _GAP).join(
            (cell if index == 0 else truncate(cell, width)).ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in safe
    )
    return [line(text.rstrip()) for text in texts]


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]


def escape(text: str) -> str:
    r"""Return the text with each unprintable character replaced by its escape: `\x1b`, `\u202e`, `\n`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def flat(text: str) -> str:
    """Return the text on one line; a message of a server may have several lines."""
    return " ".join(part.strip() for part in text.splitlines() if part.strip())


def count(number: int, noun: str) -> str:
    """Return the number and the noun, such as `1 object` or `4 objects`."""
    return f"{number} {noun}" if abs(number) == 1 else f"{number} {noun}s"


def named_list(names: Sequence[str], *, limit: int = 8) -> str:
    """Return the names, separated by commas. At most `limit` names are shown: `a, b and 3 more`."""
    if len(names) <= limit:
        return ", ".join(names)
    return f"{', '.join(names[:limit])} and {len(names) - limit} more"


def _painted(span: Span, *, paint: bool) -> str:
    text = escape(span.text)
    if not paint or span.style is Style.PLAIN or not text.strip():
        return text
    return f"\x1b[{span.style.value}m{text}\x1b[0m"
