"""Validation of a document by its JSON Schema: one problem per mistake, with its position and a hint.

In: a `Document` and a schema. Out: problems. nimlab's schemas also use the keyword `x-unit`, which validates
units.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, Final

import jsonschema
from jsonschema.protocols import Validator

from nimlab import units
from nimlab.did_you_mean import did_you_mean
from nimlab.errors import Problem
from nimlab.files.load.parse_units import PARSERS
from nimlab.files.load.source_document import Document, Path, pointer_text
from nimlab.yaml_and_json import to_json_text

_TYPE_WORDS: Final = {
    "string": "text",
    "integer": "a whole number",
    "boolean": "`true` or `false`",
    "object": "a map",
    "array": "a list",
}
_QUANTITIES: Final = {
    "duration": "a duration with a unit",
    "size": "a size with a unit",
    "rate": "a rate with a unit",
    "ratio": "a percentage",
    "cpu": "an amount of CPU",
    "memory": "an amount of memory with a unit",
}
_EXACT: Final = 2**53  # below this bound, a float represents every whole number exactly
_KEY_RULES: Final = ("additionalProperties", "required")
_NAMES: Final = ("name", "contract", "namespace", "prefix", "workload", "service")
_PROBLEM_LIMIT: Final = 1000  # per file; more problems would not help the user, and take time to locate


@lru_cache(maxsize=8)
def compile_schema(text: str) -> Validator:
    """Return the validator for the text of one of nimlab's own schemas."""
    validator: Validator = _STRICT(json.loads(text))
    return validator


def _check_unit(
    validator: Validator, unit: str, instance: object, schema: Mapping[str, Any]
) -> Iterator[jsonschema.ValidationError]:
    del validator, schema
    if isinstance(instance, str):
        try:
            PARSERS[unit](instance)
        except units.UnitError as error:
            yield jsonschema.ValidationError(error.what, cause=error)


def _check_pattern(
    validator: Validator, pattern: str, instance: object, schema: Mapping[str, Any]
) -> Iterator[jsonschema.ValidationError]:
    """Require a match of the entire text, because `$` in Python also matches before a final newline."""
    del validator, schema
    if isinstance(instance, str) and not re.fullmatch(pattern, instance):
        yield jsonschema.ValidationError("it does not match the pattern")


def _check_unique(
    validator: Validator,
    is_required: object,
    instance: object,
    schema: Mapping[str, Any],
) -> Iterator[jsonschema.ValidationError]:
    """Find duplicate items by their canonical texts. The library would compare all pairs, which is slow."""
    del validator, schema
    if is_required and isinstance(instance, list) and len({*map(to_json_text, instance)}) < len(instance):
        yield jsonschema.ValidationError("it contains duplicate items")


def _is_integer(checker: object, instance: object) -> bool:
    """Return True only for integers. The library also accepts `3.0`, which would then appear in manifests."""
    del checker
    return isinstance(instance, int) and not isinstance(instance, bool)


_STRICT: Final[Any] = jsonschema.validators.extend(  # type: ignore[no-untyped-call] # it has no type in the stubs
    jsonschema.Draft202012Validator,
    {"x-unit": _check_unit, "pattern": _check_pattern, "uniqueItems": _check_unique},
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer),
)


def check_document(document: Document, validator: Validator) -> tuple[Problem, ...]:
    """Return a problem for each violation of the schema, at most 1,000 problems.

    Each value has at most one problem. For example, only the wrong type is reported for the count `-1.5`. A
    map can also have one problem for each unknown or missing key.
    """
    problems = (
        problem
        for mistake in _first_per_value(map(_mistake, validator.iter_errors(document.data)))
        for problem in _problems(document, mistake)
    )
    return tuple(islice(problems, _PROBLEM_LIMIT))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mistake:
    """A validation error: the schema's rule with its bound, and the value that violates the rule."""

    path: Path
    rule: str
    bound: Any
    value: Any
    schema: Mapping[str, Any]
    message: str
    hint: str | None


def _mistake(error: jsonschema.ValidationError) -> _Mistake:
    cause = error.cause
    return _Mistake(
        path=tuple(error.absolute_path),
        rule=str(error.validator),
        bound=error.validator_value,
        value=error.instance,
        schema=error.schema if isinstance(error.schema, Mapping) else {},
        message=error.message,
        hint=cause.hint if isinstance(cause, units.UnitError) else None,
    )


def _first_per_value(mistakes: Iterable[_Mistake]) -> Iterator[_Mistake]:
    """Yield the first mistake of each value, and all unknown and missing keys of each map."""
    seen: set[Path] = set()
    for mistake in mistakes:
        if mistake.rule not in _KEY_RULES:
            if mistake.path in seen:
                continue
            seen.add(mistake.path)
        yield mistake


def _problems(document: Document, error: _Mistake) -> Iterator[Problem]:
    path = error.path
    match error.rule:
        case "additionalProperties":
            yield from _unknown_keys(document, error)
        case "required":
            yield _missing_key(document, error)
        case "type":
            yield _wrong_type(document, error)
        case "x-unit":
            yield document.problem("bad-unit", error.message, path, hint=error.hint)
        case "enum" | "const":
            yield _not_allowed(document, error)
        case _:
            yield _out_of_bounds(document, error)


