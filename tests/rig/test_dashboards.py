"""Every panel and variable of every dashboard gets data from the real Prometheus, except log panels."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nimlab.files.load import load_lab
from nimlab.render.render_platform import load_platform_templates, render_dashboards
from tests.rig.prometheus_query import NAMESPACE, prometheus
from tests.rig.real_node import NAME
from tests.rig.running_rig import Rig, RigLab, eventually
from tests.support.dashboard_linter import Choice, Query, choices, has_values, queries, without_zeros

CRASHED = "nimp2p-exp-purple-3"  # no other test depends on the restarts of this pod
EXPECTED_VALUES = {
    "experiment": {"purple", "blue"},
    "peer": {f"nimp2p-exp-purple-{i}" for i in range(5)},
    "node": {NAME},
}


@pytest.fixture(scope="module")
def dashboards(platform: RigLab) -> Sequence[Mapping[str, Any]]:
    """Return the provisioned dashboards."""
    return render_dashboards(load_platform_templates(platform.root), load_lab(platform.root, {}))


@pytest.fixture(scope="module")
def prometheus_queries(dashboards: Sequence[Mapping[str, Any]]) -> list[Query]:
    """Return the dashboards' queries to Prometheus for purple."""
    all_queries = queries(dashboards, experiment="purple", peer=".+", node=".+")
    return [query for query in all_queries if query.source == "prometheus"]


@pytest.fixture(scope="module")
def restarts_before(prometheus_queries: list[Query], rig: Rig) -> float:
    """Return the number of purple's restarts, then crash one peer of purple.

    Go's runtime logs "SIGBUS: bus error" for the signal, and exits with code 2.
    """
    before = eventually(
        lambda: restarts_of_purple(prometheus_queries, rig), within_s=60, what="restarts are counted"
    )
    (process,) = processes_of(rig, CRASHED, "nimp2p")
    os.kill(process, signal.SIGBUS)
    return before


def processes_of(rig: Rig, pod: str, container: str) -> list[int]:
    """Return the pids, on the node, of the processes in one of purple's containers."""
    (status,) = [p["status"] for p in rig.pods(NAMESPACE, "purple") if p["metadata"]["name"] == pod]
    (name,) = [c["containerID"] for c in status["containerStatuses"] if c["name"] == container]
    pids = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError):  # the process has ended
            if (
                folder.name.isdigit()
                and name.removeprefix("containerd://") in (folder / "cgroup").read_text()
            ):
                pids.append(int(folder.name))
    return pids


def result_of(rig: Rig, query: Query) -> list[Any]:
    """Return the current result of a query."""
    result: list[Any] = prometheus(rig, "query", query=query.expression)["result"]
    return result


def restarts_of_purple(prometheus_queries: list[Query], rig: Rig) -> float | None:
    """Return the value of the panel `Restarts` in purple's dashboard; None while the panel has no data."""
    (query,) = [q for q in prometheus_queries if (q.dashboard, q.panel) == ("lab-experiment", "Restarts")]
    result = result_of(rig, query)
    return float(result[0]["value"][1]) if result else None


@pytest.mark.usefixtures("restarts_before")
def test_every_panel_has_data(
    prometheus_queries: list[Query], rig: Rig, figure: Callable[[str], None]
) -> None:
    empty = [replace(query, expression=without_zeros(query.expression)) for query in prometheus_queries]
    zeros = len(set(prometheus_queries) - set(empty))

    def all_have_data() -> bool | None:
        empty[:] = [query for query in empty if not has_values(result_of(rig, query))]
        return None if empty else True

    try:
        eventually(all_have_data, within_s=120, what="every panel has data")
    except AssertionError:
        pytest.fail("\n".join(f"{q.dashboard}/{q.panel} has no data: {q.expression}" for q in empty))
    panels = {(query.dashboard, query.panel) for query in prometheus_queries}
    figure(
        f"rig: all {len(panels)} panels of metrics have data, from {len(prometheus_queries)} queries, "
        f"{zeros} of them sent without their default zeros; no exception"
    )


def test_a_restarted_container_is_counted(
    prometheus_queries: list[Query], restarts_before: float, rig: Rig, figure: Callable[[str], None]
) -> None:
    eventually(
        lambda: True if restarts_of_purple(prometheus_queries, rig) == restarts_before + 1 else None,
        within_s=60,
        what=f"one restart more than {restarts_before:.0f}",
    )
    (query,) = [q for q in prometheus_queries if (q.dashboard, q.panel) == ("lab-kubernetes", "Restarts")]
    (value,) = [s["value"][1] for s in result_of(rig, query) if s["metric"]["pod"] == CRASHED]
    assert float(value) >= 1
    figure(f"rig: a crashed peer adds one restart; the total is {restarts_before + 1:.0f}")


def test_every_variable_offers_all_existing_values(dashboards: Sequence[Mapping[str, Any]], rig: Rig) -> None:
    for choice in choices(dashboards, experiment="purple"):

        def offered(choice: Choice = choice) -> set[str] | None:
            values = set(prometheus(rig, f"label/{choice.label}/values", **{"match[]": choice.selector}))
            return values if values >= EXPECTED_VALUES[choice.variable] else None

        values = eventually(offered, within_s=60, what=f"{choice.dashboard} offers each {choice.variable}")
        if choice.variable == "peer":
            assert all(name.startswith("nimp2p-exp-purple-") for name in values), choice


def test_an_experiments_dashboard_shows_only_its_own_series(
    prometheus_queries: list[Query], rig: Rig
) -> None:
    for query in prometheus_queries:
        if query.dashboard == "lab-experiment":
            for series in result_of(rig, query):
                labels = series.get("metric") or {}
                assert labels.get("experiment", "purple") == "purple", query
                for name in ("pod", "peer"):
                    assert labels.get(name, "nimp2p-exp-purple-").startswith("nimp2p-exp-purple-"), query
