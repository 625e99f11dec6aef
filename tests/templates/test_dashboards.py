"""The linter finds no errors in the dashboards, and finds each error that a test adds."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from nimlab.agents.rtt.metrics import CATALOG
from nimlab.files.load import load_lab
from nimlab.render.render_platform import load_platform_templates, render_dashboards, render_platform
from tests.support.dashboard_linter import (
    SOURCES,
    choices,
    has_values,
    lint,
    panels_of,
    queries,
    without_zeros,
)
from tests.support.exposed_metrics import CADVISOR, NODE_EXPORTER
from tests.support.paths import SAMPLE_LAB

FILES = load_lab(SAMPLE_LAB, {})
TEMPLATES = load_platform_templates(SAMPLE_LAB)
SHIPPED = [dict(board) for board in render_dashboards(TEMPLATES, FILES)]
METRICS = {
    "up",
    "scrape_duration_seconds",
    *CADVISOR,
    *NODE_EXPORTER,
    *FILES.contracts["nimp2p"].metrics,
    *(metric.name for metric in CATALOG),
    *(f"{metric.name}_bucket" for metric in CATALOG if metric.kind == "histogram"),
}


def test_the_shipped_dashboards_have_no_faults() -> None:
    assert lint(SHIPPED, METRICS) == []
    assert {board["uid"] for board in SHIPPED} == {
        "lab-overview", "lab-experiment", "lab-nodes", "lab-kubernetes", "lab-logs",
    }  # fmt: skip


def test_the_same_files_give_the_same_bytes() -> None:
    again = render_dashboards(load_platform_templates(SAMPLE_LAB), load_lab(SAMPLE_LAB, {}))
    assert json.dumps(again) == json.dumps(SHIPPED)


# For each subject: the dashboard, a text that the queries contain, and the titles of the required panels.
SUBJECTS = {
    "peers": ("lab-experiment", "up{", ["Peers that answer", "Peers that do not answer"]),
    "mesh": ("lab-experiment", "libp2p_gossipsub_peers_per_topic_mesh", ["Smallest mesh", "Mesh degree"]),
    "message rate": ("lab-experiment", "libp2p_pubsub_messages_published_total", ["Published"]),
    "messages that arrive": ("lab-experiment", "libp2p_gossipsub_received_total", ["Delivered"]),
    "delivery delay from logs": (
        "lab-experiment",
        "| unwrap ms",
        ["Delay", "Median delay by receiver", "Worst delay by receiver"],
    ),
    "duplicates": ("lab-experiment", "libp2p_gossipsub_duplicate_total", ["Duplicates"]),
    "CPU against its limit": ("lab-experiment", "container_spec_cpu_quota", ["CPU"]),
    "memory against its limit": ("lab-experiment", "container_spec_memory_limit_bytes", ["Memory"]),
    "bandwidth, down": ("lab-experiment", "container_network_receive_bytes_total", ["Down"]),
    "bandwidth, up": ("lab-experiment", "container_network_transmit_bytes_total", ["Up"]),
    "round trips": ("lab-experiment", "nimlab_rtt_seconds_bucket", ["Round-trip time", "Round-trip times"]),
    "loss": ("lab-experiment", "nimlab_rtt_peer_loss_ratio", ["Loss towards a peer"]),
    "errors in logs": ("lab-experiment", "(err|error|", ["Errors in logs", "Errors"]),
    "side by side": ("lab-overview", "by (experiment", ["Experiments", "Peers", "Round-trip time", "Loss"]),
    "what measures": ("lab-overview", "by (job)", ["Targets that do not answer", "Duration of a scrape"]),
    "machines": ("lab-nodes", "node_", ["CPU", "Memory", "Space used", "Down", "Up", "Clock"]),
    "pods": ("lab-kubernetes", "container_", ["Pods by node", "Restarts", "Network"]),
    "shares of the cluster": ("lab-kubernetes", "/ scalar(sum(machine_", ["CPU", "Memory"]),
    "logs": ("lab-logs", '{experiment="$experiment"', ["Lines", "Errors", "All lines"]),
}  # fmt: skip


@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_required_panel_exists(subject: str) -> None:
    uid, expected, titles = SUBJECTS[subject]
    for title in titles:
        panels = [panel for panel in panels_of(board(uid, SHIPPED)) if panel["title"] == title]
        assert any(expected in target["expr"] for panel in panels for target in panel["targets"]), title


def test_a_variable_is_the_same_in_every_dashboard() -> None:
    variables: dict[str, Any] = {}
    for board in SHIPPED:
        names = [variable["name"] for variable in board["templating"]["list"]]
        assert names == [name for name in ("experiment", "peer", "node") if name in names]
        for variable in board["templating"]["list"]:
            assert variables.setdefault(variable["name"], variable) == variable


def test_configmaps_contain_the_dashboards_and_the_data_sources() -> None:
    manifests = {
        m["metadata"]["name"]: m for m in render_platform(TEMPLATES, FILES) if m["kind"] == "ConfigMap"
    }
    mounted = manifests["lab-grafana-dashboards"]["data"]
    assert [json.loads(text)["uid"] for text in mounted.values()] == [
        name.removesuffix(".json") for name in mounted
    ]
    assert {json.loads(text)["uid"] for text in mounted.values()} == {board["uid"] for board in SHIPPED}
    assert sum(len(text) for text in mounted.values()) < 1_000_000, "a ConfigMap can contain at most 1 MiB"
    sources = manifests["lab-grafana-config"]["data"]["datasources.yaml"]
    for uid in SOURCES.values():
        assert f"uid: {uid}" in sources


def test_variables_in_queries_are_replaced() -> None:
    all_queries = list(queries(SHIPPED, experiment="purple", peer=".+", node=".+"))
    assert len(all_queries) == sum(len(panel["targets"]) for board in SHIPPED for panel in panels_of(board))
    assert not any("$" in query.expression for query in all_queries)
    with pytest.raises(KeyError):
        list(queries(SHIPPED, experiment="purple"))


def test_variables_in_choices_are_replaced() -> None:
    all_choices = {
        (choice.dashboard, choice.variable): choice for choice in choices(SHIPPED, experiment="purple")
    }
    assert len(all_choices) == sum(len(board["templating"]["list"]) for board in SHIPPED)
    peer = all_choices["lab-experiment", "peer"]
    assert (peer.selector, peer.label) == ('container_memory_working_set_bytes{experiment="purple"}', "pod")
    with pytest.raises(KeyError):
        list(choices(SHIPPED))


def test_response_without_a_number_or_a_line_has_no_values() -> None:
    no_number: dict[str, Any] = {"metric": {}, "value": [0, "NaN"]}
    assert not has_values([])
    assert not has_values([no_number, {"stream": {}, "values": []}])
    assert has_values([no_number, {"metric": {}, "value": [0, "0"]}])
    assert has_values([{"stream": {}, "values": [["0", "a line"]]}])


def test_added_zeros_are_removed_from_queries() -> None:
    zeros = [q for q in queries(SHIPPED, experiment="purple", peer=".+", node=".+") if " or " in q.expression]
    assert {(q.dashboard, q.panel) for q in zeros} == {
        ("lab-experiment", "Errors in logs"), ("lab-experiment", "Errors"),
        ("lab-overview", "Errors in logs"), ("lab-logs", "Errors"),
    }  # fmt: skip
    for zero_query in zeros:
        without_zero_part = without_zeros(zero_query.expression)
        assert zero_query.expression.startswith(f"{without_zero_part} or ")
        assert without_zero_part.endswith("))")
        assert " or " not in without_zero_part


def board(uid: str, boards: list[Any]) -> Any:
    """Return the dashboard with this UID."""
    return next(board for board in boards if board["uid"] == uid)


def panel(boards: list[Any], uid: str = "lab-experiment", title: str = "Published") -> Any:
    """Return the panel with this title."""
    return next(panel for panel in panels_of(board(uid, boards)) if panel["title"] == title)


def query(boards: list[Any], expression: str) -> None:
    """Replace the query of a panel in the experiment's dashboard."""
    panel(boards)["targets"][0]["expr"] = expression


