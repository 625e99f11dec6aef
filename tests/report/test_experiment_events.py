"""The events in `status`: only the experiment's own events, the newest, without secrets."""

from __future__ import annotations

from typing import Any

import pytest

from nimlab.objects.manifest import Manifest
from tests.support.live_plans import (
    NAME,
    detail_of,
    event,
    keep,
    ready,
    rejection_event,
    statefulset,
)


def test_only_events_of_the_experiment_are_included() -> None:
    service: Manifest = {"kind": "Service", "metadata": {"name": NAME, "namespace": "dst-lab"}}
    about_service = {"kind": "Service", "namespace": "dst-lab", "name": NAME}
    events = [
        event(1, f"{NAME}-0"),
        event(2, f"{NAME}-77"),  # this pod no longer exists
        event(3, f"{NAME}-other-0"),
        event(4, "nimp2p-exp-blue-0"),
        event(5, f"{NAME}-77", involvedObject={"kind": "Pod", "namespace": "else", "name": f"{NAME}-77"}),
        event(6, "", involvedObject=about_service),
        event(7, "", involvedObject={"kind": "Node", "name": "node-1"}),
        {"metadata": {}, "message": "about nothing"},
    ]
    detail = detail_of([ready(0)], events, keep(statefulset()), keep(service))
    assert [line.reason for line in detail.events] == ["R1", "R2", "R6"]
    without_set = detail_of([ready(0)], events, keep(service))
    assert [line.reason for line in without_set.events] == ["R1", "R6"]


def test_events_and_troubles_contain_no_secret_of_their_objects() -> None:
    live, peer = statefulset(running=1), ready(0)
    env = [{"name": "API_TOKEN", "value": "correct-horse"}]
    live["spec"]["template"] = {"spec": {"containers": [{"name": "nimp2p", "env": env}]}}
    peer["spec"]["containers"] = [{"name": "nimp2p", "env": [{"name": "API_TOKEN", "value": "battery"}]}]
    events = [rejection_event(1, "denied: correct-horse"), event(2, f"{NAME}-0", message="exec battery")]
    detail = detail_of([peer], events, keep(live))
    assert [line.message for line in detail.events] == ["denied: (hidden)", "exec (hidden)"]
    assert [trouble.message for trouble in detail.troubles] == ["denied: (hidden)"]


def test_newest_events_are_included_and_warnings_are_preferred() -> None:
    events = [event(n, f"{NAME}-0") for n in range(1, 15)]
    events.append(event(0, f"{NAME}-0", type="Warning", count=3))
    lines = detail_of([ready(0)], events).events
    assert [line.reason for line in lines] == ["R0", *(f"R{n}" for n in range(6, 15))]
    assert (lines[0].is_warning, lines[0].times, lines[0].age_s) == (True, 3, 2129)


@pytest.mark.parametrize(
    ("times", "at"),
    [
        ({"series": {"lastObservedTime": "2026-11-23T12:00:01.5Z"}}, "2026-11-23T12:00:01.5Z"),
        ({"eventTime": "2026-11-23T12:00:02Z"}, "2026-11-23T12:00:02Z"),
        ({"metadata": {"creationTimestamp": "2026-11-23T12:00:03Z"}}, "2026-11-23T12:00:03Z"),
        ({}, ""),
    ],
)
def test_time_of_an_event_may_be_in_different_fields(times: Any, at: str) -> None:
    changed = {**event(1, f"{NAME}-0"), "lastTimestamp": None, **times}
    (line,) = detail_of([ready(0)], [changed]).events
    assert line.at == at
    assert (line.age_s is None) is (at == "")
