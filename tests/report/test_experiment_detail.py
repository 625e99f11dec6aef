"""The content of the command `status`."""

from __future__ import annotations

from nimlab.objects.manifest import ObjectKey
from nimlab.report.experiment_detail import experiment_detail
from nimlab.report.git_state import GitState
from tests.support.live_plans import (
    NAME,
    NOW,
    detail_of,
    event,
    plan_of,
    pod,
    pulling,
    ready,
)


def test_pods_are_sorted_by_number_and_each_has_a_one_word_state() -> None:
    leaving = ready(2)
    leaving["metadata"]["deletionTimestamp"] = NOW.isoformat()
    pods = [ready(10), pulling(9), pod(3, phase="Running"), leaving, pod(1)]
    detail = detail_of(pods, [])
    assert [(line.name[len(NAME) :], line.state, line.is_running) for line in detail.pods] == [
        ("-1", "Pending", False),
        ("-2", "Terminating", False),
        ("-3", "NotReady", False),
        ("-9", "ImagePullBackOff", False),
        ("-10", "Running", True),
    ]
    last = detail.pods[-1]
    assert (last.node, last.restarts, last.age_s) == ("node-1", 2, 2304)
    assert [(trouble.pod, trouble.reason) for trouble in detail.troubles] == [
        (f"{NAME}-9", "ImagePullBackOff")
    ]


def test_broken_file_has_a_detail() -> None:
    detail = experiment_detail(
        "white",
        plan_of(broken=True),
        (),
        pods=[ready(0)],
        all_pods=True,
        events=[event(1, f"{NAME}-0")],
        now=NOW,
    )
    assert (detail.source, detail.plan) == ("experiments/white.yaml", None)
    assert detail.row.state is GitState.BROKEN
    assert detail.events == ()


def test_detail_contains_the_plan_and_the_file() -> None:
    detail = detail_of([], [])
    assert detail.source == "experiments/purple.yaml"
    assert detail.plan is not None
    assert detail.plan.changes[0].key == ObjectKey("StatefulSet", "dst-lab", NAME)
