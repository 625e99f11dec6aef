"""Pieces of text with a style -> lines, coloured or not, in which no text can pass for anything else.

In: spans. Out: strings. Every span is escaped here, once: what comes from files and clusters may hold control
characters that move a cursor or open a CI log's section, or marks that turn the reading direction round.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias


class Style(Enum):
    """How a span looks on a terminal: the parameters of ANSI's `ESC [ … m`."""

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
    """A piece of a line."""

    text: str
    style: Style = Style.PLAIN


Line: TypeAlias = tuple[Span, ...]

NAME_WIDTH: Final = 7  # as wide as `cluster` and `sandbox`, which stand in the same column


_GAP: Final = 2
_SHORTEST: Final = 8  # a shortened cell still has some letters


def line(*pieces: str | Span) -> Line:
    """Return a line; plain text is a span without a style."""
    return tuple(Span(piece) if isinstance(piece, str) else piece for piece in pieces)


def named(name: str, *pieces: str | Span, width: int = NAME_WIDTH) -> Line:
    """Return a line that begins with a name in its column; an empty name leaves the column empty."""
    gap = " " * (max(width - len(escape(name)), 0) + 2)
    return line(Span(name, Style.STRONG), gap, *pieces)


def hint_line(hint: str, indent: int = 2) -> Line:
    """Return the line that says how to mend something."""
    return line(" " * indent, Span("hint:", Style.HINT), f" {flat(hint)}")


def width_of(pieces: Line) -> int:
    """Return how many columns a line takes."""
    return sum(len(escape(span.text)) for span in pieces)


def join(lines: Iterable[Line], *, paint: bool) -> str:
    """Return the text of the lines, without spaces at their ends and without a last newline."""
    return "\n".join("".join(_painted(span, paint=paint) for span in one).rstrip() for one in lines)


def table(
    rows: Sequence[Sequence[str]], *, columns: int | None = None, drop: Sequence[str] = ()
) -> list[Line]:
    """Return rows as aligned columns, two spaces between them; the first row is the head.

    If a row is wider than `columns`, the columns named in `drop` are left out in that order until it fits;
    then the last column is shortened. The first column is never shortened, since it tells the rows apart.
    """
    safe = [[escape(cell) for cell in row] for row in rows]
    for name in drop:
        if columns is None or sum(_widths(safe)) + _GAP * (len(safe[0]) - 1) <= columns:
            break
        place = safe[0].index(name)
        safe = [[*row[:place], *row[place + 1 :]] for row in safe]
    widths = _widths(safe)
    if columns is not None and len(widths) > 1:
        left = columns - sum(widths[:-1]) - _GAP * (len(widths) - 1)
        widths[-1] = min(widths[-1], max(left, len(safe[0][-1]), _SHORTEST))
    texts = (
        (" " * _GAP).join(
            (cell if place == 0 else _cut(cell, width)).ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in safe
    )
    return [line(text.rstrip()) for text in texts]


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def escape(text: str) -> str:
    r"""Return the text with all that isn't printable written out: `\x1b`, `\u202e`, `\n`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def flat(text: str) -> str:
    """Return the text on one line: a server's message may have several."""
    return " ".join(part.strip() for part in text.splitlines() if part.strip())


def count(number: int, noun: str) -> str:
    """Return `1 object` or `4 objects`."""
    return f"{number} {noun}" if abs(number) == 1 else f"{number} {noun}s"


def named_list(names: Sequence[str], *, limit: int = 8) -> str:
    """Return `a, b and 3 more`."""
    if len(names) <= limit:
        return ", ".join(names)
    return f"{', '.join(names[:limit])} and {len(names) - limit} more"


def _painted(span: Span, *, paint: bool) -> str:
    text = escape(span.text)
    if not paint or span.style is Style.PLAIN or not text.strip():
        return text
    return f"\x1b[{span.style.value}m{text}\x1b[0m"
