"""Health of an experiment's pods: one word and the worst reason.

A run of an experiment begins with the last change of the pod template. Events of former runs are ignored.
"""

from __future__ import annotations

import dataclasses
import json
from datetime import timedelta
from typing import Any

import pytest

from nimlab.cli.terminal import Bar
from nimlab.cluster.apply.readiness import assess_readiness
from nimlab.cluster.pod_reader import find_troubled_pods, read_warnings
from nimlab.errors import Forbidden
from nimlab.files.git_history import Commit
from nimlab.objects.applyset_parent import Parent, Scope
from nimlab.objects.manifest import Manifest
from nimlab.plan.change import Action
from nimlab.plan.diff import ABSENT, FieldChange
from nimlab.plan.experiment_health import Health, health_of, worst_trouble
from nimlab.plan.pod_trouble import Trouble, is_due, pod_trouble
from nimlab.plan.sync_events import ExperimentStuck, PeersProgress
from nimlab.report import exit_code_of_rows, format_event
from nimlab.report.change_lines import experiment_lines, layout_of
from nimlab.report.experiment_detail import experiment_detail
from nimlab.report.experiment_troubles import troubles_of
from nimlab.report.git_state import GitState
from nimlab.report.list_rows import rows_of
from nimlab.report.styled_text import join
from tests.cluster.test_apply import RED, assessed, readiness_of
from tests.cluster.test_apply import rejection_event as refused_at
from tests.cluster.test_apply import statefulset as awaited_set
from tests.support.lab import Lab
from tests.support.live_plans import (
    MADE,
    NAME,
    NOW,
    change,
    event,
    experiment,
    keep,
    only_row,
    plan_of,
    pod,
    ready,
    rejection_event,
    spec_map,
    statefulset,
)


def container(state: dict[str, Any], *, ready: bool = False, last: dict[str, Any] | None = None) -> Manifest:
    """Return a running pod with one container."""
    status = {"name": "c", "state": state, "ready": ready, "restartCount": 3, "lastState": last or {}}
    return pod(0, phase="Running", containerStatuses=[status])


def ended(reason: str, code: int, minutes: int = 1) -> dict[str, Any]:
    at = (NOW - timedelta(minutes=minutes)).isoformat()
    return {"terminated": {"reason": reason, "exitCode": code, "finishedAt": at}}


BACK_OFF = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (container(BACK_OFF, last=ended("OOMKilled", 137)), "OOMKilled"),
        (container(BACK_OFF, last=ended("Error", 1)), "CrashLoopBackOff"),
        (container(ended("OOMKilled", 137)), "OOMKilled"),
        (container(ended("Error", 1)), "Error"),
        (container({"running": {}}, last=ended("OOMKilled", 137)), "OOMKilled"),
        (container({"running": {}}, ready=True, last=ended("OOMKilled", 137)), "OOMKilled"),
        (container({"running": {}}, ready=True, last=ended("OOMKilled", 137, minutes=60)), None),
        (container({"running": {}}, ready=True, last=ended("Error", 1)), None),
        (container({"running": {}}, last=ended("Completed", 0)), None),
        (container({"running": {}}, ready=True), None),
    ],
)
def test_reason_of_a_terminated_container(item: Manifest, reason: str | None) -> None:
    trouble = pod_trouble(item, NOW)
    assert (trouble.reason if trouble else None) == reason


def unready(*, container_ready: bool, seconds: int = 60) -> Manifest:
    """Return a pod that has been running but not ready for some time."""
    item = container({"running": {}}, ready=container_ready)
    since = (NOW - timedelta(seconds=seconds)).isoformat()
    item["status"]["conditions"] = [{"type": "Ready", "status": "False", "lastTransitionTime": since}]
    return item


def test_failing_probes_and_lost_nodes_have_different_reasons() -> None:
    probe, lost = (pod_trouble(unready(container_ready=is_ready), NOW) for is_ready in (False, True))
    assert probe is not None
    assert lost is not None
    assert (probe.reason, lost.reason) == ("NotReady", "NodeLost")
    assert not probe.fatal
    assert is_due(probe, NOW)
    starting = pod_trouble(unready(container_ready=False, seconds=5), NOW)
    assert starting is not None
    assert not is_due(starting, NOW), "starting pods have no trouble"
    for status in ({"phase": "Unknown"}, {"phase": "Running", "reason": "NodeLost"}):
        trouble = pod_trouble(pod(0, **status), NOW)
        assert trouble is not None
        assert trouble.reason == "NodeLost"


