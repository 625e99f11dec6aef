"""Every panel of every dashboard, asked of the real Prometheus and the real Loki."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nimlab.load import load_lab
from nimlab.render.platform import load_platform_templates, render_dashboards
from tests.dashboards import Query, queries
from tests.rig.cluster import Rig, RigLab, eventually
from tests.rig.monitoring import loki, prometheus

SAY = "open('/proc/1/fd/1', 'w').write('error: as a test would have it\\n')"


@pytest.fixture(scope="module")
def asked(platform: RigLab) -> list[Query]:
    """What the provisioned dashboards ask about purple."""
    files = load_lab(platform.root, {})
    boards = render_dashboards(load_platform_templates(platform.root), files)
    return list(queries(boards, experiment="purple", peer=".+", node=".+"))


def answer_to(rig: Rig, query: Query) -> list[Any]:
    """What a query gives now."""
    if query.source == "prometheus":
        found: list[Any] = prometheus(rig, "query", query=query.expression)["result"]
        return found
    is_list = query.expression.startswith("{")
    lines: list[Any] = loki(rig, "query_range" if is_list else "query", query=query.expression)
    return lines


def test_every_panel_shows_something(asked: list[Query], rig: Rig, figure: Callable[[str], None]) -> None:
    rig.python("dst-lab", "nimp2p-exp-purple-0", SAY)  # or there might be no error to be listed
    left = list(asked)

    def look() -> bool | None:
        left[:] = [query for query in left if not answer_to(rig, query)]
        return None if left else True

    try:
        eventually(look, within_s=120, what="every panel shows something")
    except AssertionError:
        pytest.fail("\n".join(f"{q.dashboard}/{q.panel} shows nothing: {q.expression}" for q in left))
    panels = {(query.dashboard, query.panel) for query in asked}
    figure(f"rig: all {len(panels)} panels of the dashboards show something, by {len(asked)} queries")


def test_what_an_experiments_dashboards_show_is_its_own(asked: list[Query], rig: Rig) -> None:
    for query in asked:
        if query.dashboard in ("lab-experiment", "lab-logs"):
            for one in answer_to(rig, query):
                labels = one.get("metric") or one.get("stream") or {}
                assert labels.get("experiment", "purple") == "purple", query
                for name in ("pod", "peer"):
                    assert labels.get(name, "nimp2p-exp-purple-").startswith("nimp2p-exp-purple-"), query
