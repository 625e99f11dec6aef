"""docs/rtt.md describes every metric, setting, result and reason as the code defines them."""

from __future__ import annotations

import re

import pytest

from nimlab.agents.rtt.config import SETTINGS
from nimlab.agents.rtt.dns import Reason
from nimlab.agents.rtt.echo import Treatment
from nimlab.agents.rtt.metric_recorder import MetricRecorder
from nimlab.agents.rtt.metrics import BUCKETS_S, CATALOG, format_number
from nimlab.agents.rtt.outcome import Method, Outcome, Result
from nimlab.agents.rtt.peer_window import PeerWindow
from nimlab.agents.rtt.peers import SERVICE_PORT_NAME
from nimlab.agents.rtt.rounds import Probe
from tests.agents.rtt.exposition import read_exposition
from tests.support.paths import REPOSITORY

NOTHING = "\u2013"
TEXT = (REPOSITORY / "docs/rtt.md").read_text(encoding="utf-8")
FLOWING = " ".join(TEXT.split())


def table_after(heading: str) -> list[list[str]]:
    """Return the cells of the first table whose header starts with `heading`, without the header."""
    lines = iter(TEXT.splitlines())
    for line in lines:
        if line.startswith(heading):
            break
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    assert rows, f"no table {heading}"
    return rows[1:]


def test_every_metric_is_documented() -> None:
    assert table_after("| metric |") == [
        [
            f"`{metric.name}`",
            metric.kind,
            metric.unit,
            ", ".join(f"`{label}`" for label in metric.labels) or NOTHING,
            metric.meaning,
        ]
        for metric in CATALOG
    ]


def test_every_setting_is_documented() -> None:
    assert table_after("| variable |") == [
        [
            f"`{setting.variable}`",
            "required" if setting.default is None else f"`{setting.default}`",
            setting.meaning,
        ]
        for setting in SETTINGS
    ]


def test_every_result_and_method_is_documented() -> None:
    assert [row[0] for row in table_after("| result |")] == [f"`{result.value}`" for result in Result]
    methods = [row[0] for row in table_after("| method |")]
    assert [re.findall(r"`(\w+)`", cell)[0] for cell in methods] == [method.value for method in Method]


def test_values_of_labels_and_the_buckets_are_listed() -> None:
    reasons = ", ".join(f"`{reason.value}`" for reason in Reason)
    treatments = ", ".join(f"`{treatment.value}`" for treatment in Treatment)
    buckets = ", ".join(format_number(bound) for bound in BUCKETS_S)
    assert f"Values of `reason`: {reasons}." in FLOWING
    assert f"Values of `treatment`: {treatments}." in FLOWING
    assert f"in seconds: {buckets}." in FLOWING


def test_documented_ports_are_the_defaults() -> None:
    ports = {setting.variable: setting.default for setting in SETTINGS if setting.variable.endswith("_PORT")}
    rows = {(row[0], row[1]): row[2] for row in table_after("| port |")}
    assert {port for port, _ in rows} == {ports["METRICS_PORT"], ports["ECHO_PORT"]}
    assert rows[str(ports["ECHO_PORT"]), "TCP"] == f"`{SERVICE_PORT_NAME}`"


def test_the_documented_number_of_series_is_right() -> None:
    recorder = MetricRecorder(PeerWindow(window_probes=12, linger_s=60, max_peers=16), version="1")
    recorder.note_method(Method.TCP, usable=True)
    counted = []
    for turn in range(2):
        names = [f"p-{turn}-{n}" for n in range(8)]
        recorder.note_targets(names, discovered=100, now_s=0, wall_s=0)
        for name in names:
            outcome = Outcome(result=Result.SUCCESS, rtt_s=0.001, kernel_timed=True)
            recorder.count_probe(Probe(peer=name, method=Method.TCP, outcome=outcome), wall_s=0)
        recorder.count_round(duration_s=0.1, skipped=0)
        counted.append(len(read_exposition(recorder.expose(now_s=0)).samples))
    assert (
        f"With one method and eight targets, each pod has {counted[0]} series. "
        f"With eight further peers whose series linger, it has at most {counted[1]}."
    ) in FLOWING


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\bnimlab_rtt_\w+", TEXT))))
def test_every_documented_metric_exists(name: str) -> None:
    assert name.removesuffix("_bucket") in {metric.name for metric in CATALOG}


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([A-Z][A-Z_]{3,})`", TEXT)) - {"TCP_INFO"}))
def test_every_documented_setting_exists(name: str) -> None:
    assert name in {setting.variable for setting in SETTINGS}
