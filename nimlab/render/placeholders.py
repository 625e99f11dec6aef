"""Placeholders: rendered text contains markers instead of values, so values are never parsed as YAML.

In: values, and the text in which the template wrote a marker for each value. Out: the parsed text, with each
marker replaced by its value. A value can therefore only be data. If a template gives the same text for
several experiments, the text is parsed only once. This module uses no Jinja and no YAML.
"""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Mapping
from typing import Any, Final

from nimlab.errors import truncate
from nimlab.yaml_and_json import to_yaml_safe_json

# The random part differs in each process, so no text of a user can contain a marker. YAML does not change the
# private-use characters at both ends of a marker.
_MARKER_START: Final = f"\ue000{secrets.token_hex(4)}:"
_MARKER: Final = re.compile(f"{_MARKER_START}([0-9]+)\ue001")
_QUOTED_MARKER: Final = re.compile(f'"?{_MARKER.pattern}"?')  # YAML keeps the quotes inside a block of text
_SHOWN_CHARACTERS: Final = 40


class OutputTooLargeError(ValueError):
    """The values of one template are larger than allowed."""


class ParsedTemplate:
    """A rendered text after parsing; `marked` contains the ids of the maps and lists with markers."""

    def __init__(self, value: Any) -> None:  # noqa: ANN401 -- any YAML
        """Find the markers in the value. Raises ValueError if JSON cannot represent it, such as a date."""
        marked: set[int] = set()
        _find_marked(value, marked)
        self.value = value
        self.marked = frozenset(marked)


def _find_marked(value: Any, marked: set[int]) -> bool:  # noqa: ANN401 -- any YAML
    """Return True if the value contains a marker; add the ids of the maps and lists that contain one."""
    if isinstance(value, str):
        return _MARKER_START in value
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise _key_error(key)
        parts = [*value, *value.values()]
    elif isinstance(value, list):
        parts = value
    else:
        if not (value is None or isinstance(value, int) or _is_finite(value)):
            raise ValueError(f"JSON cannot represent `{value}`; write it in quotes")
        return False
    results = [_find_marked(part, marked) for part in parts]
    if any(results):
        marked.add(id(value))
    return any(results)


def _is_finite(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _key_error(key: object) -> ValueError:
    return ValueError(f"a key is not text: {truncate(str(key), _SHOWN_CHARACTERS)}")


class Placeholders:
    """The values of one template for one experiment, at most `limit` characters in total."""

    def __init__(self, limit: int) -> None:
        self._values: list[Any] = []
        self._remaining = limit

    def put(self, value: object) -> str:
        """Store a value and return its marker, which is a quoted string in YAML and in JSON.

        Raises TypeError for a value that JSON cannot represent. Raises OutputTooLargeError if all values
        together exceed the limit.
        """
        self._values.append(self._to_json_value(value))
        return f'"{_MARKER_START}{len(self._values) - 1}\ue001"'

    def fill(self, template: ParsedTemplate) -> Any:  # noqa: ANN401 -- any JSON
        """Return the parsed template with each marker replaced by its value.

        A marker inside longer text is replaced by the value's JSON. Do not modify the result: parts without
        markers are shared with the template. Raises ValueError for a key that is not text or occurs twice.
        """
        return self._fill(template.value, template.marked)

    def _fill(self, value: Any, marked: frozenset[int]) -> Any:  # noqa: ANN401 -- any JSON
        if isinstance(value, str):
            return self._fill_text(value) if _MARKER_START in value else value
        if id(value) not in marked:
            return value
        if isinstance(value, list):
            return [self._fill(item, marked) for item in value]
        filled = {self._fill_key(key): self._fill(item, marked) for key, item in value.items()}
        if len(filled) != len(value):
            raise ValueError("a map contains a duplicate key")
        return filled

    def _fill_text(self, text: str) -> Any:  # noqa: ANN401 -- any JSON
        only_marker = _MARKER.fullmatch(text)
        if only_marker is not None:
            return self._values[int(only_marker[1])]
        return _QUOTED_MARKER.sub(lambda marker: to_yaml_safe_json(self._values[int(marker[1])]), text)

    def _fill_key(self, key: str) -> str:
        filled = self._fill_text(key) if _MARKER_START in key else key
        if not isinstance(filled, str):
            raise _key_error(filled)
        return filled

    def _to_json_value(self, value: object) -> Any:  # noqa: ANN401 -- any JSON
        """Return a new copy of the value, with plain JSON types and sorted keys."""
        if isinstance(value, str):
            self._count(len(value))
            value.encode()  # raises UnicodeEncodeError for a lone surrogate, which UTF-8 cannot encode
            return str(value)
        if value is None or isinstance(value, int):
            return value
        self._count(1)
        if _is_finite(value):
            return value
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            return {str(key): self._to_json_value(value[key]) for key in sorted(value)}
        if isinstance(value, list | tuple):
            return [self._to_json_value(item) for item in value]
        raise TypeError(f"JSON cannot represent a value of type {type(value).__name__}")

    def _count(self, characters: int) -> None:
        self._remaining -= characters
        if self._remaining < 0:
            raise OutputTooLargeError("the values of the template are too large")
