"""The status of live objects by the rules of kstatus, and fatal troubles of pods."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from nimlab.objects.manifest import Manifest
from nimlab.plan.kstatus import State, peers_of, restart_pending, status_of
from nimlab.plan.pod_trouble import event_trouble, pod_trouble

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def live(kind: str, status: dict[str, Any] | None = None, **spec: Any) -> Manifest:
    """Return a live object of generation 2."""
    manifest: Manifest = {"kind": kind, "metadata": {"name": "a", "generation": 2}, "spec": spec}
    return {**manifest, "status": status} if status is not None else manifest


FULL = {"observedGeneration": 2, "replicas": 3, "readyReplicas": 3, "updatedReplicas": 3}
ON_DELETE = {"replicas": 3, "updateStrategy": {"type": "OnDelete"}}
ROLLING = {"replicas": 3, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}}


@pytest.mark.parametrize(
    ("item", "state"),
    [
        (None, State.NOT_FOUND),
        (live("StatefulSet", FULL, **ON_DELETE), State.CURRENT),
        (live("StatefulSet", {**FULL, "observedGeneration": 1}, **ON_DELETE), State.IN_PROGRESS),
        (live("StatefulSet", {}, **ON_DELETE), State.IN_PROGRESS),
        (live("StatefulSet", {**FULL, "replicas": 2}, **ON_DELETE), State.IN_PROGRESS),
        (live("StatefulSet", {**FULL, "replicas": 4}, **ON_DELETE), State.IN_PROGRESS),
        (live("StatefulSet", {**FULL, "readyReplicas": 2}, **ON_DELETE), State.IN_PROGRESS),
        (live("StatefulSet", {**FULL, "updatedReplicas": 2}, **ON_DELETE), State.IN_PROGRESS),
        (live("StatefulSet", {**FULL, "updatedReplicas": 2}, **ROLLING), State.IN_PROGRESS),
        (live("StatefulSet", FULL, **ROLLING), State.CURRENT),
        (live("StatefulSet", FULL, minReadySeconds=5, **ON_DELETE), State.IN_PROGRESS),
        (
            live("StatefulSet", {**FULL, "availableReplicas": 3}, minReadySeconds=5, **ON_DELETE),
            State.CURRENT,
        ),
        (live("StatefulSet", {"observedGeneration": 2}, replicas=0), State.CURRENT),
        (live("Deployment", {**FULL, "availableReplicas": 3}, replicas=3), State.CURRENT),
        (live("Deployment", {**FULL, "availableReplicas": 1}, replicas=3), State.IN_PROGRESS),
        (
            live(
                "Deployment",
                {"conditions": [{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]},
            ),
            State.FAILED,
        ),
        (live("DaemonSet", {"observedGeneration": 2, "desiredNumberScheduled": 1}), State.IN_PROGRESS),
        (live("DaemonSet", {"observedGeneration": 2, "desiredNumberScheduled": 0}), State.CURRENT),
        (live("DaemonSet", {}), State.IN_PROGRESS),
        (
            live("Pod", {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}),
            State.CURRENT,
        ),
        (live("Pod", {"phase": "Pending"}), State.IN_PROGRESS),
        (live("Pod", {"phase": "Failed"}), State.FAILED),
        (live("Pod", {"phase": "Succeeded"}), State.CURRENT),
        (live("Namespace", {"phase": "Active"}), State.CURRENT),
        (live("Namespace", {"phase": "Terminating"}), State.IN_PROGRESS),
        (live("ConfigMap"), State.CURRENT),
        (live("Odd", {"conditions": [{"type": "Ready", "status": "False"}]}), State.IN_PROGRESS),
        (live("Odd", {}), State.CURRENT),
        (live("Odd", {"conditions": [{"type": "Stalled", "status": "True"}]}), State.FAILED),
        (live("Odd", {"conditions": [{"type": "Reconciling", "status": "True"}]}), State.IN_PROGRESS),
    ],
)
def test_status_of_each_kind(item: Manifest | None, state: State) -> None:
    status = status_of(item)
    assert status.state is state
    assert status.message


def test_object_that_is_being_deleted_is_terminating() -> None:
    item = live("ConfigMap")
    item["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert status_of(item).state is State.TERMINATING


def test_peers_and_pending_restarts() -> None:
    item = live("StatefulSet", {**FULL, "updatedReplicas": 1}, **ON_DELETE)
    count = peers_of(item)
    assert (count.wanted, count.running, count.updated, count.existing) == (3, 3, 1, 3)
    assert restart_pending(item)
    assert not restart_pending(live("StatefulSet", FULL, **ON_DELETE))
    assert not restart_pending(live("StatefulSet", {**FULL, "updatedReplicas": 1}, **ROLLING))
    unseen = {**FULL, "updatedReplicas": 1, "observedGeneration": 1}
    assert not restart_pending(live("StatefulSet", unseen, **ON_DELETE))


def waiting(reason: str, message: str = "", field: str = "containerStatuses") -> Manifest:
    """Return a pod with a waiting container."""
    status = {"name": "c", "restartCount": 4, "state": {"waiting": {"reason": reason, "message": message}}}
    item = live("Pod", {"phase": "Pending", field: [status]})
    item["spec"] = {field.replace("Statuses", "s"): [{"name": "c", "image": "a/b:v9"}]}
    return item


@pytest.mark.parametrize(
    ("reason", "fatal", "words"),
    [
        ("ImagePullBackOff", True, "a/b:v9"),
        ("ErrImagePull", False, "a/b:v9"),
        ("InvalidImageName", True, "a/b:v9"),
        ("CreateContainerConfigError", True, "no such key"),
        ("CrashLoopBackOff", True, "4 restarts"),
    ],
)
@pytest.mark.parametrize("field", ["containerStatuses", "initContainerStatuses"])
def test_reason_of_a_waiting_container(reason: str, fatal: bool, words: str, field: str) -> None:
    trouble = pod_trouble(waiting(reason, "no such key", field), NOW)
    assert trouble is not None
    assert (trouble.reason, trouble.fatal) == (reason, fatal)
    assert words in trouble.message


def test_termination_message_of_a_container_is_reported() -> None:
    pod = waiting("CrashLoopBackOff", "back-off 10s", "initContainerStatuses")
    (status,) = pod["status"]["initContainerStatuses"]
    message = "the kernel has no netem:\n`modprobe sch_netem`"
    status["lastState"] = {"terminated": {"exitCode": 1, "message": message}}
    trouble = pod_trouble(pod, NOW)
    assert trouble is not None
    assert trouble.message.endswith("last exit code 1: the kernel has no netem: `modprobe sch_netem`")
    status["lastState"]["terminated"]["message"] = "x" * 4096
    trouble = pod_trouble(pod, NOW)
    assert trouble is not None
    assert len(trouble.message) < 400


@pytest.mark.parametrize("reason", ["ImagePullBackOff", "CreateContainerError", "CrashLoopBackOff", ""])
def test_troubles_of_a_pod_contain_no_secret(reason: str) -> None:
    """A kubelet quotes the failed command, and it truncates the start of a long termination message."""
    echo = "node --token=correct-horse: no"
    pod = waiting(reason, echo) if reason else live("Pod", {"phase": "Failed", "message": echo})
    env = [{"name": "API_TOKEN", "value": "correct-horse"}]
    pod["spec"]["containers"] = [{"name": "c", "image": "a:1", "env": env}]
    for status in pod["status"].get("containerStatuses") or ():
        last = f"correct-horse {'x' * 280} --token"
        status["lastState"] = {"terminated": {"exitCode": 1, "message": last}}
    trouble = pod_trouble(pod, NOW)
    assert trouble is not None
    assert "--token" in trouble.message
    assert not any(word in trouble.message for word in ("horse", "orse", "corr"))


def test_starting_pod_has_no_trouble() -> None:
    assert pod_trouble(waiting("ContainerCreating"), NOW) is None
    assert pod_trouble(live("Pod", {"phase": "Running"}), NOW) is None


@pytest.mark.parametrize(("seconds", "fatal"), [(5, False), (20, True)])
def test_unschedulable_pod_becomes_fatal_after_the_grace_period(seconds: int, fatal: bool) -> None:
    since = (NOW - timedelta(seconds=seconds)).isoformat()
    condition = {
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": "0/3 nodes: Insufficient cpu", "lastTransitionTime": since,
    }  # fmt: skip
    trouble = pod_trouble(live("Pod", {"phase": "Pending", "conditions": [condition]}), NOW)
    assert trouble is not None
    assert (trouble.reason, trouble.fatal) == ("Unschedulable", fatal)


def test_failed_and_rejected_pods() -> None:
    trouble = pod_trouble(live("Pod", {"phase": "Failed", "reason": "Evicted", "message": "low disk"}), NOW)
    assert trouble is not None
    assert (trouble.reason, trouble.fatal) == ("Evicted", True)
    event = {
        "involvedObject": {"kind": "StatefulSet", "name": "a"},
        "reason": "FailedCreate",
        "message": "create Pod a-0 in StatefulSet a failed error: pods is forbidden: exceeded quota",
    }
    refused = event_trouble(event)
    assert refused is not None
    assert refused.message == "pods is forbidden: exceeded quota"
    assert event_trouble({**event, "reason": "SuccessfulCreate"}) is None
    assert event_trouble({**event, "involvedObject": {"kind": "Job"}}) is None