def test_report_of_a_pod_that_stays_terminating_contains_the_blocker() -> None:
    stuck = ready(0)
    stuck["metadata"] |= {"deletionTimestamp": MADE, "finalizers": ["a/b"]}
    trouble = pod_trouble(stuck, NOW)
    assert trouble is not None
    assert (trouble.reason, trouble.fatal, is_due(trouble, NOW)) == ("Terminating", False, True)
    assert "`a/b`" in trouble.message
    stuck["metadata"]["deletionTimestamp"] = NOW.isoformat()
    recent = pod_trouble(stuck, NOW)
    assert recent is not None
    assert not is_due(recent, NOW)


def test_failed_pods_have_a_reason() -> None:
    for status, reason in (
        ({"reason": "Evicted"}, "Evicted"),
        ({"containerStatuses": [{"name": "c", "state": ended("OOMKilled", 137)}]}, "OOMKilled"),
        ({}, "Failed"),
    ):
        trouble = pod_trouble(pod(0, phase="Failed", **status), NOW)
        assert trouble is not None
        assert trouble.reason == reason
    gated = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "a/gate"}
    trouble = pod_trouble(pod(0, phase="Pending", conditions=[gated]), NOW)
    assert trouble is not None
    assert trouble.reason == "SchedulingGated"


def trouble_of(reason: str, number: int = 0) -> Trouble:
    return Trouble(pod=f"p-{number}", reason=reason, message="m", since=None, fatal=False)


def test_the_worst_reason_is_reported() -> None:
    troubles = [trouble_of("Unschedulable"), trouble_of("OOMKilled", 1), trouble_of("FailedCreate", 2)]
    chosen = worst_trouble(troubles)
    assert chosen is not None
    assert chosen.reason == "OOMKilled"
    assert worst_trouble([]) is None


def test_health_of_workloads() -> None:
    full, short = statefulset(), statefulset(running=3)
    assert health_of([full], 0, [], NOW).text == "ok"
    assert health_of([full, short], 0, [], NOW).text == "not ready"
    assert health_of([short], 0, [trouble_of("Unschedulable")], NOW).text == "failing: Unschedulable"
    assert health_of([full], 0, [trouble_of("OOMKilled")], NOW).text == "failing: OOMKilled"
    assert health_of([full], 1, [], NOW).health is Health.NOT_READY
    assert health_of([statefulset(scale=0, running=0)], 0, [], NOW).health is Health.STOPPED
    assert health_of([], 0, [], NOW).health is Health.NONE
    terminating = statefulset()
    terminating["metadata"]["deletionTimestamp"] = MADE
    assert health_of([terminating], 0, [], NOW).health is Health.TERMINATING


def test_row_contains_the_sum_over_all_workloads_of_an_experiment() -> None:
    other = statefulset(scale=2, running=1)
    other["metadata"]["name"] = f"{NAME}-bootstrap"
    row = only_row(plan_of(keep(spec_map("d")), keep(statefulset()), keep(other)))
    assert (row.scale, row.running) == (7, 6)
    assert row.verdict.health is Health.NOT_READY
    assert row.state is GitState.IN_SYNC


def managed(manager: str, at: str, *path: str, **more: Any) -> dict[str, Any]:
    """Return a managedFields entry that contains one field."""
    fields: dict[str, Any] = {}
    for name in reversed(path):
        fields = {name: fields}
    return {"manager": manager, "operation": "Apply", "time": at, "fieldsV1": fields, **more}


CONTAINER = 'k:{"name":"nimp2p"}'


def test_run_begins_with_the_template_not_with_the_object() -> None:
    live = statefulset()
    live["metadata"]["managedFields"] = [
        managed("nimlab", "2026-11-23T12:20:00Z", "f:spec", "f:template", "f:spec"),
        managed("kubectl", "2026-11-23T12:30:00Z", "f:spec", "f:replicas", subresource="scale"),
        managed("kube-controller-manager", "2026-11-23T12:34:00Z", "f:status", subresource="status"),
    ]
    row = only_row(plan_of(keep(spec_map("d")), keep(live)))
    assert (row.started_at, row.age_s) == ("2026-11-23T12:20:00Z", 15 * 60 + 29)


