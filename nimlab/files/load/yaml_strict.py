"""YAML bytes -> plain data with a place for every key and value; strict where YAML surprises.

In: a file's bytes. Out: a `Document`, or the problems that make it unreadable. The dialect is small: one
document of maps, lists and scalars; no anchors, aliases, tags or merge keys; keys are strings and stand once;
`true` and `false` are the only booleans, integers are decimal. What YAML 1.1 and 1.2 read differently is an
error that says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, TypeAlias

import yaml

from nimlab.errors import Location, Problem
from nimlab.files.safe_open import UNSEEN, foreign_content
from nimlab.text import SAFE_LOADER

_SIZE_LIMIT_BYTES: Final = 256 * 1024
_DEPTH_LIMIT: Final = 32
_NODE_LIMIT: Final = 20_000
_EXCERPT_LIMIT: Final = 160

Path: TypeAlias = tuple[str | int, ...]
_NODES: Final = (yaml.ScalarEvent, yaml.CollectionStartEvent)
_UNSEEN_INSIDE: Final = re.compile(f"{UNSEEN.pattern}|\r")  # where no line ends
_INT: Final = re.compile(r"0|-?[1-9][0-9]{0,17}")
_FLOAT: Final = re.compile(r"-?[0-9]{1,18}\.[0-9]{1,18}")
# fmt: off
_SURPRISES: Final = (  # pattern, what the readers make of it, what to write instead
    (r"(?i:y|n|yes|no|on|off|true|false)", "a boolean in YAML 1.1 or 1.2", "`true` or `false`"),
    (r"[-+]?0[0-9_]+", "an octal number in YAML 1.1, a decimal one in 1.2", "the number without leading zeros"),
    (r"[-+]?0[xob][0-9A-Fa-f_]+", "a number in another base", "a decimal number"),
    (r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?", "a number in base 60 in YAML 1.1", "a number with a unit"),
    (r"[-+]?[0-9][0-9,]*_[0-9_]*(?:\.[0-9_]*)?", "a number in YAML 1.1, text in 1.2", "the digits without `_`"),
    (r"[-+]?(?:\.[0-9]+|[0-9]+\.?[0-9]*)[eE][-+]?[0-9]+", "text in YAML 1.1, a number in 1.2", "the number in full"),
    (r"[-+]?\.(?i:inf|nan)", "no finite number", "a finite number"),
    (r"\+[0-9.]+|-0|[-+]?[0-9]{19,}(?:\.[0-9]*)?|[-+]?[0-9]*\.[0-9]{19,}|[-+]?\.[0-9]+|[-+]?[0-9]+\.", "a number that readers take differently", "plain digits"),
    (r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt ].*)?", "a date in YAML 1.1", ""),
)
# fmt: on
_SURPRISE: Final = re.compile("|".join(f"({pattern})" for pattern, _, _ in _SURPRISES))


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands: line and column from 1, and how many characters to underline."""

    line: int
    column: int
    width: int


@dataclass(frozen=True, slots=True)
class Places:
    """Where each key and value of a text stands, and its lines."""

    keys: dict[Path, Place]
    values: dict[Path, Place]
    lines: list[str]


@dataclass(frozen=True, slots=True)
class Document:
    """A file's data; `places` are asked for when there is a problem to tell."""

    path: str
    data: Any
    places: Callable[[], Places]

    def problem(
        self, code: str, what: str, path: Path, *, hint: str | None = None, at_key: bool = False
    ) -> Problem:
        """Return a problem at a key or value; what isn't there is reported at the nearest parent."""
        found = self.places()
        place = found.keys.get(path) if at_key else found.values.get(path)
        here = path
        while place is None:
            here = here[:-1]
            place = found.keys.get(here) or found.values.get(here) or (Place(1, 1, 1) if not here else None)
        return _problem(self.path, found.lines, code, what, place, pointer_text(path), hint)


