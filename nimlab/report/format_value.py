"""Resources, ages and field values -> short text.

In: resources, ages, old and new values. Out: text on one line. Two different values still differ after they
are shortened.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import zip_longest
from typing import Any, Final

from nimlab.plan.diff import ABSENT, FieldChange
from nimlab.plan.resource_requests import Resources
from nimlab.report.cut_text import cut_middle, cut_start
from nimlab.report.styled_text import escape
from nimlab.units import format_cpu_m

_WIDTH: Final = 32  # two values, a path and an arrow usually fit in a line of 120 columns
_BINARY_UNITS: Final = ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_MANY_CPU_M: Final = 10_000
_CONTEXT: Final = 8  # how many equal characters are shown before the first difference


def added_texts(added: Resources) -> tuple[str, str, str]:
    """Return texts such as `+5 pods`, `+250m CPU` and `+80Mi`; a text is empty if there is no change."""
    pods = f"{added.pods:+d} {'pod' if abs(added.pods) == 1 else 'pods'}" if added.pods else ""
    cpu = f"{_sign(added.cpu_m)}{short_cpu_text(abs(added.cpu_m))} CPU" if added.cpu_m else ""
    size_bytes = added.memory_bytes
    memory = f"{_sign(size_bytes)}{short_memory_text(abs(size_bytes))}" if size_bytes else ""
    return pods, cpu, memory


def short_cpu_text(cpu_m: int) -> str:
    """Return an amount of CPU, such as `250m` or `612.5`; ten cores or more are rounded to a tenth."""
    return format_cpu_m(cpu_m) if cpu_m < _MANY_CPU_M else f"{cpu_m / 1000:.1f}".removesuffix(".0")


def short_memory_text(size_bytes: int) -> str:
    """Return a size such as `80Mi` or `3.5Ti`. It is rounded to four digits or fewer, for display only."""
    size, unit = float(size_bytes), ""
    for larger in _BINARY_UNITS:
        if size < 1023.5:  # 1023.5 or more would be rounded to 1024
            break
        size, unit = size / 1024, larger
    text = f"{size:.1f}".removesuffix(".0") if size < 100 else f"{size:.0f}"
    return text + unit


def _sign(value: int) -> str:
    return "-" if value < 0 else "+"


def age_text(age_s: int | None) -> str:
    """Return an age in its two largest units (`24s`, `38m24s`, `5h12m`, `3d4h`); `-` for None."""
    if age_s is None:
        return "-"
    minutes, seconds = divmod(age_s, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "m"), (seconds, "s")]
    first = next((i for i, (number, _) in enumerate(parts) if number), len(parts) - 1)
    shown = [part for part in parts[first : first + 2] if part[0] or part is parts[first]]
    return "".join(f"{number}{unit}" for number, unit in shown)


def change_texts(change: FieldChange, *, in_full: bool) -> tuple[str, str, str]:
    """Return the path, the old value and the new value of a field as text.

    Unless `in_full` is set, long values are shortened around their first difference, and a text with several
    lines is reduced to its first different line.
    """
    path, old, new = change.path, change.old, change.new
    if not in_full and isinstance(old, str) and isinstance(new, str) and "\n" in old + new:
        number, old, new = _first_different_line(old, new)
        path = f"{path} line {number}"
    old_text, new_text = _value_text(old), _value_text(new)
    if not in_full:
        old_text, new_text = _shortened(old_text, new_text)
    return escape(path), old_text, new_text


def expand_json(fields: Iterable[FieldChange]) -> list[FieldChange]:
    """Return the field changes; a changed JSON text is replaced by the changed fields inside it."""
    return [part for field in fields for part in _json_parts(field)]


def _json_parts(change: FieldChange) -> list[FieldChange]:
    """Return the changed fields inside a JSON text, sorted by path; for other text, return the change."""
    old, new = _json_object(change.old), _json_object(change.new)
    if old is None or new is None:
        return [change]
    before, after = dict(_leaves(old, change.path)), dict(_leaves(new, change.path))
    parts = [
        FieldChange(path=path, old=before.get(path, ABSENT), new=after.get(path, ABSENT))
        for path in sorted(before.keys() | after.keys())
        if before.get(path, ABSENT) != after.get(path, ABSENT)
    ]
    return parts or [change]


def _json_object(value: object) -> dict[str, Any] | None:
    if not isinstance(value, str) or not value.startswith("{"):
        return None
    try:
        document = json.loads(value)
    except ValueError:  # the text starts with `{` and is not JSON
        return None
    return document if isinstance(document, dict) else None


def _leaves(value: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    """Yield the path and value of each field that has no fields of its own."""
    for name, item in value.items():
        item_path = f"{path}.{name}" if name.isidentifier() else f"{path}[{name}]"
        if isinstance(item, dict) and item:
            yield from _leaves(item, item_path)
        else:
            yield item_path, item


def _first_different_line(old: str, new: str) -> tuple[int, Any, Any]:
    lines = zip_longest(old.split("\n"), new.split("\n"), fillvalue=ABSENT)
    return next((number, a, b) for number, (a, b) in enumerate(lines, 1) if a != b)


def _value_text(value: Any) -> str:  # noqa: ANN401 -- any JSON
    return "(absent)" if value is ABSENT else escape(json.dumps(value, ensure_ascii=False))


def _shortened(old: str, new: str) -> tuple[str, str]:
    """Cut both texts to `_WIDTH` characters in such a way that their first difference stays visible."""
    if max(len(old), len(new)) <= _WIDTH:
        return old, new
    pairs = enumerate(zip(old, new, strict=False))
    same = next((i for i, (a, b) in pairs if a != b), min(len(old), len(new)))
    start = same - _CONTEXT if same >= _WIDTH // 2 - 1 else 0
    return cut_middle(cut_start(old, start), _WIDTH), cut_middle(cut_start(new, start), _WIDTH)
