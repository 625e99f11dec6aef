"""Strict YAML reader: bytes -> a `Document`, or the problems that make the file unreadable.

In: the bytes of a file. Out: a `Document` with the position of every key and value, or problems. The reader
accepts a subset of YAML: one document of maps, lists and scalars, without anchors, aliases, tags and merge
keys. Keys are strings and unique within their map. The only booleans are `true` and `false`, and integers are
decimal. A plain value that YAML 1.1 and YAML 1.2 interpret differently is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

import yaml

from nimlab.errors import Location, Problem
from nimlab.files.forbidden_text import INVISIBLE, foreign_content
from nimlab.files.load.source_document import Document, Path, Place, Places, file_problem, problem_at
from nimlab.yaml_and_json import SAFE_LOADER

_SIZE_LIMIT_BYTES: Final = 256 * 1024
_DEPTH_LIMIT: Final = 32
_VALUE_LIMIT: Final = 20_000

_VALUE_EVENTS: Final = (yaml.ScalarEvent, yaml.CollectionStartEvent)
# A carriage return inside a value would let the rest of the line overwrite its beginning on a terminal.
_INVISIBLE_IN_VALUE: Final = re.compile(f"{INVISIBLE.pattern}|\r")
_INT: Final = re.compile(r"0|-?[1-9][0-9]{0,17}")
_FLOAT: Final = re.compile(r"-?[0-9]{1,18}\.[0-9]{1,18}")
_ONE_PER_FILE: Final = "write one experiment per file"
_REMOVE_IT: Final = "remove it"
# fmt: off
_SURPRISES: Final = (  # pattern; how YAML readers interpret a match; what to write instead
    (r"(?i:y|n|yes|no|on|off|true|false)", "a boolean in YAML 1.1 or 1.2", "`true` or `false`"),
    (r"[-+]?0[0-9_]+", "an octal number in YAML 1.1, a decimal number in 1.2", "the number without leading zeros"),
    (r"[-+]?0[xob][0-9A-Fa-f_]+", "a number in another base", "a decimal number"),
    (r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?", "a number in base 60 in YAML 1.1", "a number with a unit"),
    (r"[-+]?[0-9][0-9,]*_[0-9_]*(?:\.[0-9_]*)?", "a number in YAML 1.1, text in 1.2", "the digits without `_`"),
    (r"[-+]?(?:\.[0-9]+|[0-9]+\.?[0-9]*)[eE][-+]?[0-9]+", "text in YAML 1.1, a number in 1.2", "the number in full"),
    (r"[-+]?\.(?i:inf|nan)", "not a finite number", "a finite number"),
    (r"\+[0-9.]+|-0|[-+]?[0-9]{19,}(?:\.[0-9]*)?|[-+]?[0-9]*\.[0-9]{19,}|[-+]?\.[0-9]+|[-+]?[0-9]+\.", "a number that YAML readers interpret differently", "plain digits"),
    (r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt ].*)?", "a date in YAML 1.1", ""),
)
# fmt: on
_SURPRISE: Final = re.compile("|".join(f"({pattern})" for pattern, _, _ in _SURPRISES))
_WITH_EXPONENT: Final = re.compile(r"-?[0-9]{1,18}(?:\.[0-9]{1,18})?[eE][-+]?(?:[0-9]|1[0-8])")


def read_document(path: str, data: bytes) -> Document | tuple[Problem, ...]:
    """Return the document in a file, or the problems that prevent reading it. Raises nothing."""
    if len(data) > _SIZE_LIMIT_BYTES:
        what = f"the file is larger than {_SIZE_LIMIT_BYTES // 1024} KiB"
        return (file_problem(path, what, _ONE_PER_FILE),)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        return (_encoding_problem(path, data, error.start),)
    lines = re.split(r"\r\n|\r|\n", text)
    unsafe = _unsafe_text(path, lines, text)
    return (unsafe,) if unsafe is not None else _parse(path, lines, text)


def cached_document(path: str, data: bytes, cached: object) -> Document:
    """Return a document made from cached data.

    The file is parsed only if the position of a key or value is needed.
    """

    def places() -> Places:
        document = read_document(path, data)
        return document.places() if isinstance(document, Document) else Places({}, {}, [""])

    return Document(path, cached, places)


def _parse(path: str, lines: list[str], text: str) -> Document | tuple[Problem, ...]:
    reader = _Reader(path, lines)
    try:
        reader.read(text)
    except yaml.YAMLError as error:
        reader.problems.append(_syntax_problem(path, lines, error))
    except _StopReading:
        pass
    if reader.problems:
        return tuple(reader.problems)
    if not reader.has_root:
        return (file_problem(path, "the file is empty", "`nimlab create --name NAME` writes a new one"),)
    places = Places(reader.keys, reader.values, lines)
    return Document(path, reader.root, lambda: places)


def _encoding_problem(path: str, data: bytes, offset: int) -> Problem:
    """Return the problem of a file that is not UTF-8; `offset` points to its first invalid byte."""
    line = data[:offset].count(b"\n") + 1
    column = offset - (data.rfind(b"\n", 0, offset) + 1) + 1
    return Problem(
        code="yaml-syntax",
        what="the file is not UTF-8 text",
        location=Location(path=path, line=line, column=column),
        hint="save the file in the encoding UTF-8",
    )


def _unsafe_text(path: str, lines: list[str], text: str) -> Problem | None:
    """Return the first problem that makes parsing useless: a Git marker, or an invisible character."""
    foreign = foreign_content(text)
    if foreign is not None:
        line, what, hint = foreign
        return problem_at(path, lines, "yaml-syntax", what, Place(line, 1, len(lines[line - 1])), "", hint)
    invisible = INVISIBLE.search(text)
    if invisible is None:
        return None
    place = _place_of(text, invisible.start())
    return problem_at(path, lines, "yaml-syntax", _invisible(invisible[0]), place, "", _REMOVE_IT)


class _StopReading(Exception):
    """The rest of the file cannot be interpreted; the problems are already recorded."""


@dataclass(slots=True)
class _OpenCollection:
    """Map or list whose end is not read yet.

    If the value of a map's key is not read yet, `key` is this key. Otherwise `key` is None.
    """

    value: dict[str, Any] | list[Any]
    path: Path
    key: str | None = None


@dataclass(slots=True)
class _Reader:
    """Builder of the data from the parser's events. It uses no recursion, so deep nesting is harmless."""

    path: str
    lines: list[str]
    problems: list[Problem] = field(default_factory=list)
    keys: dict[Path, Place] = field(default_factory=dict)
    values: dict[Path, Place] = field(default_factory=dict)
    root: Any = None
    has_root: bool = False
    _stack: list[_OpenCollection] = field(default_factory=list)
    _documents: int = 0

    def read(self, text: str) -> None:
        """Read all events. Raises yaml.YAMLError."""
        has_escapes = "\\" in text
        for event in _events(text):
            if isinstance(event, _VALUE_EVENTS):
                self._check_subset(event)
                if has_escapes:
                    self._check_visible(event)
                self._add_value(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                self._stack.pop()
            elif isinstance(event, yaml.DocumentStartEvent):
                self._start_document(event)
            elif isinstance(event, yaml.AliasEvent):
                self._add("yaml-syntax", "aliases are not allowed", event, "repeat the value instead")
                raise _StopReading

    def _start_document(self, event: yaml.DocumentStartEvent) -> None:
        self._documents += 1
        if event.version is not None or event.tags:
            hint = "remove the line that starts with `%`"
            self._add("yaml-syntax", "directives are not allowed", event, hint)
            raise _StopReading
        if self._documents > 1:
            self._add("yaml-syntax", "a second document begins here", event, "write one document per file")
            raise _StopReading

    def _check_subset(self, event: Any) -> None:  # noqa: ANN401 -- the stubs lack these attributes
        if event.anchor is not None:
            self._add("yaml-syntax", "anchors are not allowed", event, "repeat the value instead")
        if event.tag is not None:
            self._add("yaml-syntax", "tags are not allowed", event, "remove the `!…`")
        if len(self._stack) >= _DEPTH_LIMIT or len(self.values) > _VALUE_LIMIT:
            what = f"the file has more than {_DEPTH_LIMIT} levels, or more than {_VALUE_LIMIT} values"
            self._add("file", what, event, _ONE_PER_FILE)
            raise _StopReading

    def _check_visible(self, event: Any) -> None:  # noqa: ANN401 -- the stubs lack these attributes
        r"""Report invisible characters that are written as escapes, such as `\u202e`."""
        if isinstance(event, yaml.ScalarEvent):
            invisible = _INVISIBLE_IN_VALUE.search(event.value)
            if invisible is not None:
                self._add("yaml-syntax", _invisible(invisible[0]), event, _REMOVE_IT)

    def _add_value(self, event: Any) -> None:  # noqa: ANN401 -- the stubs lack these attributes
        parent = self._stack[-1] if self._stack else None
        if parent is not None and isinstance(parent.value, dict) and parent.key is None:
            parent.key = self._key(event, parent)
            return
        path = self._path(parent)
        self.values[path] = _place(event)
        value: Any
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event)
        else:
            value = {} if isinstance(event, yaml.MappingStartEvent) else []
        self._put(parent, value)
        if not isinstance(event, yaml.ScalarEvent):
            self._stack.append(_OpenCollection(value, path))

    def _path(self, parent: _OpenCollection | None) -> Path:
        if parent is None:
            return ()
        if isinstance(parent.value, list):
            return (*parent.path, len(parent.value))
        return (*parent.path, parent.key or "")

    def _put(self, parent: _OpenCollection | None, value: Any) -> None:  # noqa: ANN401 -- any JSON value
        if parent is None:
            self.root, self.has_root = value, True
        elif isinstance(parent.value, list):
            parent.value.append(value)
        else:
            parent.value[parent.key or ""] = value
            parent.key = None

    def _key(self, event: Any, parent: _OpenCollection) -> str:  # noqa: ANN401 -- the stubs lack these attributes
        if not isinstance(event, yaml.ScalarEvent):
            self._add("yaml-syntax", "a key must be text", event, None)
            raise _StopReading
        key = event.value
        if event.implicit[0] and not isinstance(self._scalar(event), str):
            self._add("yaml-syntax", f"the key `{_shortened(key)}` is not text", event, "put it in quotes")
        path = (*parent.path, key)
        if key in parent.value:
            first = self.keys[path].line
            what = f"duplicate key `{_shortened(key)}`; first defined in line {first}"
            self._add("duplicate-key", what, event, "remove one of them")
        self.keys[path] = _place(event)
        return str(key)

    def _scalar(self, event: yaml.ScalarEvent) -> Any:  # noqa: ANN401 -- any JSON scalar
        text = str(event.value)
        if not event.implicit[0]:  # a quoted or block scalar is always text
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
            instead = _without_exponent(text) or instead
            hint = f"put it in quotes if it is text, else write {instead}" if instead else "put it in quotes"
            self._add("yaml-surprise", f"`{_shortened(text)}` is {what}", event, hint)
        return text

    def _add(self, code: str, what: str, event: Any, hint: str | None) -> None:  # noqa: ANN401 -- as above
        self.problems.append(problem_at(self.path, self.lines, code, what, _place(event), "", hint))


def _without_exponent(text: str) -> str | None:
    """Return a number without its exponent, such as `100` for `1e2`; None for any other text."""
    match = _WITH_EXPONENT.fullmatch(text)
    if match is None:
        return None
    number = Decimal(text)
    return f"`{number.to_integral_value() if number == number.to_integral_value() else number:f}`"


def _invisible(character: str) -> str:
    return f"the invisible character U+{ord(character):04X} is not allowed"


def _events(text: str) -> Iterator[Any]:
    return yaml.parse(text, Loader=SAFE_LOADER)


def _place(event: Any) -> Place:  # noqa: ANN401 -- the stubs lack these attributes
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
    what = getattr(error, "problem", None) or "the file is not valid YAML"
    context = getattr(error, "context", None)
    return problem_at(path, lines, "yaml-syntax", f"{what} {context or ''}".strip(), place, "", None)


def _shortened(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"
