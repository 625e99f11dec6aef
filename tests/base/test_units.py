"""Conversion of text to numbers with units and back: exact, and canonical as in the API server."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimlab import units


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (units.parse_duration_ms, "2000ms", 2000),
        (units.parse_duration_ms, "1.5m", 90_000),
        (units.parse_duration_ms, "1h", 3_600_000),
        (units.parse_size_bytes, "1440B", 1440),
        (units.parse_size_bytes, "4KiB", 4096),
        (units.parse_size_bytes, "4kB", 4000),
        (units.parse_rate_bit_per_s, "16Mbit", 16_000_000),
        (units.parse_rate_bit_per_s, "0.5kbit", 500),
        (units.parse_ratio, "1%", 0.01),
        (units.parse_ratio, "0.5%", 0.005),
        (units.parse_cpu_m, "0.05", 50),
        (units.parse_cpu_m, "50m", 50),
        (units.parse_cpu_m, "2", 2000),
        (units.parse_memory_bytes, "16Mi", 16 * 2**20),
        (units.parse_memory_bytes, "1G", 10**9),
    ],
)
def test_text_is_parsed_exactly(parse: Callable[[str], object], text: str, value: object) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (units.parse_duration_ms, "2000"),
        (units.parse_duration_ms, "0.1ms"),
        (units.parse_duration_ms, "5 sec"),
        (units.parse_duration_ms, "-5s"),
        (units.parse_size_bytes, "16Mbit"),
        (units.parse_rate_bit_per_s, "16MB"),
        (units.parse_ratio, "101%"),
        (units.parse_ratio, "0.1"),
        (units.parse_cpu_m, "0.0001"),
        (units.parse_cpu_m, "much"),
        (units.parse_memory_bytes, "16"),
        (units.parse_memory_bytes, "16MB"),
        (units.parse_quantity, "1e"),
        (units.parse_quantity, ""),
        (units.canonical_quantity, "0.1n"),
    ],
)
def test_invalid_text_is_rejected_with_a_hint(parse: Callable[[str], object], text: str) -> None:
    with pytest.raises(units.UnitError) as caught:
        parse(text)
    assert caught.value.hint


# Quantities as stored by an API server: docs/server-side-apply.md.
@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("0.05", "50m"), ("1.5", "1500m"), ("1000m", "1"), ("1024Mi", "1Gi"), ("2048Mi", "2Gi"),
        ("1000", "1k"), ("67108864", "67108864"), ("1.5Gi", "1536Mi"), ("0", "0"), ("1e3", "1k"),
        ("100", "100"), ("0.5Ki", "512"), ("16M", "16M"), ("1500m", "1500m"), ("1000Ki", "1000Ki"),
    ],
)  # fmt: skip
def test_quantity_has_the_canonical_form_of_the_api_server(text: str, canonical: str) -> None:
    assert units.canonical_quantity(text) == canonical
    assert units.canonical_quantity(canonical) == canonical


COUNT = st.integers(0, 10**12)


@given(COUNT)
def test_formatted_values_are_parsed_as_the_same_values(value: int) -> None:
    assert units.parse_duration_ms(units.format_duration_ms(value)) == value
    assert units.parse_size_bytes(units.format_size_bytes(value)) == value
    assert units.parse_rate_bit_per_s(units.format_rate_bit_per_s(value)) == value
    assert units.parse_cpu_m(units.format_cpu_m(value)) == value
    assert units.parse_quantity(units.format_memory_bytes(value)) == value


@given(st.integers(0, 10_000))
def test_formatted_ratios_are_parsed_as_the_same_ratios(basis_points: int) -> None:
    ratio = basis_points / 10_000
    assert units.parse_ratio(units.format_ratio(ratio)) == ratio


@given(st.decimals(0, 10**9, places=3), st.sampled_from(["", "m", "k", "M", "Ki", "Mi", "Gi"]))
def test_the_canonical_form_keeps_the_value_and_is_stable(number: object, suffix: str) -> None:
    text = f"{number}{suffix}"
    canonical = units.canonical_quantity(text)
    assert units.parse_quantity(canonical) == units.parse_quantity(text)
    assert units.canonical_quantity(canonical) == canonical


@given(st.text(max_size=20))
def test_any_text_parses_or_raises_unit_error(text: str) -> None:
    for parse in (
        units.parse_duration_ms,
        units.parse_size_bytes,
        units.parse_rate_bit_per_s,
        units.parse_ratio,
        units.parse_cpu_m,
        units.parse_memory_bytes,
        units.parse_quantity,
    ):
        try:
            parse(text)
        except units.UnitError:
            continue
