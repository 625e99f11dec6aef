"""A strict parser of the Prometheus text format 0.0.4. It raises AssertionError for anything unusual.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"'
_SAMPLE = re.compile(rf"({_NAME})(?:\{{({_LABEL}(?:,{_LABEL})*)\}})? (\S+)")
_VALUE = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?|Inf)|NaN")

Labels = frozenset[tuple[str, str]]


@dataclass
class Exposition:
    """Samples by name and labels, and the type and help of each family."""

    samples: dict[tuple[str, Labels], float] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    helps: dict[str, str] = field(default_factory=dict)

    def value(self, metric: str, **labels: str) -> float:
        """Return one sample. Raises KeyError if it does not exist."""
        return self.samples[metric, frozenset(labels.items())]

    def get(self, metric: str, **labels: str) -> float | None:
        """Return one sample or None."""
        return self.samples.get((metric, frozenset(labels.items())))

    def labels_of(self, metric: str, label: str) -> set[str]:
        """Return all values of a label."""
        return {dict(labels)[label] for name, labels in self.samples if name == metric}


def read_exposition(text: str) -> Exposition:
    """Parse an exposition. Raises AssertionError."""
    exposition = Exposition()
    assert text == "" or text.endswith("\n"), "the last line has no newline"
    family = ""
    closed: set[str] = set()
    for line in text.split("\n")[:-1]:
        if line.startswith("# HELP "):
            closed.add(family)
            family = _read_help(line, exposition)
            assert family not in closed, f"{family} is in two places"
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == family, f"type of {name} inside {family}"
            assert name not in exposition.types, f"two types for {name}"
            exposition.types[name] = kind
        else:
            _read_sample(line, family, exposition)
    for name, kind in exposition.types.items():
        if kind == "histogram":
            _check_histogram(name, exposition)
        if kind == "counter":
            assert name.endswith("_total"), f"{name} is a counter whose name does not end in _total"
    return exposition


def _read_help(line: str, exposition: Exposition) -> str:
    match = re.fullmatch(rf"# HELP ({_NAME}) ((?:[^\\\n]|\\\\|\\n)+)", line)
    assert match, f"not a HELP line: {line!r}"
    assert match[1] not in exposition.helps, f"two helps for {match[1]}"
    exposition.helps[match[1]] = match[2]
    return match[1]


def _read_sample(line: str, family: str, exposition: Exposition) -> None:
    match = _SAMPLE.fullmatch(line)
    assert match, f"not a sample: {line!r}"
    name, labels, value = match.groups()
    kind = exposition.types.get(family)
    suffixes = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
    assert name in {family + suffix for suffix in suffixes}, f"{name} inside {family} ({kind})"
    assert _VALUE.fullmatch(value), f"not a number: {line!r}"
    pairs = [pair.split("=", 1) for pair in re.findall(_LABEL, labels or "")]
    names = [key for key, _ in pairs]
    assert len(set(names)) == len(names), f"duplicate label: {line!r}"
    key = (name, frozenset((key, _unescape(text[1:-1])) for key, text in pairs))
    assert key not in exposition.samples, f"duplicate series: {line!r}"
    exposition.samples[key] = float(value)


def _unescape(text: str) -> str:
    return re.sub(r'\\(["\\n])', lambda match: "\n" if match[1] == "n" else match[1], text)


def _check_histogram(family: str, exposition: Exposition) -> None:
    groups: dict[Labels, list[tuple[float, float]]] = {}
    for (name, labels), value in exposition.samples.items():
        if name == f"{family}_bucket":
            bound = float(dict(labels)["le"])
            rest = frozenset(pair for pair in labels if pair[0] != "le")
            groups.setdefault(rest, []).append((bound, value))
    assert groups, f"{family} has no buckets"
    for rest, buckets in groups.items():
        bounds, counts = zip(*buckets, strict=True)
        assert list(bounds) == sorted(bounds), f"{family}'s bounds do not ascend"
        assert list(counts) == sorted(counts), f"{family}'s counts do not accumulate"
        assert math.isinf(bounds[-1]), f"{family} has no last bucket"
        assert counts[-1] == exposition.samples[f"{family}_count", rest]
        assert (f"{family}_sum", rest) in exposition.samples