IMAGE = "spec.template.spec.containers[nimp2p].image"
PATH = ("f:spec", "f:template", "f:spec", "f:containers", CONTAINER, "f:image")


def updated(*entries: dict[str, Any], old: Any = "v1") -> Any:
    """Return a change that updates the image."""
    live = statefulset()
    live["metadata"]["managedFields"] = list(entries)
    return change(Action.UPDATE, live, statefulset(), fields=(FieldChange(path=IMAGE, old=old, new="v2"),))


def test_newer_checkout_is_not_drift() -> None:
    """The experiment's file has the same hash, but lab.yaml, a contract or a template has changed."""
    ours = managed("nimlab", MADE, *PATH)
    theirs = managed("kubectl-edit", MADE, *PATH, operation="Update")
    config = keep(spec_map("d"))
    assert only_row(plan_of(config, updated(ours))).state is GitState.CHANGED
    assert only_row(plan_of(config, updated(theirs))).state is GitState.DRIFTED
    assert (
        only_row(plan_of(config, updated(managed("nimlab", MADE, "f:spec"), theirs))).state
        is GitState.DRIFTED
    )


@pytest.mark.parametrize(
    ("sha", "dirty", "state"),
    [
        ("a" * 40, False, GitState.DRIFTED),
        ("b" * 40, False, GitState.CHANGED),
        ("a" * 40, True, GitState.CHANGED),
    ],
)
def test_field_without_an_owner_is_classified_by_the_commit(sha: str, dirty: bool, state: GitState) -> None:
    plan = plan_of(keep(spec_map("d")), updated(managed("nimlab", MADE, "f:data"), old=ABSENT))
    before = replace_parent(commit="a" * 40)
    commit = Commit(sha=sha, branch="main", dirty=dirty)
    (row,) = rows_of(replaced(plan, before=before, commit=commit), (experiment(),), NOW)
    assert row.state is state


def test_orphan_is_not_drift() -> None:
    live = statefulset()
    live["metadata"]["managedFields"] = [managed("nimlab", MADE, *PATH)]
    assert only_row(plan_of(keep(spec_map("d")), change(Action.PRUNE, live, None))).state is GitState.CHANGED


def test_terminating_foreign_object_does_not_affect_health() -> None:
    theirs = spec_map("d")
    theirs["metadata"] |= {"name": "theirs", "deletionTimestamp": MADE}
    row = only_row(plan_of(keep(statefulset()), change(Action.KEEP, theirs, None)))
    assert row.verdict.health is Health.OK


def test_deleted_workload_is_drift_even_with_a_newer_checkout() -> None:
    plan = plan_of(keep(spec_map("d")), change(Action.CREATE, None, statefulset()))
    before = replace_parent(commit="a" * 40)
    commit = Commit(sha="b" * 40, branch="main", dirty=False)
    (row,) = rows_of(replaced(plan, before=before, commit=commit), (experiment(),), NOW)
    assert row.state is GitState.DRIFTED


def replaced(plan: Any, **facts: Any) -> Any:
    return dataclasses.replace(plan, **facts)


def replace_parent(commit: str) -> Parent:
    scope = Scope(kinds=frozenset({"StatefulSet", "ConfigMap"}), namespaces=frozenset({"dst-lab"}))
    return dataclasses.replace(Parent.none(), commit=commit, scope=scope)


def test_exit_code_follows_from_the_rows() -> None:
    fine = only_row(plan_of(keep(spec_map("d")), keep(statefulset())))
    short = only_row(plan_of(keep(spec_map("d")), keep(statefulset(running=1))))
    new = only_row(plan_of(change(Action.CREATE, None, statefulset())))
    broken = rows_of(plan_of(broken=True), (), NOW)[0]
    assert [exit_code_of_rows(rows) for rows in ([fine], [fine, new], [new, short], [short, broken], [])] == [
        0,
        3,
        4,
        1,
        0,
    ]


