"""Store the exporter's metrics and expose them in the Prometheus text format 0.0.4.

`CATALOG` lists every metric. `Registry` stores the values and is a collector of prometheus_client, which
writes the text. Each label has a limited number of values: members of an enumeration, or peers in the
window. Prometheus adds the labels for experiment, pod, namespace and node when it scrapes.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

# Each bound is twice the bound before it: from 0.1 ms to 3.3 s (above useful timeouts).
BUCKETS_S: Final = tuple(0.0001 * 2**n for n in range(16))


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """The description of one metric. `unit` is in words; if the name has a suffix, `unit` matches it."""

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
        meaning="Probes that have ended, by result.",
    ),
    Metric(
        name="nimlab_rtt_process_timed_total",
        kind="counter",
        unit="probes",
        labels=("method",),
        meaning="Successful probes timed by this process, not by the kernel; scheduling delay is included.",
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
        meaning="Lowest round-trip time to a target in the window; absent if no probe in it succeeded.",
    ),
    Metric(
        name="nimlab_rtt_peer_loss_ratio",
        kind="gauge",
        unit="ratio, 0 to 1",
        labels=("peer", "method"),
        meaning="Share of the probes to a target in the window that got no answer in time.",
    ),
    Metric(
        name="nimlab_rtt_peers_discovered",
        kind="gauge",
        unit="peers",
        meaning="Other peers of the experiment in the last usable DNS answer.",
    ),
    Metric(
        name="nimlab_rtt_peers_sampled",
        kind="gauge",
        unit="peers",
        meaning="Peers that are currently probed (targets).",
    ),
    Metric(
        name="nimlab_rtt_discovery_errors_total",
        kind="counter",
        unit="queries",
        labels=("reason",),
        meaning="DNS queries without a usable answer; the last good answer is kept.",
    ),
    Metric(
        name="nimlab_rtt_discovery_success_timestamp_seconds",
        kind="gauge",
        unit="seconds since 1970",
        meaning="Time of the last usable DNS answer; absent before the first.",
    ),
    Metric(
        name="nimlab_rtt_last_success_timestamp_seconds",
        kind="gauge",
        unit="seconds since 1970",
        meaning="Time of the last successful probe; absent before the first.",
    ),
    Metric(
        name="nimlab_rtt_round_duration_seconds",
        kind="gauge",
        unit="seconds",
        meaning="Duration of the last round of probes; absent before the first.",
    ),
    Metric(
        name="nimlab_rtt_rounds_total",
        kind="counter",
        unit="rounds",
        meaning="Completed rounds of probes.",
    ),
    Metric(
        name="nimlab_rtt_rounds_skipped_total",
        kind="counter",
        unit="rounds",
        meaning="Rounds skipped because the previous round was still running.",
    ),
    Metric(
        name="nimlab_rtt_echo_requests_total",
        kind="counter",
        unit="requests",
        labels=("method", "treatment"),
        meaning="Connections and datagrams received at the echo port.",
    ),
    Metric(
        name="nimlab_rtt_method_usable",
        kind="gauge",
        unit="0 or 1",
        labels=("method",),
        meaning="1 if a configured method works in this pod, 0 if the pod is not permitted to use it.",
    ),
    Metric(
        name="nimlab_rtt_exporter_info",
        kind="gauge",
        unit="always 1",
        labels=("version",),
        meaning="The exporter's version.",
    ),
)

Labels = tuple[str, ...]  # label values, in the order of the metric's label names


@dataclass(slots=True)
class _Histogram:
    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    total: float = 0.0


class Registry(Collector):
    """The values of all metrics. An unknown metric name is a bug and raises KeyError."""

    def __init__(self) -> None:
        self._numbers: dict[str, dict[Labels, float]] = {
            metric.name: {} for metric in CATALOG if metric.kind != "histogram"
        }
        self._histograms: dict[str, dict[Labels, _Histogram]] = {
            metric.name: {} for metric in CATALOG if metric.kind == "histogram"
        }

    def add(self, name: str, amount: float, *labels: str) -> None:
        """Add to a counter. Adding 0 creates the series."""
        series = self._numbers[name]
        series[labels] = series.get(labels, 0) + amount

    def put(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge."""
        self._numbers[name][labels] = value

    def put_all(self, name: str, series: Mapping[Labels, float]) -> None:
        """Replace all series of a gauge."""
        self._numbers[name] = dict(series)

    def open_histogram(self, name: str, *labels: str) -> None:
        """Create an empty histogram series, so that it is exposed before the first observation."""
        self._histograms[name].setdefault(labels, _Histogram())

    def observe(self, name: str, value: float, *labels: str) -> None:
        """Add one value to a histogram."""
        histogram = self._histograms[name].setdefault(labels, _Histogram())
        histogram.counts[bisect_left(BUCKETS_S, value)] += 1
        histogram.total += value

    def expose(self) -> str:
        """Return all metrics as text, in the catalog's order. A metric without series is omitted."""
        return generate_latest(self).decode("utf-8")

    def collect(self) -> Iterator[Family]:
        """Yield each metric that has series, for prometheus_client."""
        for metric in CATALOG:
            family = self._family(metric)
            if family.samples:
                yield family

    def _family(self, metric: Metric) -> Family:
        if metric.kind == "histogram":
            return self._histogram_family(metric)
        family_class = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
        family = family_class(metric.name, metric.meaning, labels=metric.labels)
        for labels, value in sorted(self._numbers[metric.name].items()):
            family.add_metric(labels, value)
        return family

    def _histogram_family(self, metric: Metric) -> Family:
        family = HistogramMetricFamily(metric.name, metric.meaning, labels=metric.labels)
        for labels, histogram in sorted(self._histograms[metric.name].items()):
            bounds = [format_number(bound) for bound in (*BUCKETS_S, math.inf)]
            buckets = [*zip(bounds, accumulate(histogram.counts), strict=True)]
            family.add_metric(labels, buckets, histogram.total)
        return family


def format_number(value: float) -> str:
    """Return a number in the notation of Prometheus. Pure."""
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if math.isnan(value):
        return "NaN"
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(float(value))