def variable(boards: list[Any], name: str, expression: str) -> None:
    """Replace the query of a variable in the experiment's dashboard."""
    variables = board("lab-experiment", boards)["templating"]["list"]
    next(item for item in variables if item["name"] == name)["query"]["query"] = expression


def log_query(boards: list[Any], expression: str) -> None:
    """Replace the Loki query of a panel in the experiment's dashboard."""
    panel(boards, title="Lines")["targets"][0]["expr"] = expression


MINE = '{experiment="$experiment"}'
LINES = f"count_over_time({MINE} [1m])"
ANSWERED = 'sum(rate(nimlab_rtt_probes_total{result="success"}[1m]))'
PROBES = f"sum(rate(nimlab_rtt_probes_total{MINE}[1m]))"
FAULTS: dict[str, tuple[Callable[[list[Any]], object], str]] = {
    "uid": (lambda bs: bs.append({**bs[0], "title": "other"}), "duplicate uid `lab-experiment`"),
    "title": (lambda bs: bs.append({**bs[0], "uid": "other"}), "duplicate title `Experiment`"),
    "long-uid": (lambda bs: bs[0].update(uid="u" * 41), "the uid is longer than 40"),
    "no-title": (lambda bs: bs[0].update(title=""), "title, description or uid is missing"),
    "id": (lambda bs: panel(bs).update(id=1), "duplicate panel id 1"),
    "wide": (lambda bs: panel(bs)["gridPos"].update(w=25), "beyond 24 columns"),
    "over": (lambda bs: panel(bs)["gridPos"].update(y=0), "covers panel"),
    "description": (lambda bs: panel(bs).update(description="none"), "the description does not end"),
    "unit": (lambda bs: panel(bs)["fieldConfig"]["defaults"].pop("unit"), "the unit is missing"),
    "silent": (lambda bs: panel(bs)["targets"].clear(), "has no queries"),
    "ref": (lambda bs: panel(bs)["targets"].append(panel(bs)["targets"][0]), "the same refId"),
    "source": (lambda bs: panel(bs)["targets"][0].update(datasource={"type": "a", "uid": "x"}), "not a data"),
    "variable": (lambda bs: query(bs, 'up{experiment="$experiment", pod="$pod"}'), "`$pod` is not defined"),
    "variable-source": (
        lambda bs: board("lab-nodes", bs)["templating"]["list"][0]["datasource"].update(uid="x"),
        "its data source is not",
    ),
    "syntax": (lambda bs: query(bs, f"sum(up{MINE}"), "cannot be parsed"),
    "unknown": (lambda bs: query(bs, f"libp2p_pears{MINE}"), "`libp2p_pears`"),
    "everybody": (lambda bs: query(bs, "sum(libp2p_peers)"), "not limited to the chosen experiment"),
    "other": (lambda bs: query(bs, 'libp2p_peers{experiment="blue"}'), "to the chosen experiment"),
    "half": (lambda bs: query(bs, f"libp2p_peers{MINE} / libp2p_peers"), "to the chosen experiment"),
    "but": (
        lambda bs: query(bs, 'libp2p_peers{experiment!="$experiment"}'),
        "is not limited to the chosen experiment",
    ),
    "within": (lambda bs: query(bs, "max_over_time(sum(libp2p_peers)[5m:])"), "to the chosen experiment"),
    "cadvisor": (lambda bs: query(bs, f"container_memory_working_bytes{MINE}"), "no program exposes"),
    "node-exporter": (
        lambda bs: panel(bs, "lab-nodes", "CPU")["targets"][0].update(expr='node_load2{node=~"$node"}'),
        "no program exposes the metric `node_load2`",
    ),
    "restarts": (
        lambda bs: query(bs, f"sum(changes(container_start_time_seconds{MINE}[$__range]))"),
        "never changes",
    ),
    "exporter's": (
        lambda bs: panel(bs, "lab-overview", "Loss")["targets"][0].update(
            expr=f"1 - {ANSWERED} / sum(rate(nimlab_rtt_probes_total[1m]))"
        ),
        "local errors of the exporter",
    ),
    "exporter's-own": (
        lambda bs: panel(bs, title="Loss towards a peer")["targets"][0].update(expr=f"{PROBES} / {PROBES}"),
        "local errors of the exporter",
    ),
    "variable-form": (lambda bs: variable(bs, "peer", f"query_result(up{MINE})"), "is not `label_values("),
    "variable-metric": (
        lambda bs: variable(bs, "experiment", "label_values(container_memory_workingset_bytes, experiment)"),
        "variable `experiment`: no program exposes",
    ),
    "variable-syntax": (
        lambda bs: variable(bs, "experiment", 'label_values(up{experiment!=""), experiment)'),
        "variable `experiment`: the query cannot be parsed",
    ),
    "variable-label": (
        lambda bs: variable(bs, "peer", f"label_values(up{MINE}, pods)"),
        "no series has a label `pods`",
    ),
    "variable-everybody": (
        lambda bs: variable(bs, "peer", "label_values(container_memory_working_set_bytes, pod)"),
        "variable `peer`: `container_memory_working_set_bytes` is not limited to the chosen experiment",
    ),
    "variable-later": (
        lambda bs: variable(bs, "experiment", 'label_values(up{pod=~"$peer"}, experiment)'),
        "variable `experiment`: `$peer` is not defined",
    ),
    "hidden": (lambda bs: query(bs, f"sum(libp2p_peers{MINE}) or sum(up{MINE})"), "hide an empty result"),
    "hidden-logs": (lambda bs: log_query(bs, f"sum({LINES}) or sum({LINES})"), "hide an empty result"),
    "nameless": (lambda bs: log_query(bs, f"sum by (pod) ({LINES}) or vector(0)"), "zeros have other labels"),
    "named": (
        lambda bs: log_query(bs, f"sum by (pod) ({LINES}) or sum by (container) ({LINES}) * 0"),
        "zeros have other labels",
    ),
    "counter": (lambda bs: query(bs, f"libp2p_gossipsub_received_total{MINE}"), "must be a counter"),
    "gauge": (lambda bs: query(bs, f"rate(libp2p_peers{MINE}[1m])"), "must be a counter"),
    "logs": (
        lambda bs: log_query(bs, 'sum(rate({pod=~"$peer"}[1m]))'),
        "is not limited to the experiment",
    ),
    "no-logs": (lambda bs: log_query(bs, "vector(0)"), "selects no log"),
    "node": (lambda bs: panel(bs, "lab-nodes", "CPU")["targets"][0].update(expr="node_load1"), "chosen node"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_linter_finds_each_error(name: str) -> None:
    change, expected = FAULTS[name]
    boards = copy.deepcopy(SHIPPED)
    change(boards)
    assert any(expected in what for what in lint(boards, METRICS))
