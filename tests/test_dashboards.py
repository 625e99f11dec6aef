"""The dashboards: what the linter finds in them, and that it finds what it looks for."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from nimlab.load import load_lab
from nimlab.render.platform import load_platform_templates, render_dashboards, render_platform
from nimlab.rtt.metrics import CATALOG
from tests.dashboards import SOURCES, lint, panels_of, queries
from tests.live import REPOSITORY

FILES = load_lab(REPOSITORY, {})
TEMPLATES = load_platform_templates(REPOSITORY)
SHIPPED = [dict(board) for board in render_dashboards(TEMPLATES, FILES)]

# What no catalog here lists: the names of cAdvisor and node-exporter. The rig asks the real ones for each.
EXPRESSIONS = [
    target["expr"] for board in SHIPPED for panel in panels_of(board) for target in panel["targets"]
]
OTHERS = set(re.findall(r"\b(?:container|machine|node)_[a-zA-Z0-9_]+", " ".join(EXPRESSIONS)))
METRICS = {
    "up",
    "scrape_duration_seconds",
    *OTHERS,
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
    again = render_dashboards(load_platform_templates(REPOSITORY), load_lab(REPOSITORY, {}))
    assert json.dumps(again) == json.dumps(SHIPPED)


def test_a_variable_is_the_same_in_every_dashboard() -> None:
    found: dict[str, Any] = {}
    for board in SHIPPED:
        names = [variable["name"] for variable in board["templating"]["list"]]
        assert names == [name for name in ("experiment", "peer", "node") if name in names]
        for variable in board["templating"]["list"]:
            assert found.setdefault(variable["name"], variable) == variable


def test_grafana_is_given_them_and_their_data_sources() -> None:
    manifests = {
        m["metadata"]["name"]: m for m in render_platform(TEMPLATES, FILES) if m["kind"] == "ConfigMap"
    }
    mounted = manifests["lab-grafana-dashboards"]["data"]
    assert [json.loads(text)["uid"] for text in mounted.values()] == [
        name.removesuffix(".json") for name in mounted
    ]
    assert {json.loads(text)["uid"] for text in mounted.values()} == {board["uid"] for board in SHIPPED}
    assert sum(len(text) for text in mounted.values()) < 1_000_000, "a ConfigMap holds 1 MiB"
    sources = manifests["lab-grafana-config"]["data"]["datasources.yaml"]
    for uid in SOURCES.values():
        assert f"uid: {uid}" in sources


def test_queries_come_with_their_variables_filled_in() -> None:
    found = list(queries(SHIPPED, experiment="purple", peer=".+", node=".+"))
    assert len(found) == sum(len(panel["targets"]) for board in SHIPPED for panel in panels_of(board))
    assert not any("$" in query.expression for query in found)
    with pytest.raises(KeyError):
        list(queries(SHIPPED, experiment="purple"))


def board(uid: str, boards: list[Any]) -> Any:
    """A dashboard by its uid."""
    return next(one for one in boards if one["uid"] == uid)


def panel(boards: list[Any], uid: str = "lab-experiment", title: str = "Published") -> Any:
    """A panel by its title."""
    return next(one for one in panels_of(board(uid, boards)) if one["title"] == title)


def query(boards: list[Any], expression: str) -> None:
    """Let a panel of an experiment ask for something else."""
    panel(boards)["targets"][0]["expr"] = expression


MINE = '{experiment="$experiment"}'
FAULTS: dict[str, tuple[Callable[[list[Any]], object], str]] = {
    "uid": (lambda bs: bs.append({**bs[0], "title": "other"}), "uid `lab-experiment` stands twice"),
    "title": (lambda bs: bs.append({**bs[0], "uid": "other"}), "title `Experiment` stands twice"),
    "long-uid": (lambda bs: bs[0].update(uid="u" * 41), "a short uid"),
    "no-title": (lambda bs: bs[0].update(title=""), "lacks a title"),
    "id": (lambda bs: panel(bs).update(id=1), "panel id 1 stands twice"),
    "wide": (lambda bs: panel(bs)["gridPos"].update(w=25), "beyond 24 columns"),
    "over": (lambda bs: panel(bs)["gridPos"].update(y=0), "covers panel"),
    "description": (lambda bs: panel(bs).update(description="none"), "no description"),
    "unit": (lambda bs: panel(bs)["fieldConfig"]["defaults"].pop("unit"), "no unit"),
    "silent": (lambda bs: panel(bs)["targets"].clear(), "asks for nothing"),
    "ref": (lambda bs: panel(bs)["targets"].append(panel(bs)["targets"][0]), "one refId"),
    "source": (lambda bs: panel(bs)["targets"][0].update(datasource={"type": "a", "uid": "x"}), "none of"),
    "variable": (lambda bs: query(bs, 'up{experiment="$experiment", pod="$pod"}'), "`$pod` is not defined"),
    "variable-source": (
        lambda bs: board("lab-nodes", bs)["templating"]["list"][0]["datasource"].update(uid="x"),
        "isn't asked of",
    ),
    "syntax": (lambda bs: query(bs, f"sum(up{MINE}"), "can't be parsed"),
    "unknown": (lambda bs: query(bs, f"libp2p_pears{MINE}"), "`libp2p_pears`"),
    "everybody": (lambda bs: query(bs, "sum(libp2p_peers)"), "isn't only that of the experiment"),
    "other": (lambda bs: query(bs, 'libp2p_peers{experiment="blue"}'), "isn't only that of the experiment"),
    "half": (lambda bs: query(bs, f"libp2p_peers{MINE} / libp2p_peers"), "isn't only that of the experiment"),
    "counter": (lambda bs: query(bs, f"libp2p_gossipsub_received_total{MINE}"), "is a counter"),
    "gauge": (lambda bs: query(bs, f"rate(libp2p_peers{MINE}[1m])"), "is a counter"),
    "logs": (
        lambda bs: panel(bs, title="Lines")["targets"][0].update(expr='sum(rate({pod=~"$peer"}[1m]))'),
        "isn't the experiment's",
    ),
    "no-logs": (lambda bs: panel(bs, title="Lines")["targets"][0].update(expr="vector(0)"), "selects no log"),
    "node": (lambda bs: panel(bs, "lab-nodes", "CPU")["targets"][0].update(expr="node_load1"), "of the node"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_the_linter_finds(name: str) -> None:
    change, words = FAULTS[name]
    boards = copy.deepcopy(SHIPPED)
    change(boards)
    assert any(words in what for what in lint(boards, METRICS))
