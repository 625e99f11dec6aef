"""Words for numbers, and colour where it is wanted: what all reports share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from nimlab.units import format_cpu_m, format_memory_bytes
from nimlab.workload import Resources

_CODES: Final = {"red": "31", "green": "32", "yellow": "33", "cyan": "36", "bold": "1", "dim": "2"}
_UNSAFE: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
NAME_WIDTH: Final = 8


def ink(text: str, colour: str, *, paint: bool) -> str:
    """Return the text in a colour, or as it is."""
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if paint else text


def visible(text: str) -> str:
    """Return the text with characters that could move a terminal's cursor, or hide, written out."""
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def plural(count: int, word: str) -> str:
    """Return `1 object`, `2 objects`."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def resources_text(added: Resources) -> str:
    """Return `+5 pods  +250m CPU  +80Mi`; empty when nothing is added or removed."""
    parts = []
    if added.pods:
        parts.append(f"{added.pods:+d} {'pod' if abs(added.pods) == 1 else 'pods'}")
    if added.cpu_m:
        sign = "+" if added.cpu_m > 0 else "-"
        parts.append(f"{sign}{format_cpu_m(abs(added.cpu_m))} CPU")
    if added.memory_bytes:
        sign = "+" if added.memory_bytes > 0 else "-"
        parts.append(f"{sign}{format_memory_bytes(abs(added.memory_bytes))}")
    return "  ".join(parts)


def age_text(age_s: int | None) -> str:
    """Return an age as kubectl and the seed write it: `24s`, `38m24s`, `5h12m`, `3d4h`."""
    if age_s is None:
        return "-"
    days, rest = divmod(age_s, 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, seconds = divmod(rest, 60)
    if days:
        return f"{days}d{hours}h"
    if hours:
        return f"{hours}h{minutes}m"
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Return rows as aligned columns, two spaces between them."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
