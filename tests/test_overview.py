"""The rows of `list` and the detail of `status`: a word for each difference, own events, what troubles."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from nimlab.errors import OwnershipConflict
from nimlab.files.spec import (
    Broken,
    ConnectLimit,
    Contract,
    Experiment,
    Image,
    Isolation,
    Network,
    OnImmutableChange,
    Rollout,
    Rtt,
)
from nimlab.objects.applyset import ApplySet
from nimlab.objects.applyset_parent import Parent
from nimlab.objects.foreign_fields import Foreign
from nimlab.objects.manifest import Manifest, ObjectKey, key_of
from nimlab.plan.change import Action, Change
from nimlab.plan.health import Health, Verdict
from nimlab.plan.make_plan import ExperimentPlan, Plan
from nimlab.plan.workload import Resources
from nimlab.report.list_rows import Detail, Row, RowState, experiment_detail, overview_rows

NOW = datetime(2026, 11, 23, 12, 35, 29, tzinfo=UTC)
MADE = "2026-11-23T11:57:05Z"
NAME = "nimp2p-exp-purple"
IMAGE = Image(name="katakuri100/nimp2p", tag="v1")
FOREIGN = Foreign(manager="kubectl-edit", path=(), text="spec.x", value=1)


def statefulset(*, scale: int = 5, running: int = 5) -> Manifest:
    metadata: dict[str, Any] = {
        "name": NAME, "namespace": "dst-lab", "labels": {"prefix": NAME}, "creationTimestamp": MADE,
    }  # fmt: skip
    status = {"observedGeneration": 1, "replicas": scale, "readyReplicas": running, "updatedReplicas": scale}
    metadata["generation"] = 1
    return {"kind": "StatefulSet", "metadata": metadata, "spec": {"replicas": scale}, "status": status}


def spec_map(digest: str | None, *, ours: bool = True) -> Manifest:
    fields: dict[str, Any] = {"f:data": {"f:sha256": {}}} if ours else {"f:data": {}}
    managed = {"manager": "nimlab", "operation": "Apply", "fieldsV1": fields}
    return {
        "kind": "ConfigMap",
        "metadata": {"name": f"{NAME}-spec", "namespace": "dst-lab", "managedFields": [managed]},
        "data": {} if digest is None else {"sha256": digest},
    }


def change(action: Action, live: Manifest | None, desired: Manifest | None, **more: Any) -> Change:
    given = live or desired
    assert given is not None
    return Change(action=action, key=key_of(given), experiment="purple", live=live, desired=desired, **more)


def keep(live: Manifest, **more: Any) -> Change:
    return change(Action.KEEP, live, live, **more)


def plan_of(*changes: Change, source: str | None = "experiments/purple.yaml", broken: bool = False) -> Plan:
    one = ExperimentPlan(name="purple", source=source, changes=changes, added=Resources())
    file = Broken(name="white", source="experiments/white.yaml")
    return Plan(
        apply_set=ApplySet(name="experiments", namespace="dst-lab"),
        experiments=(one,) if changes else (),
        stops=(),
        refusal=None,
        broken=(file,) if broken else (),
        file_errors=int(broken),
        narrowed=False,
        commit=None,
        create_namespace=False,
        before=Parent.none(),
        during=Parent.none(),
        after=Parent.none(),
    )


def experiment(name: str = "purple") -> Experiment:
    contract = Contract(
        name="nimp2p", description="", image=IMAGE, container="nimp2p", isolation=Isolation.LABEL,
        host_name="any", connect_limit=ConnectLimit.AT_MOST_PEERS, env=(), ports=(), fields=frozenset(),
        required=frozenset(), start_delay_s=0, logs={}, metrics=(), source="contracts/nimp2p.yaml",
    )  # fmt: skip
    return Experiment(
        name=name, full_name=f"nimp2p-exp-{name}", owner="dst", description="", contract=contract,
        image=IMAGE, peers=7, settings={}, cpu_m=50, memory_bytes=16,
        rtt=Rtt(enabled=False, interval_ms=1, fanout=1, methods=("tcp",)),
        network=Network(method="none", downlink_bit_per_s=None, uplink_bit_per_s=None, latency_ms=None,
                        jitter_ms=None, loss_ratio=None),
        rollout=Rollout.TOGETHER, on_immutable_change=OnImmutableChange.FAIL, namespace="dst-lab",
        source=f"experiments/{name}.yaml", digest="d", document={},
    )  # fmt: skip


def only_row(plan: Plan) -> Row:
    (row,) = overview_rows(plan, (experiment(),), NOW)
    return row


def state_of(*changes: Change, source: str | None = "experiments/purple.yaml") -> RowState:
    return only_row(plan_of(*changes, source=source)).state


def test_row_in_sync() -> None:
    assert only_row(plan_of(keep(spec_map("d")), keep(statefulset(running=3)))) == Row(
        experiment="purple",
        full_name=NAME,
        scale=5,
        running=3,
        started_at=MADE,
        age_s=38 * 60 + 24,
        state=RowState.IN_SYNC,
        verdict=Verdict(health=Health.NOT_READY, message="3 of 5 peers are ready"),
    )


def test_nothing_in_the_cluster_is_not_synced_and_has_the_files_scale() -> None:
    row = only_row(plan_of(change(Action.CREATE, None, statefulset())))
    assert (row.state, row.scale, row.running) == (RowState.NOT_SYNCED, 7, 0)
    assert (row.started_at, row.age_s) == (None, None)


@pytest.mark.parametrize("action", [Action.UPDATE, Action.REPLACE, Action.PRUNE])
def test_difference_is_drift(action: Action) -> None:
    assert state_of(keep(spec_map("d")), change(action, statefulset(), statefulset())) is RowState.DRIFTED


def test_missing_part_and_foreign_field_are_drift() -> None:
    assert state_of(keep(spec_map("d")), change(Action.CREATE, None, statefulset())) is RowState.DRIFTED
    assert state_of(keep(statefulset(), foreign=(FOREIGN,))) is RowState.DRIFTED


def test_other_file_than_the_synced_one_is_told_apart_from_drift() -> None:
    update = change(Action.UPDATE, statefulset(), statefulset())
    other = change(Action.UPDATE, spec_map("old"), spec_map("new"))
    assert state_of(other, update) is RowState.CHANGED
    assert state_of(other, keep(statefulset(), foreign=(FOREIGN,))) is RowState.DRIFTED


@pytest.mark.parametrize(
    "config",
    [
        change(Action.UPDATE, spec_map("edited", ours=False), spec_map("new")),
        change(Action.UPDATE, {**spec_map("old"), "metadata": {"name": "x"}}, spec_map("new")),
        change(Action.UPDATE, spec_map("same"), spec_map("same")),
        change(Action.UPDATE, spec_map("old"), spec_map(None)),
    ],
)
def test_hash_that_somebody_else_wrote_proves_nothing(config: Change) -> None:
    assert state_of(config) is RowState.DRIFTED


def test_error_is_told_as_blocked() -> None:
    error = OwnershipConflict("it exists, and nimlab did not make it")
    assert state_of(change(Action.UPDATE, statefulset(), statefulset(), error=error)) is RowState.BLOCKED


def test_orphan_takes_its_name_from_its_objects() -> None:
    plan = plan_of(change(Action.PRUNE, statefulset(scale=2, running=1), None), source=None)
    (row,) = overview_rows(plan, (), NOW)
    assert (row.state, row.full_name, row.scale, row.running) == (RowState.ORPHANED, NAME, 2, 1)
    nameless = plan_of(change(Action.PRUNE, spec_map("d"), None), source=None)
    (row,) = overview_rows(nameless, (), NOW)
    assert (row.full_name, row.scale, row.running) == ("", None, None)


def test_broken_file_is_a_row_that_knows_little() -> None:
    rows = overview_rows(plan_of(keep(statefulset()), broken=True), (experiment(),), NOW)
    assert [row.experiment for row in rows] == ["purple", "white"]
    assert (rows[1].state, rows[1].scale, rows[1].running) == (RowState.BROKEN, None, None)
    (row,) = overview_rows(plan_of(broken=True), (experiment("white"),), NOW)
    assert (row.full_name, row.scale) == ("nimp2p-exp-white", 7)


def test_clock_that_is_behind_gives_no_negative_age() -> None:
    early = datetime(2026, 11, 23, tzinfo=UTC)
    (row,) = overview_rows(plan_of(keep(statefulset())), (), early)
    assert row.age_s == 0


def pod(number: int, **status: Any) -> Manifest:
    metadata: dict[str, Any] = {"name": f"{NAME}-{number}", "namespace": "dst-lab", "creationTimestamp": MADE}
    return {"kind": "Pod", "metadata": metadata, "spec": {"nodeName": "node-1"}, "status": status}


def ready(number: int) -> Manifest:
    return pod(
        number, phase="Running", conditions=[{"type": "Ready", "status": "True"}],
        containerStatuses=[{"name": "nimp2p", "restartCount": 2}],
    )  # fmt: skip


def pulling(number: int) -> Manifest:
    state = {"waiting": {"reason": "ImagePullBackOff"}}
    return pod(
        number, phase="Pending", containerStatuses=[{"name": "nimp2p", "image": "x:9", "state": state}]
    )


def event(number: int, name: str, **more: Any) -> Manifest:
    return {
        "metadata": {"name": f"e{number}"},
        "involvedObject": {"kind": "Pod", "namespace": "dst-lab", "name": name},
        "lastTimestamp": f"2026-11-23T12:{number:02}:00Z",
        "reason": f"R{number}",
        "message": "m",
        "type": "Normal",
        **more,
    }


def refusal(number: int, message: str) -> Manifest:
    about = {"kind": "StatefulSet", "namespace": "dst-lab", "name": NAME}
    return event(number, "", involvedObject=about, reason="FailedCreate", message=message, type="Warning")


def detail_of(pods: list[Manifest], events: list[Manifest], *changes: Change, running: int = 5) -> Detail:
    plan = plan_of(*(changes or (keep(statefulset(running=running)),)))
    return experiment_detail(
        "purple", plan, (experiment(),), pods=pods, all_pods=True, events=events, now=NOW
    )


def test_pods_are_in_the_order_of_their_numbers_with_a_word_each() -> None:
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


def test_refusal_is_trouble_only_while_peers_are_missing() -> None:
    events = [refusal(2, "create Pod failed error: second"), refusal(1, "create Pod failed error: first")]
    (trouble,) = detail_of([ready(0)], events, running=1).troubles
    assert trouble.message == "second"
    assert detail_of([ready(0)], events, running=5).troubles == ()


def test_only_own_events_are_taken() -> None:
    service: Manifest = {"kind": "Service", "metadata": {"name": NAME, "namespace": "dst-lab"}}
    about_service = {"kind": "Service", "namespace": "dst-lab", "name": NAME}
    events = [
        event(1, f"{NAME}-0"),
        event(2, f"{NAME}-77"),  # of a pod that is gone
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


def test_events_and_troubles_echo_no_secret_of_what_they_are_about() -> None:
    live, peer = statefulset(running=1), ready(0)
    env = [{"name": "API_TOKEN", "value": "correct-horse"}]
    live["spec"]["template"] = {"spec": {"containers": [{"name": "nimp2p", "env": env}]}}
    peer["spec"]["containers"] = [{"name": "nimp2p", "env": [{"name": "API_TOKEN", "value": "battery"}]}]
    events = [refusal(1, "denied: correct-horse"), event(2, f"{NAME}-0", message="exec battery")]
    detail = detail_of([peer], events, keep(live))
    assert [line.message for line in detail.events] == ["denied: (hidden)", "exec (hidden)"]
    assert [trouble.message for trouble in detail.troubles] == ["denied: (hidden)"]


def test_newest_events_are_taken_and_warnings_before_others() -> None:
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
def test_event_says_its_time_in_different_places(times: Any, at: str) -> None:
    found = {**event(1, f"{NAME}-0"), "lastTimestamp": None, **times}
    (line,) = detail_of([ready(0)], [found]).events
    assert line.at == at
    assert (line.age_s is None) is (at == "")


def test_broken_file_has_a_detail_too() -> None:
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
    assert detail.row.state is RowState.BROKEN
    assert detail.events == ()


def test_detail_carries_the_plan_and_the_file() -> None:
    detail = detail_of([], [])
    assert detail.source == "experiments/purple.yaml"
    assert detail.plan is not None
    assert detail.plan.changes[0].key == ObjectKey("StatefulSet", "dst-lab", NAME)
