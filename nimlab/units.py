"""Conversion of text to numbers with units and back: durations, sizes, rates, ratios, Kubernetes quantities.

In: text from a file or the command line. Out: an integer (or a ratio) in the unit that the function's name
contains, or the canonical text of a number. Pure, independent of the locale, and exact: nothing is rounded.
`parse_x(format_x(n)) == n` for every n.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from nimlab.errors import truncate

_SHOWN_CHARACTERS: Final = 40
_NUMBER: Final = r"(?P<number>[0-9]{1,15}(?:\.[0-9]{1,9})?)"

_DURATION_MS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
_SIZE_BYTES: Final = {
    "B": 1,
    "kB": 1000,
    "KiB": 1024,
    "MB": 1000**2,
    "MiB": 1024**2,
    "GB": 1000**3,
    "GiB": 1024**3,
}
_RATE_BIT_PER_S: Final = {"bit": 1, "kbit": 1000, "Mbit": 1000**2, "Gbit": 1000**3}

_DECIMAL: Final = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "E": Decimal(10**18),
}
_BINARY: Final = {s: Decimal(1024**i) for i, s in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)}
_QUANTITY: Final = re.compile(
    r"(?P<number>[0-9]{1,40}(?:\.[0-9]{1,12})?)(?P<suffix>[KMGTPE]i|[numkMGTPE]?|[eE][+-]?[0-9]{1,2})"
)


class UnitError(ValueError):
    """The text is not a number with a supported unit."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


def parse_duration_ms(text: str) -> int:
    """Return milliseconds for `250ms`, `2s`, `1.5m` or `1h`. Raises UnitError."""
    return _parse(text, _DURATION_MS, "a duration such as `2000ms` or `5s`")


def format_duration_ms(duration_ms: int) -> str:
    """Return the shortest exact text, such as `2s` for 2000 and `1500ms` for 1500."""
    return _format(duration_ms, {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1})


def parse_size_bytes(text: str) -> int:
    """Return bytes for `1440B`, `4KiB` or `1.5MB`. Raises UnitError."""
    return _parse(text, _SIZE_BYTES, "a size such as `1440B` or `4KiB`")


def format_size_bytes(size_bytes: int) -> str:
    """Return the shortest exact text with a binary unit, such as `4KiB` for 4096 and `1440B` for 1440."""
    return _format(size_bytes, {"GiB": 1024**3, "MiB": 1024**2, "KiB": 1024, "B": 1})


def parse_rate_bit_per_s(text: str) -> int:
    """Return bits per second for `16Mbit` or `500kbit`. Raises UnitError."""
    return _parse(text, _RATE_BIT_PER_S, "a rate such as `16Mbit` (per second)")


def format_rate_bit_per_s(rate_bit_per_s: int) -> str:
    """Return the shortest exact text, such as `16Mbit` for 16000000."""
    return _format(rate_bit_per_s, {"Gbit": 1000**3, "Mbit": 1000**2, "kbit": 1000, "bit": 1})


def parse_ratio(text: str) -> float:
    """Return a number from 0 to 1 for a percentage such as `0.5%`. Raises UnitError."""
    match = re.fullmatch(_NUMBER + "%", text)
    if match is None:
        raise UnitError(_not_a_number(text), "write a percentage such as `1%`")
    ratio = Decimal(match["number"]) / 100
    if ratio > 1:
        raise UnitError(f"`{text}` is more than 100%", "write a percentage from `0%` to `100%`")
    return float(ratio)


def format_ratio(ratio: float) -> str:
    """Return the percentage, such as `1%` for 0.01."""
    percent = (Decimal(repr(ratio)) * 100).normalize()
    return f"{percent:f}%"


def format_number(number: float) -> str:
    """Return the number without an exponent, such as `0.0000001` for 1e-07."""
    return str(number) if isinstance(number, int) else f"{Decimal(repr(number)):f}"


def parse_cpu_m(text: str) -> int:
    """Return millicores for `50m`, `0.05` or `2`. Raises UnitError."""
    hint = 'write thousandths of a core such as `50m`, or cores in quotes such as `"0.05"`'
    match = re.fullmatch(_NUMBER + "(?P<unit>m?)", text)
    if match is None:
        raise UnitError(_not_a_number(text), hint)
    cpu_m = Decimal(match["number"]) * (1 if match["unit"] else 1000)
    return _integer(cpu_m, text, hint)


