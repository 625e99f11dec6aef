"""Placeholders: values bypass the YAML parser and come back unchanged."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nimlab.render.placeholders import OutputTooLargeError, ParsedTemplate, Placeholders
from nimlab.yaml_and_json import parse_yaml

TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
LIMIT = 10_000


@given(JSON)
def test_any_value_comes_back_unchanged_from_every_position(value: Any) -> None:
    placeholders = Placeholders(LIMIT)
    marker = placeholders.put(value)
    text = f"a: {marker}\nb: [{marker}, {{c: {marker}}}]\nd:\n  - {marker}\n"
    assert placeholders.fill(ParsedTemplate(parse_yaml(text))) == [
        {"a": value, "b": [value, {"c": value}], "d": [value]}
    ]


@given(JSON)
def test_value_inside_longer_text_becomes_json(value: Any) -> None:
    placeholders = Placeholders(LIMIT)
    (document,) = placeholders.fill(
        ParsedTemplate(parse_yaml(f'a: |\n  {{"x": {placeholders.put(value)}}}\n'))
    )
    assert json.loads(document["a"]) == {"x": value}
    (document,) = placeholders.fill(ParsedTemplate(parse_yaml(f"a: |-\n  {placeholders.put(value)}\n")))
    assert json.loads(document["a"]) == value


@given(JSON, JSON)
def test_text_does_not_depend_on_the_values(first: Any, second: Any) -> None:
    assert Placeholders(LIMIT).put(first) == Placeholders(LIMIT).put(second)


def test_keys_are_text_and_unique() -> None:
    placeholders = Placeholders(LIMIT)
    text = f"{{{placeholders.put('a')}: 1, {placeholders.put('b')}: 2}}"
    assert placeholders.fill(ParsedTemplate(parse_yaml(text))) == [{"a": 1, "b": 2}]
    for values, what in (
        ((1, "b"), "a key is not text"),
        (("a", "a"), "duplicate key"),
        (({"x": "y"}, "a"), "a key is not text"),
    ):
        placeholders = Placeholders(LIMIT)
        documents = parse_yaml("{%s: 1, %s: 2}" % tuple(placeholders.put(value) for value in values))  # noqa: UP031
        with pytest.raises(ValueError, match=what):
            placeholders.fill(ParsedTemplate(documents))


def test_values_that_json_cannot_represent_are_rejected() -> None:
    for value in (object(), {1: 2}, {"a": {None: 1}}, float("nan"), float("inf"), b"x", {"a"}, print):
        with pytest.raises(TypeError):
            Placeholders(LIMIT).put(value)
    with pytest.raises(UnicodeEncodeError):
        Placeholders(LIMIT).put("\ud800")


def test_total_size_of_the_values_is_limited() -> None:
    placeholders = Placeholders(100)
    for _ in range(10):
        placeholders.put("x" * 9)
    with pytest.raises(OutputTooLargeError):
        placeholders.put("x" * 90)
    with pytest.raises(OutputTooLargeError):
        Placeholders(100).put([[]] * 101)


def test_fill_does_not_modify_the_template_and_shares_only_parts_without_markers() -> None:
    placeholders = Placeholders(LIMIT)
    value = {"b": [1], "a": 2}
    documents = yaml.safe_load(
        f"[{placeholders.put(value)}, {{x: [{{y: 1}}, {{{placeholders.put('z')}: 2}}]}}, [3]]"
    )
    before = json.dumps(documents)
    template = ParsedTemplate(documents)
    first, second = placeholders.fill(template), placeholders.fill(template)
    assert json.dumps(documents) == before
    assert first == second == [value, {"x": [{"y": 1}, {"z": 2}]}, [3]]
    assert list(first[0]) == ["a", "b"]
    value["b"].append(3)  # type: ignore[attr-defined]
    assert first[0] == {"a": 2, "b": [1]}
    assert first[2] is documents[2]
    assert first[1] is not second[1]


@pytest.mark.parametrize(
    "text", ["2026-01-01", "[2026-01-01]", "{a: {b: 2026-01-01 10:00:00}}", ".nan", "[.inf]", "!!binary eA=="]
)
def test_yaml_values_that_are_not_json_are_rejected_at_any_depth(text: str) -> None:
    with pytest.raises(ValueError, match="JSON cannot represent"):
        ParsedTemplate(yaml.safe_load(text))


@pytest.mark.parametrize("key", ["1", "~", "2026-01-01", "true", "1.5"])
def test_a_key_that_is_not_text_is_rejected_at_any_depth(key: str) -> None:
    with pytest.raises(ValueError, match="a key is not text"):
        ParsedTemplate(yaml.safe_load(f"[1, {{a: {{{key}: 2}}}}]"))
