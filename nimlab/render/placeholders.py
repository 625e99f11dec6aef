"""Text with holes: a template's text names the values that belong into it, and never holds them.

In: values, one after another, each answered with a mark for the text; later, what the text was parsed to.
Out: the same with the values in their places. So a value is never parsed, and can't be anything but data; and
the text is the same for all experiments that take the same way through a template, so it is parsed once.
Nothing here knows templates or YAML. Pure, but that it counts.
"""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Mapping
from typing import Any, Final

from nimlab.text import to_yaml_safe_json

# Other in each process, so that no text of a user's can be a mark; private-use characters, which YAML keeps.
_OPEN: Final = f"\ue000{secrets.token_hex(4)}:"
_MARK: Final = re.compile(f"{_OPEN}([0-9]+)\ue001")
_QUOTED: Final = re.compile(f'"?{_MARK.pattern}"?')  # as it stands in a block of text


class OutputTooLargeError(ValueError):
    """The values together are larger than allowed."""


class ParsedTemplate:
    """What a text with marks was parsed to; `marked` are the ids of the maps and lists with marks inside."""

    def __init__(self, value: Any) -> None:  # noqa: ANN401 -- whatever YAML gave
        """Look through it once. Raises ValueError for what isn't JSON: a date, a key that isn't text."""
        found: set[int] = set()
        _find_marked(value, found)
        self.value = value
        self.marked = frozenset(found)


def _find_marked(value: Any, found: set[int]) -> bool:  # noqa: ANN401 -- whatever YAML gave
    """Return True if there is a mark in the value; add the maps and lists that have one."""
    if isinstance(value, str):
        return _OPEN in value
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise _not_text(key)
        parts = [*value, *value.values()]
    elif isinstance(value, list):
        parts = value
    else:
        if not (value is None or isinstance(value, int) or _is_finite(value)):
            raise ValueError(f"`{value}` is nothing that JSON has a form for; write it in quotes")
        return False
    inside = [_find_marked(part, found) for part in parts]
    if any(inside):
        found.add(id(value))
    return any(inside)


def _is_finite(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _not_text(key: object) -> ValueError:
    return ValueError(f"a key isn't text: {str(key)[:40]}")


class Placeholders:
    """The values that one filling of one template has put into its text; at most `limit` characters."""

    def __init__(self, limit: int) -> None:
        self._values: list[Any] = []
        self._left = limit

    def put(self, value: object) -> str:
        """Keep a value and return its mark: text that YAML and JSON take for one string.

        Raises TypeError for what JSON has no form for, TooMuchError.
        """
        self._values.append(self._plain(value))
        return f'"{_OPEN}{len(self._values) - 1}\ue001"'

    def fill(self, form: ParsedTemplate) -> Any:  # noqa: ANN401 -- any JSON
        """Return the form's value with every mark replaced by its value; inside longer text, by its JSON.

        What holds no mark is the form's own, so nothing of the answer may be changed. Raises ValueError for a
        key that isn't text, or stands twice.
        """
        return self._filled(form.value, form.marked)

    def _filled(self, value: Any, marked: frozenset[int]) -> Any:  # noqa: ANN401 -- any JSON
        if isinstance(value, str):
            return self._put_into(value) if _OPEN in value else value
        if id(value) not in marked:
            return value
        if isinstance(value, list):
            return [self._filled(item, marked) for item in value]
        filled = {self._key(key): self._filled(item, marked) for key, item in value.items()}
        if len(filled) != len(value):
            raise ValueError("a key stands twice")
        return filled

    def _put_into(self, text: str) -> Any:  # noqa: ANN401 -- any JSON
        whole = _MARK.fullmatch(text)
        if whole is not None:
            return self._values[int(whole[1])]
        return _QUOTED.sub(lambda mark: to_yaml_safe_json(self._values[int(mark[1])]), text)

    def _key(self, key: str) -> str:
        filled = self._put_into(key) if _OPEN in key else key
        if not isinstance(filled, str):
            raise _not_text(filled)
        return filled

    def _plain(self, value: object) -> Any:  # noqa: ANN401 -- any JSON
        """The value as JSON has it, keys sorted; each call gives new containers."""
        if isinstance(value, str):
            self._count(len(value))
            value.encode()  # a lone surrogate can't be sent to anybody
            return str(value)
        if value is None or isinstance(value, int):
            return value
        self._count(1)
        if _is_finite(value):
            return value
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            return {str(key): self._plain(value[key]) for key in sorted(value)}
        if isinstance(value, list | tuple):
            return [self._plain(item) for item in value]
        raise TypeError(f"{type(value).__name__} is nothing that JSON has a form for")

    def _count(self, characters: int) -> None:
        self._left -= characters
        if self._left < 0:
            raise OutputTooLargeError("the values together are too large")