def test_events_of_a_former_object_or_run_are_ignored() -> None:
    live, peer = statefulset(running=1), ready(0)
    live["metadata"]["uid"], peer["metadata"]["uid"] = "set-2", "pod-2"

    def about(uid: str, event: Manifest) -> Manifest:
        return {**event, "involvedObject": {**event["involvedObject"], "uid": uid}}

    before = {"lastTimestamp": "2026-11-23T11:00:00Z"}
    events = [
        about("set-1", rejection_event(1, "of the former set")),
        about("set-2", rejection_event(2, "of this set")),
        about("pod-1", event(3, f"{NAME}-0", **before)),
        about("pod-1", event(4, f"{NAME}-0")),
        about("pod-2", event(5, f"{NAME}-0")),
        about("pod-9", event(6, f"{NAME}-3", **before)),
    ]
    plan = plan_of(keep(live))
    detail = experiment_detail(
        "purple", plan, (experiment(),), pods=[peer], all_pods=True, events=events, now=NOW
    )
    assert [line.message for line in detail.events if line.kind == "StatefulSet"] == ["of this set"]
    assert [line.reason for line in detail.events if line.kind == "Pod"] == ["R4", "R5"]
    assert [trouble.message for trouble in detail.troubles] == ["of this set"]


def test_event_of_a_former_statefulset_does_not_end_the_wait() -> None:
    from tests.cluster.test_apply import NOW as THEN

    live = awaited_set()
    live["metadata"]["uid"] = "set-2"
    former = refused_at(THEN)
    former["involvedObject"]["uid"] = "set-1"
    readiness = readiness_of(live)
    readiness.record_rejection(former, THEN - timedelta(seconds=11))
    assert isinstance(assessed(readiness), PeersProgress)
    own = {**former, "involvedObject": {**former["involvedObject"], "uid": "set-2"}}
    readiness.record_rejection(own, THEN - timedelta(seconds=11))
    assert isinstance(assessed(readiness), ExperimentStuck)
    live["metadata"]["managedFields"] = [
        managed("nimlab", (THEN + timedelta(seconds=5)).isoformat(), "f:spec", "f:replicas")
    ]
    changed = readiness_of(live)
    changed.record_rejection(own, THEN - timedelta(seconds=11))
    later = assess_readiness(RED, changed, THEN + timedelta(seconds=20), waited_s=20, timeout_s=60)
    assert isinstance(later, PeersProgress), "the event is older than the last change"


def test_warning_events_explain_pods_beyond_the_listed_pages() -> None:
    (experiment,) = plan_of(keep(statefulset(running=1))).experiments
    at = (NOW - timedelta(minutes=1)).isoformat()
    warning = event(1, f"{NAME}-900", type="Warning", reason="FailedScheduling", lastTimestamp=at)
    (trouble,) = troubles_of(experiment, (), [warning], NOW)
    assert trouble.reason == "Unschedulable"
    old = {**warning, "lastTimestamp": (NOW - timedelta(minutes=20)).isoformat()}
    assert troubles_of(experiment, (), [old], NOW) == ()


OLD = {"replicas": 4, "readyReplicas": 4, "updateRevision": "r2"}


def text_of(item: Any) -> str:
    assert isinstance(item, PeersProgress)
    return format_event(item, paint=False) or ""


def test_progress_always_names_the_missing_peers() -> None:
    old = text_of(assessed(readiness_of(awaited_set(wanted=4, **OLD))))
    assert "0 of 4 peers running, 4 left to delete" in old
    unseen = text_of(assessed(readiness_of(awaited_set(wanted=4, **{**OLD, "observedGeneration": 0}))))
    assert "has not observed the last change" in unseen
    assert "4 of 4 peers running;" in unseen
    fewer = text_of(
        assessed(readiness_of(awaited_set(wanted=1, replicas=800, readyReplicas=800, updatedReplicas=800)))
    )
    assert "799 left to delete" in fewer
    deleted = text_of(assessed(readiness_of()))
    assert "StatefulSet/lab/red does not exist" in deleted


def test_progress_bar_counts_peers_to_stop() -> None:
    def progress(leaving: int) -> PeersProgress:
        return PeersProgress(experiment="red", running=0, wanted=0, leaving=leaving)

    bar = Bar.of(progress(800), None)
    assert (bar.completed, bar.total) == (0, 800)
    bar = Bar.of(progress(200), bar)
    assert (bar.completed, bar.total) == (600, 800)
    assert Bar.of(progress(0), None).total == 1


