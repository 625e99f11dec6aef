"""A document against its JSON Schema: every mistake once, at its place, with a hint.

In: a `Document` and a schema. Out: problems. Units are checked here too, by the schemas' keyword `x-unit`.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, Final

import jsonschema
from jsonschema.protocols import Validator

from nimlab import units
from nimlab.errors import Problem
from nimlab.load.text import Document, Path, pointer_text
from nimlab.load.values import PARSERS
from nimlab.manifest import to_json_text

_TYPE_WORDS: Final = {
    "string": "text",
    "integer": "a whole number",
    "boolean": "`true` or `false`",
    "object": "a map",
    "array": "a list",
}
_PROBLEM_LIMIT: Final = 1000  # of a file: more of them help nobody, and each costs time


@lru_cache(maxsize=8)
def compile_schema(text: str) -> Validator:
    """Return the validator of a schema's text, which has to be one of the tool's own."""
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
    """Take a pattern as JSON Schema means it: Python's `$` would let a newline follow."""
    del validator, schema
    if isinstance(instance, str) and not re.fullmatch(pattern, instance):
        yield jsonschema.ValidationError("it doesn't fit the pattern")


def _check_unique(
    validator: Validator,
    wanted: object,
    instance: object,
    schema: Mapping[str, Any],
) -> Iterator[jsonschema.ValidationError]:
    """Compare texts: the library holds every two maps of a list against each other."""
    del validator, schema
    if wanted and isinstance(instance, list) and len({*map(to_json_text, instance)}) < len(instance):
        yield jsonschema.ValidationError("it has equal items")


_STRICT: Final[Any] = jsonschema.validators.extend(  # type: ignore[no-untyped-call] # the stubs miss it
    jsonschema.Draft202012Validator,
    {"x-unit": _check_unit, "pattern": _check_pattern, "uniqueItems": _check_unique},
)


def check_document(document: Document, validator: Validator) -> tuple[Problem, ...]:
    """Return in which ways the document isn't what its schema says: every one, up to a thousand."""
    problems = (
        problem
        for error in validator.iter_errors(document.data)
        for problem in _problems(document, _mistake(error))
    )
    return tuple(islice(problems, _PROBLEM_LIMIT))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mistake:
    """What jsonschema found: the schema's rule and its bound, and the value that breaks it."""

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
    forms = tuple(error.schema.get("patternProperties", ()))
    for key in error.value:
        if key in allowed or any(re.fullmatch(form, key) for form in forms):
            continue
        near = _nearest(key, allowed)
        meant = f"did you mean `{near}`? " if near else ""
        what = f"unknown key `{key[:60]}`{inside}"
        hint = f"{meant}allowed here: {', '.join(allowed)}"
        if forms:
            what, hint = f"`{key[:60]}` is not a label's key{inside}", str(error.schema["description"])
        yield document.problem("unknown-key", what, (*path, key), hint=hint, at_key=True)


def _nearest(key: str, allowed: Sequence[str]) -> str | None:
    """The allowed key that was most likely meant: an abbreviation keeps at least its first letter."""
    close = difflib.get_close_matches(key, allowed, n=1)
    if close:
        return close[0]
    same = [name for name in allowed if name[:1] == key[:1].lower()]
    scored = sorted((difflib.SequenceMatcher(None, key, name).ratio(), name) for name in same)
    return scored[-1][1] if scored and scored[-1][0] > 0.25 else None


def _missing_key(document: Document, error: _Mistake) -> Problem:
    path = error.path
    key = next((k for k in error.bound if f"'{k}' is a required" in error.message), "?")
    facts = error.schema["properties"].get(key, {})
    example = (facts.get("examples") or [None])[0]
    hint = str(facts.get("description", ""))
    if isinstance(example, str | int):
        hint += f" For example `{key}: {example}`"
    what = f"`{key}` is missing in {pointer_text(path) or 'the file'}"
    return document.problem("missing-key", what, path, hint=hint, at_key=bool(path))


def _wrong_type(document: Document, error: _Mistake) -> Problem:
    path = error.path
    wanted = error.bound
    example = json.dumps((error.schema.get("examples") or ["…"])[0], ensure_ascii=False).strip('"')
    value = error.value
    if "x-unit" in error.schema and isinstance(value, int | float) and not isinstance(value, bool):
        if error.schema["x-unit"] == "cpu":
            hint = f"write `{units.format_cpu_m(round(value * 1000))}`, or the number in quotes"
            return document.problem("bad-unit", f"`{value}` has no unit", path, hint=hint)
        return document.problem(
            "bad-unit",
            f"`{value}` has no unit",
            path,
            hint=f"write it with its unit, such as `{example}`",
        )
    name = pointer_text(path) or "the file"
    what = f"{name} must be {_TYPE_WORDS.get(wanted, wanted)}, not {_word_for(value)}"
    return document.problem("wrong-type", what, path, hint=f"for example `{example}`")


def _not_allowed(document: Document, error: _Mistake) -> Problem:
    path = error.path
    allowed = [error.bound] if error.rule == "const" else list(error.bound)
    near = difflib.get_close_matches(str(error.value), [str(a) for a in allowed], n=1)
    meant = f"did you mean `{near[0]}`? " if near else ""
    what = f"`{str(error.value)[:60]}` is not allowed for {pointer_text(path)}"
    hint = f"{meant}allowed: {', '.join(str(a) for a in allowed[:8])}"
    return document.problem("bad-value", what, path, hint=hint)


def _out_of_bounds(document: Document, error: _Mistake) -> Problem:
    path = error.path
    name, value, bound = pointer_text(path), str(error.value)[:60], error.bound
    facts = str(error.schema.get("description", ""))
    is_name = bool(path) and path[-1] in ("name", "contract", "namespace", "prefix")
    match error.rule:
        case "maxLength":
            size = len(error.value)
            what = f"{name} has {size} characters, {bound} are allowed"
        case "minimum" | "exclusiveMinimum":
            what = f"{name} is `{value}`, and must be at least {bound}"
        case "maximum":
            what = f"{name} is `{value}`, and must be at most {bound}"
        case "minItems":
            what = f"{name} has {len(error.value)} items, and must have at least {bound}"
        case "uniqueItems":
            what = f"{name} says one thing twice"
        case "pattern":
            what = f"`{value}` doesn't fit {name}"
        case _:
            what = f"{name} isn't as it should be: {error.rule} {bound}"
    return document.problem("bad-name" if is_name else "bad-value", what, path, hint=facts or None)


def _word_for(value: object) -> str:
    if value is None:
        return "empty"
    for kind, word in (
        (bool, "`true` or `false`"),
        (int | float, "a number"),
        (str, "text"),
        (list, "a list"),
    ):
        if isinstance(value, kind):
            return word
    return "a map"
