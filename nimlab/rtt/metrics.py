"""Counters, gauges and histograms -> the text that Prometheus reads.

In: numbers under names of the `CATALOG`. Out: exposition text, format 0.0.4. Pure state. Every label has few
values: those of a closed set, or peers that the ledger bounds. Not done here: labels for experiment, pod,
namespace and node, which Prometheus adds to whatever it scrapes.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

# 0.1 ms, doubled fifteen times, up to 3.3 s: from below what a pod can measure to above any sensible timeout.
BUCKETS_S: Final = tuple(0.0001 * 2**n for n in range(16))


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What a name stands for. `unit` is in words, as the name has it where Prometheus asks for it."""

    name: str
    kind: str  # counter, gauge or histogram
    unit: str
    labels: tuple[str, ...] = ()
    meaning: str


CATALOG: Final = (
    Metric(
        name="nimlab_rtt_seconds",
        kind="histogram",
        unit="seconds",
        labels=("method",),
        meaning="Round-trip times of all successful probes.",
    ),
    Metric(
        name="nimlab_rtt_probes_total",
        kind="counter",
        unit="probes",
        labels=("method", "result"),
        meaning="Probes that have ended, by what became of them.",
    ),
    Metric(
        name="nimlab_rtt_process_timed_total",
        kind="counter",
        unit="probes",
        labels=("method",),
        meaning="Successful probes that this process had to time itself: its waiting is in them.",
    ),
    Metric(
        name="nimlab_rtt_peer_last_seconds",
        kind="gauge",
        unit="seconds",
        labels=("peer", "method"),
        meaning="Latest round-trip time to a target; absent if no probe in the window succeeded.",
    ),
    Metric(
        name="nimlab_rtt_peer_min_seconds",
        kind="gauge",
        unit="seconds",
        labels=("peer", "method"),
        meaning="Least round-trip time to a target in the window; absent if no probe in it succeeded.",
    ),
    Metric(
        name="nimlab_rtt_peer_loss_ratio",
        kind="gauge",
        unit="ratio, 0 to 1",
        labels=("peer", "method"),
        meaning="Part of the probes to a target in the window that nobody answered in time.",
    ),
    Metric(
        name="nimlab_rtt_peers_discovered",
        kind="gauge",
        unit="peers",
        meaning="Other peers of the experiment, as DNS last said.",
    ),
    Metric(
        name="nimlab_rtt_peers_sampled",
        kind="gauge",
        unit="peers",
        meaning="Targets: peers that are probed now.",
    ),
    Metric(
        name="nimlab_rtt_discovery_errors_total",
        kind="counter",
        unit="questions",
        labels=("reason",),
        meaning="Questions to DNS that brought nothing usable; the last good answer is kept.",
    ),
    Metric(
        name="nimlab_rtt_discovery_success_timestamp_seconds",
        kind="gauge",
        unit="seconds since 1970",
        meaning="When DNS last said who the peers are; absent before it ever did.",
    ),
    Metric(
        name="nimlab_rtt_last_success_timestamp_seconds",
        kind="gauge",
        unit="seconds since 1970",
        meaning="When a probe last succeeded; absent before one ever did.",
    ),
    Metric(
        name="nimlab_rtt_round_duration_seconds",
        kind="gauge",
        unit="seconds",
        meaning="How long the last round of probes took; absent before the first.",
    ),
    Metric(
        name="nimlab_rtt_rounds_total",
        kind="counter",
        unit="rounds",
        meaning="Rounds of probes that have ended.",
    ),
    Metric(
        name="nimlab_rtt_rounds_skipped_total",
        kind="counter",
        unit="rounds",
        meaning="Rounds left out because the one before wasn't over in time.",
    ),
    Metric(
        name="nimlab_rtt_echo_requests_total",
        kind="counter",
        unit="requests",
        labels=("method", "treatment"),
        meaning="What came in at the echo port: connections and datagrams.",
    ),
    Metric(
        name="nimlab_rtt_method_usable",
        kind="gauge",
        unit="0 or 1",
        labels=("method",),
        meaning="1 for a method that was asked for and works here, 0 for one that this pod may not use.",
    ),
    Metric(
        name="nimlab_rtt_exporter_info",
        kind="gauge",
        unit="always 1",
        labels=("version",),
        meaning="The exporter's version.",
    ),
)

_BY_NAME: Final = {metric.name: metric for metric in CATALOG}

Labels = tuple[str, ...]  # values, in the order of the metric's label names


@dataclass(slots=True)
class _Histogram:
    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    total: float = 0.0


class Registry:
    """The numbers. A name that isn't in the catalog is a bug and raises KeyError."""

    def __init__(self) -> None:
        kinds = {metric.name: metric.kind for metric in CATALOG}
        self._numbers: dict[str, dict[Labels, float]] = {n: {} for n, k in kinds.items() if k != "histogram"}
        self._histograms: dict[str, dict[Labels, _Histogram]] = {
            n: {} for n, k in kinds.items() if k == "histogram"
        }

    def add(self, name: str, amount: float, *labels: str) -> None:
        """Add to a counter; adding 0 makes it appear."""
        series = self._numbers[name]
        series[labels] = series.get(labels, 0) + amount

    def put(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge."""
        self._numbers[name][labels] = value

    def put_all(self, name: str, series: Mapping[Labels, float]) -> None:
        """Set all series of a gauge; those that aren't among them are gone."""
        self._numbers[name] = dict(series)

    def open_histogram(self, name: str, *labels: str) -> None:
        """Make a histogram appear before anything is observed."""
        self._histograms[name].setdefault(labels, _Histogram())

    def observe(self, name: str, value: float, *labels: str) -> None:
        """Add one value to a histogram."""
        histogram = self._histograms[name].setdefault(labels, _Histogram())
        histogram.counts[bisect_left(BUCKETS_S, value)] += 1
        histogram.total += value

    def expose(self) -> str:
        """Return all numbers as text, in the catalog's order; a metric without series has no lines."""
        return "".join(f"{line}\n" for metric in CATALOG for line in self._lines(metric))

    def _lines(self, metric: Metric) -> Iterator[str]:
        samples = [*self._samples(metric)]
        if samples:
            yield f"# HELP {metric.name} {_escape_help(metric.meaning)}"
            yield f"# TYPE {metric.name} {metric.kind}"
            yield from samples

    def _samples(self, metric: Metric) -> Iterator[str]:
        for labels, value in sorted(self._numbers.get(metric.name, {}).items()):
            yield _sample(metric.name, zip(metric.labels, labels, strict=True), value)
        for labels, histogram in sorted(self._histograms.get(metric.name, {}).items()):
            pairs = [*zip(metric.labels, labels, strict=True)]
            count = 0
            for bound, of_bucket in zip((*BUCKETS_S, math.inf), histogram.counts, strict=True):
                count += of_bucket
                yield _sample(f"{metric.name}_bucket", [*pairs, ("le", format_number(bound))], count)
            yield _sample(f"{metric.name}_sum", pairs, histogram.total)
            yield _sample(f"{metric.name}_count", pairs, count)


def format_number(value: float) -> str:
    """Return a number as Prometheus writes and reads it. Pure."""
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if math.isnan(value):
        return "NaN"
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(float(value))


def _sample(name: str, labels: Iterable[tuple[str, str]], value: float) -> str:
    shown = ",".join(f'{key}="{_escape_value(text)}"' for key, text in labels)
    return f"{name}{{{shown}}} {format_number(value)}" if shown else f"{name} {format_number(value)}"


def _escape_value(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _escape_help(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")