def format_cpu_m(cpu_m: int) -> str:
    """Return the canonical quantity: `50m` for 50, `2` for 2000."""
    return str(cpu_m // 1000) if cpu_m % 1000 == 0 else f"{cpu_m}m"


def parse_memory_bytes(text: str) -> int:
    """Return bytes for `16Mi` or `1G`. Raises UnitError, also for a number without a unit."""
    hint = "write memory such as `16Mi` or `1Gi`"
    if re.fullmatch(r"[0-9.]+", text):
        raise UnitError(f"`{text}` has no unit", hint)
    match = re.fullmatch(_NUMBER + r"(?P<unit>[KMGT]i|[kMGT])", text)
    if match is None:
        raise UnitError(_not_a_number(text), hint)
    factor = _BINARY.get(match["unit"]) or _DECIMAL[match["unit"]]
    return _integer(Decimal(match["number"]) * factor, text, hint)


def format_memory_bytes(size_bytes: int) -> str:
    """Return the canonical binary quantity: `16Mi` for 16777216."""
    return canonical_quantity(f"{Decimal(size_bytes) / 1024:f}Ki")


def parse_quantity(text: str) -> Decimal:
    """Return the exact value of a Kubernetes quantity. Raises UnitError."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise UnitError(_not_a_number(text), "write a Kubernetes quantity such as `50m`, `16Mi` or `2`")
    number, suffix = Decimal(match["number"]), match["suffix"]
    if suffix in _BINARY:
        return number * _BINARY[suffix]
    if suffix in _DECIMAL:
        return number * _DECIMAL[suffix]
    return number.scaleb(int(suffix[1:]))


def canonical_quantity(text: str) -> str:
    """Return the text that the API server stores: `0.05` -> `50m`, `1024Mi` -> `1Gi`, `1000` -> `1k`.

    The rules are those of `resource.Quantity` in apimachinery. The result has no fraction and the largest
    suffix for which the number is an integer. A binary suffix stays binary, and a decimal suffix stays
    decimal, but binary values below 1024 become decimal. Raises UnitError.
    """
    value = parse_quantity(text)
    if value == 0:
        return "0"
    if text.endswith("i") and value >= 1024:
        for suffix in reversed(_BINARY):
            if value % _BINARY[suffix] == 0:
                return f"{value / _BINARY[suffix]:f}".split(".")[0] + suffix
        if value == value.to_integral_value():
            return f"{value:f}".split(".")[0]
    for suffix in reversed(_DECIMAL):
        if value % _DECIMAL[suffix] == 0:
            return f"{(value / _DECIMAL[suffix]).to_integral_value():f}" + suffix
    raise UnitError(f"`{text}` has digits below 1n (one billionth)", "round it")


def _parse(text: str, factors: Mapping[str, int], example: str) -> int:
    match = re.fullmatch(_NUMBER + r"\s?(?P<unit>[A-Za-z]*)", text)
    hint = f"write {example}"
    if match is None:
        raise UnitError(_not_a_number(text), hint)
    if not match["unit"]:
        raise UnitError(f"`{text}` has no unit", hint)
    if match["unit"] not in factors:
        known = ", ".join(f"`{unit}`" for unit in factors)
        raise UnitError(f"the unit `{match['unit']}` is not supported here", f"{hint}; units: {known}")
    return _integer(Decimal(match["number"]) * factors[match["unit"]], text, hint)


def _integer(value: Decimal, text: str, hint: str) -> int:
    if value != value.to_integral_value():
        raise UnitError(f"`{text}` is not a multiple of the smallest unit", hint)
    return int(value)


def _format(value: int, factors: Mapping[str, int]) -> str:
    for unit, factor in factors.items():
        if value and value % factor == 0:
            return f"{value // factor}{unit}"
    return f"0{list(factors)[-1]}"


def _not_a_number(text: str) -> str:
    return f"`{truncate(text, _SHOWN_CHARACTERS)}` is not a number with a unit"