def pointer_text(path: Path) -> str:
    """Return `spec.env[0].name` for its parts."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else part)
    return text


def read_document(path: str, data: bytes) -> Document | tuple[Problem, ...]:
    """Return the document in a file, or why there is none. Raises nothing."""
    if len(data) > _SIZE_LIMIT_BYTES:
        what = f"the file is larger than {_SIZE_LIMIT_BYTES // 1024} KiB"
        return (file_problem(path, what, "one experiment a file"),)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        what = "the file isn't UTF-8 text"
        return (
            Problem(
                code="yaml-syntax",
                what=what,
                location=Location(path=path, line=line, column=column),
            ),
        )
    lines = re.split(r"\r\n|\r|\n", text)
    foreign = foreign_content(text)
    if foreign is not None:
        line, what, hint = foreign
        width = len(lines[line - 1])
        return (_problem(path, lines, "yaml-syntax", what, Place(line, 1, width), "", hint),)
    unsafe = UNSEEN.search(text)
    if unsafe is not None:
        place = _place_of(text, unsafe.start())
        return (_problem(path, lines, "yaml-syntax", _not_seen(unsafe[0]), place, "", _NOT_SEEN_HINT),)
    reader = _Reader(path, lines)
    try:
        reader.read(text)
    except yaml.YAMLError as error:
        reader.problems.append(_syntax_problem(path, lines, error))
    except _StopReading:
        pass
    if reader.problems:
        return tuple(reader.problems)
    if not reader.done:
        return (file_problem(path, "the file is empty", "`nimlab create --name NAME` writes one"),)
    places = Places(reader.keys, reader.values, lines)
    return Document(path, reader.root, lambda: places)


def recalled_document(path: str, data: bytes, known: object) -> Document:
    """Return the document in a file that has been read before and held `known`; its places are read anew."""

    def places() -> Places:
        document = read_document(path, data)
        return document.places() if isinstance(document, Document) else Places({}, {}, [""])

    return Document(path, known, places)


def file_problem(path: str, what: str, hint: str | None) -> Problem:
    """Return a problem of a file as a whole."""
    return Problem(code="file", what=what, location=Location(path=path), hint=hint)


class _StopReading(Exception):
    """There is no sense in reading on."""


@dataclass(slots=True)
class _Open:
    """A map or list that is being read."""

    value: dict[str, Any] | list[Any]
    path: Path
    key: str | None = None


@dataclass(slots=True)
class _Reader:
    """Builds the data from the parser's events, without recursion: depth costs no stack."""

    path: str
    lines: list[str]
    problems: list[Problem] = field(default_factory=list)
    keys: dict[Path, Place] = field(default_factory=dict)
    values: dict[Path, Place] = field(default_factory=dict)
    root: Any = None
    done: bool = False
    _stack: list[_Open] = field(default_factory=list)
    _documents: int = 0

    def read(self, text: str) -> None:
        """Read all events. Raises yaml.YAMLError."""
        has_escapes = "\\" in text
        for event in _events(text):
            if isinstance(event, _NODES):
                self._check_plain(event)
                if has_escapes:
                    self._check_seen(event)
                self._node(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                self._stack.pop()
            elif isinstance(event, yaml.DocumentStartEvent):
                self._documents += 1
                if event.version is not None or event.tags:
                    self._add("yaml-syntax", "directives are not allowed", event, "leave the `%…` away")
                    raise _StopReading
                if self._documents > 1:
                    self._add("yaml-syntax", "a second document begins here", event, "one document a file")
                    raise _StopReading
            elif isinstance(event, yaml.AliasEvent):
                self._add("yaml-syntax", "aliases are not allowed", event, "write the value out")
                raise _StopReading

    def _check_plain(self, event: Any) -> None:  # noqa: ANN401 -- the stubs miss the attributes
        if event.anchor is not None:
            self._add("yaml-syntax", "anchors are not allowed", event, "write the value out")
        if event.tag is not None:
            self._add("yaml-syntax", "tags are not allowed", event, "leave the `!…` away")
        if len(self._stack) >= _DEPTH_LIMIT or len(self.values) > _NODE_LIMIT:
            what = f"the file is nested deeper than {_DEPTH_LIMIT}, or holds more than {_NODE_LIMIT} values"
            self._add("file", what, event, "one experiment a file")
            raise _StopReading

    def _check_seen(self, event: Any) -> None:  # noqa: ANN401 -- the stubs miss the attributes
        """Refuse what escapes stand for as the characters themselves, and what lets a line overwrite itself."""
        if isinstance(event, yaml.ScalarEvent):
            unsafe = _UNSEEN_INSIDE.search(event.value)
            if unsafe is not None:
                self._add("yaml-syntax", _not_seen(unsafe[0]), event, _NOT_SEEN_HINT)

    def _node(self, event: Any) -> None:  # noqa: ANN401 -- the stubs miss the attributes
        above = self._stack[-1] if self._stack else None
        if above is not None and isinstance(above.value, dict) and above.key is None:
            above.key = self._key(event, above)
            return
        path = self._path(above)
        self.values[path] = _place(event)
        value: Any
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event)
        else:
            value = {} if isinstance(event, yaml.MappingStartEvent) else []
        self._put(above, value)
        if not isinstance(event, yaml.ScalarEvent):
            self._stack.append(_Open(value, path))

    def _path(self, above: _Open | None) -> Path:
        if above is None:
            return ()
        if isinstance(above.value, list):
            return (*above.path, len(above.value))
        return (*above.path, above.key or "")

    def _put(self, above: _Open | None, value: Any) -> None:  # noqa: ANN401 -- any JSON value
        if above is None:
            self.root, self.done = value, True
        elif isinstance(above.value, list):
            above.value.append(value)
        else:
            above.value[above.key or ""] = value
            above.key = None

    def _key(self, event: Any, above: _Open) -> str:  # noqa: ANN401 -- the stubs miss the attributes
        if not isinstance(event, yaml.ScalarEvent):
            self._add("yaml-syntax", "a key must be text", event, None)
            raise _StopReading
        key = event.value
        if event.implicit[0] and not isinstance(self._scalar(event), str):
            self._add("yaml-syntax", f"the key `{_shortened(key)}` isn't text", event, "put it in quotes")
        path = (*above.path, key)
        if key in above.value:
            first = self.keys[path].line
            what = f"the key `{_shortened(key)}` stands twice; it was first given in line {first}"
            self._add("duplicate-key", what, event, "leave one of them away")
        self.keys[path] = _place(event)
        return str(key)

    def _scalar(self, event: yaml.ScalarEvent) -> Any:  # noqa: ANN401 -- any JSON scalar
        text = str(event.value)
        if not event.implicit[0]:  # quoted, or a block of text
            return text
        if text in ("true", "false"):
            return text == "true"
        if text in ("", "~", "null", "Null", "NULL"):
            return None
        if _INT.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text):
            return float(text)
        surprise = _SURPRISE.fullmatch(text)
        if surprise is not None:
            _, what, instead = _SURPRISES[(surprise.lastindex or 0) - 1]
            instead = _in_full(text) or instead
            hint = f"put it in quotes if it is text, else write {instead}" if instead else "put it in quotes"
            self._add("yaml-surprise", f"`{_shortened(text)}` is {what}", event, hint)
        return text

    def _add(self, code: str, what: str, event: Any, hint: str | None) -> None:  # noqa: ANN401 -- as above
        self.problems.append(_problem(self.path, self.lines, code, what, _place(event), "", hint))


