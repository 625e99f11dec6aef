from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from nimlab.agents.rtt.dns import Reason
from nimlab.agents.rtt.echo import Treatment
from nimlab.agents.rtt.metric_recorder import MetricRecorder
from nimlab.agents.rtt.metrics import CATALOG
from nimlab.agents.rtt.outcome import Method, Outcome, Result
from nimlab.agents.rtt.peer_window import PeerWindow
from nimlab.agents.rtt.rounds import Probe
from tests.agents.rtt.exposition import read_exposition


@pytest.fixture
def recorder() -> MetricRecorder:
    return MetricRecorder(PeerWindow(window_probes=4, linger_s=60, max_peers=16), version="1.2.3")


def a_probe(
    result: Result, rtt_s: float | None = None, *, kernel_timed: bool = True, peer: str = "p"
) -> Probe:
    outcome = Outcome(result=result, rtt_s=rtt_s, kernel_timed=kernel_timed and rtt_s is not None)
    return Probe(peer=peer, method=Method.TCP, outcome=outcome)


def fill(recorder: MetricRecorder) -> None:
    """Record every kind of event once."""
    recorder.note_method(Method.TCP, usable=True)
    recorder.note_method(Method.ICMP, usable=False)
    recorder.note_targets(["p"], discovered=5, now_s=0, wall_s=1790000000.1234)
    recorder.count_probe(a_probe(Result.SUCCESS, 0.002), wall_s=1790000001)
    recorder.count_probe(a_probe(Result.SUCCESS, 0.004, kernel_timed=False), wall_s=1790000002)
    recorder.count_probe(a_probe(Result.TIMEOUT), wall_s=1790000003)
    recorder.count_round(duration_s=0.08, skipped=2)
    recorder.count_failure(Reason.TIMEOUT)
    recorder.count_echo(Method.UDP, Treatment.IGNORED)


def test_every_kind_of_event_is_counted(recorder: MetricRecorder) -> None:
    fill(recorder)
    read = read_exposition(recorder.expose(now_s=1))
    expected: dict[tuple[str, frozenset[tuple[str, str]]], float] = {
        (name, frozenset(labels.items())): value
        for name, labels, value in [
            ("nimlab_rtt_probes_total", {"method": "tcp", "result": "success"}, 2),
            ("nimlab_rtt_probes_total", {"method": "tcp", "result": "timeout"}, 1),
            ("nimlab_rtt_process_timed_total", {"method": "tcp"}, 1),
            ("nimlab_rtt_seconds_count", {"method": "tcp"}, 2),
            ("nimlab_rtt_seconds_sum", {"method": "tcp"}, 0.006),
            ("nimlab_rtt_peer_last_seconds", {"method": "tcp", "peer": "p"}, 0.004),
            ("nimlab_rtt_peer_min_seconds", {"method": "tcp", "peer": "p"}, 0.002),
            ("nimlab_rtt_peer_loss_ratio", {"method": "tcp", "peer": "p"}, 1 - 2 / 3),
            ("nimlab_rtt_peers_discovered", {}, 5),
            ("nimlab_rtt_peers_sampled", {}, 1),
            ("nimlab_rtt_discovery_errors_total", {"reason": "timeout"}, 1),
            ("nimlab_rtt_discovery_success_timestamp_seconds", {}, 1790000000.123),
            ("nimlab_rtt_last_success_timestamp_seconds", {}, 1790000002),
            ("nimlab_rtt_round_duration_seconds", {}, 0.08),
            ("nimlab_rtt_rounds_total", {}, 1),
            ("nimlab_rtt_rounds_skipped_total", {}, 2),
            ("nimlab_rtt_echo_requests_total", {"method": "udp", "treatment": "ignored"}, 1),
            ("nimlab_rtt_method_usable", {"method": "tcp"}, 1),
            ("nimlab_rtt_method_usable", {"method": "icmp"}, 0),
            ("nimlab_rtt_exporter_info", {"version": "1.2.3"}, 1),
        ]
    }
    rest = {
        key: value
        for key, value in read.samples.items()
        if key not in expected and not key[0].endswith("_bucket")
    }
    assert {key: read.samples[key] for key in expected} == expected
    assert set(rest.values()) == {0}


def test_every_metric_is_exposed_as_in_the_catalog(recorder: MetricRecorder) -> None:
    fill(recorder)
    read = read_exposition(recorder.expose(now_s=1))
    assert read.types == {metric.name: metric.kind for metric in CATALOG}
    for metric in CATALOG:
        sample = metric.name + ("_count" if metric.kind == "histogram" else "")
        shown = {frozenset(key for key, _ in labels) for name, labels in read.samples if name == sample}
        assert shown == {frozenset(metric.labels)}


def test_the_parser_of_prometheus_client_reads_the_same_numbers(recorder: MetricRecorder) -> None:
    """The parser of prometheus_client returns the same types, help texts and samples as the tests' parser."""
    fill(recorder)
    text = recorder.expose(now_s=1)
    expected = read_exposition(text)
    families = [*text_string_to_metric_families(text)]
    samples = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }
    assert samples == expected.samples
    assert [family.type for family in families] == [metric.kind for metric in CATALOG]
    assert [family.name for family in families] == [metric.name.removesuffix("_total") for metric in CATALOG]
    assert [family.documentation for family in families] == [metric.meaning for metric in CATALOG]


def test_counters_exist_before_the_first_event(recorder: MetricRecorder) -> None:
    recorder.note_method(Method.TCP, usable=True)
    read = read_exposition(recorder.expose(now_s=0))
    for metric in CATALOG:
        if metric.kind != "gauge":
            assert metric.name in read.types
    assert read.labels_of("nimlab_rtt_probes_total", "result") == {result.value for result in Result}
    assert read.labels_of("nimlab_rtt_discovery_errors_total", "reason") == {
        reason.value for reason in Reason
    }


def test_an_unusable_method_has_no_probes(recorder: MetricRecorder) -> None:
    recorder.note_method(Method.ICMP, usable=False)
    assert "nimlab_rtt_probes_total" not in read_exposition(recorder.expose(now_s=0)).types


def test_a_removed_peer_is_exposed_for_the_linger_time(recorder: MetricRecorder) -> None:
    fill(recorder)
    recorder.note_targets([], discovered=0, now_s=10, wall_s=0)
    assert read_exposition(recorder.expose(now_s=69)).labels_of("nimlab_rtt_peer_loss_ratio", "peer") == {"p"}
    remaining = read_exposition(recorder.expose(now_s=70))
    assert not [key for key in remaining.samples if key[0].startswith("nimlab_rtt_peer_")]


def test_the_default_settings_give_few_series(recorder: MetricRecorder) -> None:
    recorder = MetricRecorder(PeerWindow(window_probes=12, linger_s=60, max_peers=16), version="1")
    recorder.note_method(Method.TCP, usable=True)
    for turn in range(5):
        recorder.note_targets([f"p-{turn}-{n}" for n in range(8)], discovered=100, now_s=turn, wall_s=0)
        for n in range(8):
            recorder.count_probe(a_probe(Result.SUCCESS, 0.001, peer=f"p-{turn}-{n}"), wall_s=0)
    recorder.count_round(duration_s=1, skipped=0)
    samples = read_exposition(recorder.expose(now_s=5)).samples
    assert len({dict(labels)["peer"] for _, labels in samples if "peer" in dict(labels)}) == 16
    assert len(samples) <= 100