ON_DELETE = {"updateStrategy": {"type": "OnDelete"}, "template": {"spec": {"containers": []}}}


@pytest.mark.parametrize(
    ("peers", "running", "words"),
    [
        (4, 4, "restarts all 4 running peers:"),
        (4, 0, "restarts all 4 peers, none of which is running:"),
        (4, 2, "restarts all 4 peers, of which 2 are running:"),
        (1, 1, "restarts the one running peer:"),
        (1, 0, "restarts the one peer, which is not running:"),
    ],
)
def test_restarted_peers_are_not_reported_as_running(peers: int, running: int, words: str) -> None:
    field = FieldChange(path=IMAGE, old="v1", new="v2")
    restart = change(
        Action.UPDATE,
        statefulset(scale=peers, running=running),
        {**statefulset(scale=peers), "spec": ON_DELETE},
        fields=(field,),
        restarts=peers,
    )
    plan = plan_of(restart)
    layout = layout_of(plan.changes, verbose=False)
    entries = experiment_lines(plan.experiments[0], layout, removed_in=None, withheld=False)
    assert words in join([entry.line for entry in entries], paint=False)


class ClusterWithoutPods:
    """A cluster whose credentials do not allow reading pods and events."""

    def pages(self, kind: str, **how: Any) -> Any:
        raise Forbidden(f"list {sorted(how)}", where=kind)


def test_list_works_without_the_right_to_read_pods() -> None:
    cluster: Any = ClusterWithoutPods()
    assert find_troubled_pods(cluster, "experiment", {"a": "n", "b": "m"}, lambda pod: True) == ()
    assert read_warnings(cluster, ["n"]) == ()


@pytest.mark.live
def test_list_and_status_show_why_peers_do_not_run(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The peers of one experiment run; the peers of the other experiment are unschedulable."""
    lab.edit("purple", "memory: 16Mi", "memory: 900Gi")
    assert lab.run("sync", "--no-wait").code == 0
    assert lab.run("sync", "blue", "--timeout", "60s").code == 0
    lab.run("sync", "purple", "--timeout", "60s")
    listed = lab.run("list")
    assert listed.code == 0
    assert "failing: Unschedulable" in listed.out
    assert listed.out.count("in sync") == 2
    assert lab.run("list", "--exit-code").code == 4
    assert lab.run("status", "purple", "--exit-code").code == 4
    assert lab.run("status", "blue", "--exit-code").code == 0
    rows = json.loads(lab.run("list", "--output", "json").out)["experiments"]
    assert [(row["state"], row["health"]) for row in rows] == [("in sync", "ok"), ("in sync", "failing")]
    assert rows[1]["healthReason"] == "Unschedulable"
    assert "node" in rows[1]["healthMessage"]
    # The purple of this other lab is in the namespace `default`, so the pods above are not its own.
    # The page must have room for the pods of all tests, which have experiments with the same names.
    monkeypatch.setattr("nimlab.cluster.pod_reader._PAGE_SIZE", 10_000)
    other_lab = {"purple": "default", "blue": lab.namespace}
    found = find_troubled_pods(lab.cluster, "experiment", other_lab, lambda pod: True)
    names = [f"nimp2p-exp-blue-{number}" for number in range(4)]
    assert [(p["metadata"]["namespace"], p["metadata"]["name"]) for p in found] == [
        (lab.namespace, name) for name in names
    ]


@pytest.mark.live
def test_rejected_peers_are_reported_only_from_events_of_this_statefulset(lab: Lab) -> None:
    assert lab.run("sync").code == 0
    lab.cluster.create(
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "none", "namespace": lab.namespace},
            "spec": {"hard": {"pods": "0"}},
        }
    )
    lab.edit("blue", "peers: 4", "peers: 6")
    assert lab.run("sync", "blue", "--timeout", "40s").code == 4
    listed = lab.run("list")
    assert "failing: FailedCreate" in listed.out
    lab.kubectl("delete", "resourcequota", "none")
    name = next(n for n in lab.names("StatefulSet") if "blue" in n)
    lab.kubectl("delete", "statefulset", name)
    answer = lab.run("sync", "blue", "--timeout", "60s")
    assert answer.code == 0, answer.err
    assert "FailedCreate" not in lab.run("status", "blue").out
    assert "failing" not in lab.run("list").out