def _in_full(text: str) -> str | None:
    """Return `100` in backticks for `1e2`; None for a text that isn't a number of a readable length."""
    match = _WITH_EXPONENT.fullmatch(text)
    if match is None:
        return None
    number = Decimal(text)
    return f"`{number.to_integral_value() if number == number.to_integral_value() else number:f}`"


_WITH_EXPONENT: Final = re.compile(r"-?[0-9]{1,18}(?:\.[0-9]{1,18})?[eE][-+]?(?:[0-9]|1[0-8])")
_NOT_SEEN_HINT: Final = "leave it away"


def _not_seen(character: str) -> str:
    return f"the invisible character U+{ord(character):04X} is not allowed"


def _events(text: str) -> Iterator[Any]:
    return yaml.parse(text, Loader=SAFE_LOADER)


def _place(event: Any) -> Place:  # noqa: ANN401 -- the stubs miss the attributes
    start, end = event.start_mark, event.end_mark
    width = end.column - start.column if end.line == start.line else 1
    return Place(start.line + 1, start.column + 1, max(width, 1))


def _place_of(text: str, index: int) -> Place:
    before = text[:index]
    line_start = max(before.rfind("\n"), before.rfind("\r")) + 1
    return Place(len(re.findall(r"\r\n|\r|\n", before)) + 1, index - line_start + 1, 1)


def _syntax_problem(path: str, lines: list[str], error: yaml.YAMLError) -> Problem:
    mark = getattr(error, "problem_mark", None)
    place = Place(1, 1, 1) if mark is None else Place(mark.line + 1, mark.column + 1, 1)
    what = getattr(error, "problem", None) or "this isn't YAML"
    context = getattr(error, "context", None)
    return _problem(path, lines, "yaml-syntax", f"{what} {context or ''}".strip(), place, "", None)


def _problem(
    path: str, lines: list[str], code: str, what: str, place: Place, pointer: str, hint: str | None
) -> Problem:
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


def _shortened(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"
