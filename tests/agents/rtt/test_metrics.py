from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimlab.agents.rtt.metrics import BUCKETS_S, CATALOG, Registry, format_number
from tests.agents.rtt.exposition import read_exposition


def test_an_empty_registry_gives_no_text() -> None:
    assert Registry().expose() == ""


def test_counters_and_gauges_are_exposed_in_the_catalogs_order() -> None:
    registry = Registry()
    registry.add("nimlab_rtt_probes_total", 0, "tcp", "error")
    registry.add("nimlab_rtt_probes_total", 2, "tcp", "success")
    registry.put("nimlab_rtt_peer_last_seconds", 0.000123, 'p"0\\1\n2', "tcp")
    registry.put("nimlab_rtt_peers_discovered", 4)
    assert registry.expose() == (
        "# HELP nimlab_rtt_probes_total Probes that have ended, by result.\n"
        "# TYPE nimlab_rtt_probes_total counter\n"
        'nimlab_rtt_probes_total{method="tcp",result="error"} 0.0\n'
        'nimlab_rtt_probes_total{method="tcp",result="success"} 2.0\n'
        "# HELP nimlab_rtt_peer_last_seconds "
        "Latest round-trip time to a target; absent if no probe in the window succeeded.\n"
        "# TYPE nimlab_rtt_peer_last_seconds gauge\n"
        'nimlab_rtt_peer_last_seconds{method="tcp",peer="p\\"0\\\\1\\n2"} 0.000123\n'
        "# HELP nimlab_rtt_peers_discovered Other peers of the experiment in the last usable DNS answer.\n"
        "# TYPE nimlab_rtt_peers_discovered gauge\n"
        "nimlab_rtt_peers_discovered 4.0\n"
    )


def test_a_histogram_accumulates_its_buckets() -> None:
    registry = Registry()
    for rtt_s in (0.0001, 0.00011, 0.5, 100.0):
        registry.observe("nimlab_rtt_seconds", rtt_s, "udp")
    read = read_exposition(registry.expose())

    def bucket(le: str) -> float:
        return read.value("nimlab_rtt_seconds_bucket", method="udp", le=le)

    assert [bucket(le) for le in ("0.0001", "0.0002", "0.4096", "0.8192", "3.2768", "+Inf")] == [
        1,
        2,
        2,
        3,
        3,
        4,
    ]
    assert read.value("nimlab_rtt_seconds_count", method="udp") == 4
    assert read.value("nimlab_rtt_seconds_sum", method="udp") == pytest.approx(100.50021)


def test_the_buckets_are_round_numbers() -> None:
    assert len(BUCKETS_S) == 16
    assert all(re.fullmatch(r"[0-9]\.[0-9]{1,4}", format_number(bound)) for bound in BUCKETS_S)


def test_a_histogram_is_exposed_before_its_first_observation() -> None:
    registry = Registry()
    registry.open_histogram("nimlab_rtt_seconds", "tcp")
    assert read_exposition(registry.expose()).value("nimlab_rtt_seconds_count", method="tcp") == 0


def test_put_all_removes_the_other_series() -> None:
    registry = Registry()
    registry.put("nimlab_rtt_peer_loss_ratio", 1, "removed", "tcp")
    registry.put_all("nimlab_rtt_peer_loss_ratio", {("here", "tcp"): 0})
    assert read_exposition(registry.expose()).labels_of("nimlab_rtt_peer_loss_ratio", "peer") == {"here"}


def test_a_name_outside_the_catalog_is_a_bug() -> None:
    with pytest.raises(KeyError):
        Registry().add("nimlab_rtt_other_total", 1)


@given(st.dictionaries(st.tuples(st.text(), st.text()), st.floats(allow_nan=False), min_size=1, max_size=5))
def test_any_labels_and_numbers_are_read_back_unchanged(series: dict[tuple[str, ...], float]) -> None:
    registry = Registry()
    registry.put_all("nimlab_rtt_peer_last_seconds", series)
    read = read_exposition(registry.expose())
    assert read.samples == {
        ("nimlab_rtt_peer_last_seconds", frozenset({("peer", peer), ("method", method)})): value
        for (peer, method), value in series.items()
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1.0, "1"), (0.1, "0.1"), (1.79e9, "1790000000"), (1e300, "1e+300"), (math.inf, "+Inf"),
     (-math.inf, "-Inf"), (math.nan, "NaN"), (-2.5, "-2.5")],
)  # fmt: skip
def test_numbers_are_formatted(value: float, text: str) -> None:
    assert format_number(value) == text


def test_names_follow_prometheus_conventions() -> None:
    for metric in CATALOG:
        assert metric.name.startswith("nimlab_rtt_")
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.name.endswith("_seconds") == metric.unit.startswith("seconds")
        assert metric.name.endswith("_ratio") == metric.unit.startswith("ratio")
        assert not {"experiment", "pod", "namespace", "node", "instance", "job", "le"} & {*metric.labels}
