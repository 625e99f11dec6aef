"""Data of a file, with the position of every key and value, so that a problem can state its position.

In: data and positions from the strict YAML reader. Out: `Problem` values with line, column and excerpt. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final, TypeAlias

from nimlab.errors import Location, Problem

_EXCERPT_LIMIT: Final = 160  # characters of a source line that a message shows

Path: TypeAlias = tuple[str | int, ...]
"""Keys and list indexes that lead from the document's root to a value: `("spec", "env", 0, "name")`."""


@dataclass(frozen=True, slots=True)
class Place:
    """Position of a key or value: line and column from 1, and the number of characters to underline."""

    line: int
    column: int
    width: int


@dataclass(frozen=True, slots=True)
class Places:
    """Positions of all keys and values of a file, and the file's lines."""

    keys: dict[Path, Place]
    values: dict[Path, Place]
    lines: list[str]


@dataclass(frozen=True, slots=True)
class Document:
    """Data of one file. `places` returns the positions; it is called only if a problem has to be located."""

    path: str
    data: Any
    places: Callable[[], Places]

    @property
    def name(self) -> str:
        """`metadata.name`, or the file's stem if the document has no usable name."""
        metadata = self.data.get("metadata") if isinstance(self.data, dict) else None
        name = metadata.get("name") if isinstance(metadata, dict) else None
        return name if isinstance(name, str) and name else PurePosixPath(self.path).stem

    def problem(
        self, code: str, what: str, path: Path, *, hint: str | None = None, at_key: bool = False
    ) -> Problem:
        """Return a problem at the value with this path, or at its key.

        If the value is missing, the problem is located at the nearest parent that exists.
        """
        places = self.places()
        place = places.keys.get(path) if at_key else places.values.get(path)
        parent = path
        while place is None:
            parent = parent[:-1]
            place = places.keys.get(parent) or places.values.get(parent)
            if place is None and not parent:
                place = Place(1, 1, 1)
        return problem_at(self.path, places.lines, code, what, place, pointer_text(path), hint)


def pointer_text(path: Path) -> str:
    """Return a path in the form `spec.env[0].name`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else part)
    return text


def file_problem(path: str, what: str, hint: str | None) -> Problem:
    """Return a problem of a file as a whole."""
    return Problem(code="file", what=what, location=Location(path=path), hint=hint)


def problem_at(
    path: str, lines: list[str], code: str, what: str, place: Place, pointer: str, hint: str | None
) -> Problem:
    """Return a problem whose excerpt is the line of the file at its position."""
    line = min(max(place.line, 1), len(lines))
    excerpt = lines[line - 1]
    return Problem(
        code=code,
        what=what,
        location=Location(path=path, line=line, column=place.column),
        pointer=pointer,
        hint=hint,
        excerpt=excerpt if len(excerpt) <= _EXCERPT_LIMIT else excerpt[: _EXCERPT_LIMIT - 1] + "…",
        width=place.width,
    )
