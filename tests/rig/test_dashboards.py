"""Every panel and every variable of every dashboard, asked of the real Prometheus; log panels aside."""

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
from tests.rig.cluster import Rig, RigLab, eventually
from tests.rig.monitoring import NAMESPACE, prometheus
from tests.rig.node import NAME
from tests.support.dashboard_linter import Choice, Query, choices, has_values, queries, without_zeros

CRASHED = "nimp2p-exp-purple-3"  # no other test asks for more than that it is there
OFFERED = {
    "experiment": {"purple", "blue"},
    "peer": {f"nimp2p-exp-purple-{i}" for i in range(5)},
    "node": {NAME},
}


@pytest.fixture(scope="module")
def boards(platform: RigLab) -> Sequence[Mapping[str, Any]]:
    """The provisioned dashboards."""
    return render_dashboards(load_platform_templates(platform.root), load_lab(platform.root, {}))


@pytest.fixture(scope="module")
def asked(boards: Sequence[Mapping[str, Any]]) -> list[Query]:
    """Their queries to Prometheus about purple."""
    found = queries(boards, experiment="purple", peer=".+", node=".+")
    return [query for query in found if query.source == "prometheus"]


@pytest.fixture(scope="module")
def restarts_before(asked: list[Query], rig: Rig) -> float:
    """How many restarts purple had before one of its nodes crashed, which it tells of in its log.

    Go's runtime writes "SIGBUS: bus error" for the signal, and ends with code 2.
    """
    before = eventually(lambda: restarts_of_purple(asked, rig), within_s=60, what="restarts are counted")
    (process,) = processes_of(rig, CRASHED, "nimp2p")
    os.kill(process, signal.SIGBUS)
    return before


def processes_of(rig: Rig, pod: str, container: str) -> list[int]:
    """The processes of a container of purple's, as the node numbers them."""
    (status,) = [p["status"] for p in rig.pods(NAMESPACE, "purple") if p["metadata"]["name"] == pod]
    (name,) = [c["containerID"] for c in status["containerStatuses"] if c["name"] == container]
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError):  # it has ended meanwhile
            if (
                folder.name.isdigit()
                and name.removeprefix("containerd://") in (folder / "cgroup").read_text()
            ):
                found.append(int(folder.name))
    return found


def answer_to(rig: Rig, query: Query) -> list[Any]:
    """What a query gives now."""
    found: list[Any] = prometheus(rig, "query", query=query.expression)["result"]
    return found


def restarts_of_purple(asked: list[Query], rig: Rig) -> float | None:
    """What the panel of its dashboard shows; None before it shows anything."""
    (query,) = [one for one in asked if (one.dashboard, one.panel) == ("lab-experiment", "Restarts")]
    answer = answer_to(rig, query)
    return float(answer[0]["value"][1]) if answer else None


@pytest.mark.usefixtures("restarts_before")
def test_every_panel_shows_something(asked: list[Query], rig: Rig, figure: Callable[[str], None]) -> None:
    left = [replace(query, expression=without_zeros(query.expression)) for query in asked]
    zeros = len(set(asked) - set(left))

    def look() -> bool | None:
        left[:] = [query for query in left if not has_values(answer_to(rig, query))]
        return None if left else True

    try:
        eventually(look, within_s=120, what="every panel shows something")
    except AssertionError:
        pytest.fail("\n".join(f"{q.dashboard}/{q.panel} shows nothing: {q.expression}" for q in left))
    panels = {(query.dashboard, query.panel) for query in asked}
    figure(
        f"rig: all {len(panels)} panels of metrics show something, by {len(asked)} queries, "
        f"{zeros} of them asked without the zeros that they fill up with; no exception"
    )


def test_a_container_that_began_anew_is_counted(
    asked: list[Query], restarts_before: float, rig: Rig, figure: Callable[[str], None]
) -> None:
    eventually(
        lambda: True if restarts_of_purple(asked, rig) == restarts_before + 1 else None,
        within_s=60,
        what=f"one restart more than {restarts_before:.0f}",
    )
    (query,) = [one for one in asked if (one.dashboard, one.panel) == ("lab-kubernetes", "Restarts")]
    (value,) = [one["value"][1] for one in answer_to(rig, query) if one["metric"]["pod"] == CRASHED]
    assert float(value) >= 1
    figure(f"rig: a crashed node is one restart more, {restarts_before + 1:.0f} in all")


def test_every_variable_offers_what_there_is(boards: Sequence[Mapping[str, Any]], rig: Rig) -> None:
    for one in choices(boards, experiment="purple"):

        def offered(one: Choice = one) -> set[str] | None:
            found = set(prometheus(rig, f"label/{one.label}/values", **{"match[]": one.selector}))
            return found if found >= OFFERED[one.variable] else None

        found = eventually(offered, within_s=60, what=f"{one.dashboard} offers each {one.variable}")
        if one.variable == "peer":
            assert all(name.startswith("nimp2p-exp-purple-") for name in found), one


def test_what_an_experiments_dashboards_show_is_its_own(asked: list[Query], rig: Rig) -> None:
    for query in asked:
        if query.dashboard == "lab-experiment":
            for one in answer_to(rig, query):
                labels = one.get("metric") or {}
                assert labels.get("experiment", "purple") == "purple", query
                for name in ("pod", "peer"):
                    assert labels.get(name, "nimp2p-exp-purple-").startswith("nimp2p-exp-purple-"), query