def _unknown_keys(document: Document, error: _Mistake) -> Iterator[Problem]:
    path = error.path
    allowed = sorted(error.schema["properties"])
    inside = f" in {pointer_text(path)}" if path else ""
    patterns = tuple(error.schema.get("patternProperties", ()))
    for key in error.value:
        if key in allowed or any(re.fullmatch(pattern, key) for pattern in patterns):
            continue
        what = f"unknown key `{key[:60]}`{inside}"
        hint = f"{did_you_mean(key, allowed)} allowed keys: {', '.join(allowed)}".lstrip()
        if patterns:
            what, hint = f"`{key[:60]}` is not a valid label key{inside}", str(error.schema["description"])
        yield document.problem("unknown-key", what, (*path, key), hint=hint, at_key=True)


def _missing_key(document: Document, error: _Mistake) -> Problem:
    path = error.path
    key = next((k for k in error.bound if f"'{k}' is a required" in error.message), "?")
    schema = error.schema["properties"].get(key, {})
    example = (schema.get("examples") or [None])[0]
    hint = str(schema.get("description", ""))
    if isinstance(example, str | int):
        hint += f" For example `{key}: {example}`"
    what = f"`{key}` is missing in {pointer_text(path) or 'the file'}"
    return document.problem("missing-key", what, path, hint=hint, at_key=bool(path))


def _wrong_type(document: Document, error: _Mistake) -> Problem:
    path, value = error.path, error.value
    example = json.dumps((error.schema.get("examples") or ["…"])[0], ensure_ascii=False).strip('"')
    unit = error.schema.get("x-unit")
    if unit in _QUANTITIES and _is_number(value):
        what = f"`{units.format_number(value)}` has no unit"
        hint = _cpu_hint(value) if unit == "cpu" else f"write {_QUANTITIES[unit]}, such as `{example}`"
        return document.problem("bad-unit", what, path, hint=hint)
    name = pointer_text(path) or "the file"
    what = f"{name} must be {_TYPE_WORDS.get(error.bound, error.bound)}, not {_word_for(value)}"
    # A number in quotes, such as "3.0", is not an image either, so the hint must not suggest quotes.
    same_value = None if unit == "image" else _type_hint(error.bound, value)
    hint = same_value or f"for example `{example}`"
    return document.problem("wrong-type", what, path, hint=hint)


def _cpu_hint(cores: float) -> str:
    """Return a hint with the two equivalent ways to write this number of cores."""
    text = units.format_number(cores)
    try:
        cpu_m = units.parse_cpu_m(text)
    except units.UnitError:
        return "write thousandths of a core, such as `50m`"
    amount = "one core" if cpu_m == 1000 else f"{text} cores"
    return f'write `{cpu_m}m` or `"{text}"`, {amount}'


def _type_hint(required: object, value: object) -> str | None:
    """Return a hint on how to write the same value as the required type; None if that is impossible."""
    if required == "integer" and isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return f"write `{int(value)}`"
    if required == "integer" and isinstance(value, str) and re.fullmatch(r"[1-9][0-9]{0,17}|0", value):
        return f"write `{value}` without quotes"
    if required == "boolean" and value in ("true", "false"):
        return f"write `{value}` without quotes"
    if required == "string" and isinstance(value, int | float):
        return f'put it in quotes: `"{_scalar_text(value)}"`'
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _scalar_text(value: float) -> str:
    return str(value).lower() if isinstance(value, bool) else units.format_number(value)


def _not_allowed(document: Document, error: _Mistake) -> Problem:
    path = error.path
    allowed = [error.bound] if error.rule == "const" else list(error.bound)
    nearest = did_you_mean(str(error.value), [str(a) for a in allowed])
    what = f"`{str(error.value)[:60]}` is not allowed for {pointer_text(path)}"
    hint = f"{nearest} allowed: {', '.join(str(a) for a in allowed[:8])}".lstrip()
    return document.problem("bad-value", what, path, hint=hint)


def _out_of_bounds(document: Document, error: _Mistake) -> Problem:
    path = error.path
    name, value, bound = pointer_text(path), str(error.value)[:60], error.bound
    description = str(error.schema.get("description", ""))
    is_name = bool(path) and path[-1] in _NAMES
    match error.rule:
        case "maxLength":
            size = len(error.value)
            what = f"{name} has {size} characters; at most {bound} are allowed"
        case "minimum" | "exclusiveMinimum":
            what = f"{name} is `{value}`, and must be at least {bound}"
        case "maximum":
            what = f"{name} is `{value}`, and must be at most {bound}"
        case "minItems":
            what = f"{name} has {len(error.value)} items, and must have at least {bound}"
        case "uniqueItems":
            what = f"{name} contains duplicate items"
        case "pattern":
            what = f"`{value}` is not a valid value for {name}"
        case _:
            what = f"{name} violates the rule `{error.rule}: {bound}`"
    return document.problem("bad-name" if is_name else "bad-value", what, path, hint=description or None)


def _word_for(value: object) -> str:
    if value is None:
        return "empty"
    if isinstance(value, int | float):
        return f"`{_scalar_text(value)}`"
    for kind, word in ((str, "text"), (list, "a list")):
        if isinstance(value, kind):
            return word
    return "a map"
