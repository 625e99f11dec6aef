"""Live object -> Current, InProgress, Failed, Terminating, NotFound or Unknown, and one line why.

In: live objects. Out: kstatus' words, computed the way kstatus does, with two gaps closed: a StatefulSet
under OnDelete is judged by its revisions, and pods and events tell what a StatefulSet never says, that
waiting won't help. Pure; the time is an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Final

from nimlab.manifest import Manifest
from nimlab.masking import redact, secrets_in


class State(Enum):
    """kstatus' words."""

    CURRENT = "Current"
    IN_PROGRESS = "InProgress"
    FAILED = "Failed"
    TERMINATING = "Terminating"
    NOT_FOUND = "NotFound"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A state and one line why."""

    state: State
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerCount:
    """Pods of a workload: asked for, ready, of the newest revision, there at all."""

    wanted: int
    running: int
    updated: int
    existing: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why a pod doesn't run; `pod` is its name, or the workload's when there is no pod.

    `fatal` means that waiting longer won't help. `since` is when it began, RFC 3339, where time decides that.
    """

    pod: str
    reason: str
    message: str
    since: str | None
    fatal: bool


_UNSCHEDULABLE: Final = "Unschedulable"
_UNSCHEDULABLE_GRACE: Final = timedelta(seconds=15)  # kstatus' figure: a node may be joining
_FATAL_WAITING: Final = frozenset({
    "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError",
    "CreateContainerError", "CrashLoopBackOff", "RunContainerError",
})  # fmt: skip
_SAID_CHARACTERS: Final = 300  # of a container's last words; a kubelet keeps up to 4,096 bytes of them
_EARLY_WAITING: Final = frozenset({"ErrImagePull"})


def status_of(live: Manifest | None) -> Status:
    """Return the status of any object."""
    if live is None:
        return Status(state=State.NOT_FOUND, message="it doesn't exist")
    if live["metadata"].get("deletionTimestamp"):
        return Status(state=State.TERMINATING, message="it is being deleted")
    status = live.get("status") or {}
    generation = live["metadata"].get("generation")
    observed = status.get("observedGeneration")
    if observed is not None and observed != generation:
        return _in_progress("its controller hasn't seen the last change yet")
    for condition, state in (("Reconciling", State.IN_PROGRESS), ("Stalled", State.FAILED)):
        found = _condition(status, condition)
        if found.get("status") == "True":
            return Status(state=state, message=str(found.get("message") or condition))
    judge = _BY_KIND.get(live["kind"], _ready_condition)
    return judge(live)


def peers_of(workload: Manifest) -> PeerCount:
    """Return how many pods a workload has: an experiment's are its peers."""
    status = workload.get("status") or {}
    if workload["kind"] == "DaemonSet":
        return PeerCount(
            wanted=int(status.get("desiredNumberScheduled") or 0),
            running=int(status.get("numberReady") or 0),
            updated=int(status.get("updatedNumberScheduled") or 0),
            existing=int(status.get("currentNumberScheduled") or 0),
        )
    return PeerCount(
        wanted=int((workload.get("spec") or {}).get("replicas", 1)),
        running=int(status.get("readyReplicas") or 0),
        updated=int(status.get("updatedReplicas") or 0),
        existing=int(status.get("replicas") or 0),
    )


def is_observed(workload: Manifest) -> bool:
    """Return True when its controller has seen the workload as it is: then its counts are of that."""
    seen = (workload.get("status") or {}).get("observedGeneration")
    return bool(seen == workload["metadata"].get("generation"))


def restart_pending(statefulset: Manifest) -> bool:
    """Return True when peers of an older revision still run under OnDelete.

    Under OnDelete `currentRevision` never moves, so the counts decide (docs/server-side-apply.md).
    """
    spec = statefulset.get("spec") or {}
    if (spec.get("updateStrategy") or {}).get("type") != "OnDelete":
        return False
    if not is_observed(statefulset):
        return False
    count = peers_of(statefulset)
    return count.updated < count.existing


def pod_trouble(pod: Manifest, now: datetime) -> Trouble | None:
    """Return what keeps a pod from running, None if nothing does (it may just be starting)."""
    status = pod.get("status") or {}
    name = pod["metadata"]["name"]
    if status.get("phase") == "Failed":
        return Trouble(
            pod=name,
            reason=str(status.get("reason") or "Failed"),
            message=_said(status.get("message"), pod) or "the pod has failed",
            since=None,
            fatal=True,
        )
    containers = {
        c["name"]: c
        for field in ("initContainers", "containers")
        for c in (pod.get("spec") or {}).get(field) or ()
    }
    for field in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(field) or ():
            trouble = _container_trouble(pod, container, containers)
            if trouble is not None:
                return trouble
    return _scheduling_trouble(name, status, now)


def ripened(trouble: Trouble, now: datetime) -> Trouble:
    """Return the trouble as it stands now: what may still pass becomes fatal once it has lasted too long."""
    if trouble.fatal or trouble.reason != _UNSCHEDULABLE or trouble.since is None:
        return trouble
    return replace(trouble, fatal=now - datetime.fromisoformat(trouble.since) > _UNSCHEDULABLE_GRACE)


def event_trouble(event: Manifest) -> Trouble | None:
    """Return the refusal that a StatefulSet's FailedCreate event tells (quota, admission, limits).

    In the words of the event, which doesn't know what of the StatefulSet is secret.
    """
    about = event.get("involvedObject") or {}
    if about.get("kind") != "StatefulSet" or event.get("reason") != "FailedCreate":
        return None
    message = str(event.get("message") or "pods can't be created")
    return Trouble(
        pod=str(about.get("name", "")),
        reason="FailedCreate",
        message=message.rpartition("failed error: ")[2],
        since=event.get("firstTimestamp"),
        fatal=True,
    )


def _said(message: object, pod: Manifest) -> str:
    """What a kubelet or a dying container says, without the pod's own secrets: it may echo what it ran."""
    return redact(str(message), secrets_in(pod)) if message else ""


def _container_trouble(
    pod: Manifest, container: Mapping[str, Any], containers: Mapping[str, Mapping[str, Any]]
) -> Trouble | None:
    waiting = (container.get("state") or {}).get("waiting") or {}
    reason = str(waiting.get("reason") or "")
    if reason not in _FATAL_WAITING | _EARLY_WAITING:
        return None
    image = containers.get(str(container.get("name")), {}).get("image") or container.get("image")
    said = _said(waiting.get("message"), pod)
    if "mage" in reason:
        message = f"image {image} can't be had" + (f": {said}" if said else "")
    elif reason == "CrashLoopBackOff":
        count = container.get("restartCount", 0)
        last = (container.get("lastState") or {}).get("terminated") or {}
        code = f", last exit code {last['exitCode']}" if "exitCode" in last else ""
        said = " ".join(_said(last.get("message"), pod).split())[-_SAID_CHARACTERS:]
        message = f"container {container.get('name')} ends again and again: {count} restarts{code}"
        message += f": {said}" if said else ""
    else:
        message = said or f"container {container.get('name')} can't be started"
    name = pod["metadata"]["name"]
    return Trouble(pod=name, reason=reason, message=message, since=None, fatal=reason in _FATAL_WAITING)


def _scheduling_trouble(pod: str, status: Mapping[str, Any], now: datetime) -> Trouble | None:
    scheduled = _condition(status, "PodScheduled")
    if scheduled.get("status") != "False" or scheduled.get("reason") != _UNSCHEDULABLE:
        return None
    trouble = Trouble(
        pod=pod,
        reason=_UNSCHEDULABLE,
        message=str(scheduled.get("message") or "no node has room for it"),
        since=scheduled.get("lastTransitionTime"),
        fatal=False,
    )
    return ripened(trouble, now)


def _statefulset(live: Manifest) -> Status:
    count = peers_of(live)
    spec, status = live["spec"], live.get("status") or {}
    if status.get("observedGeneration") is None:
        return _in_progress("its controller hasn't seen it yet")
    if count.existing < count.wanted:
        return _in_progress(f"{count.existing} of {count.wanted} peers exist")
    if count.existing > count.wanted:
        return _in_progress(f"{count.existing - count.wanted} peers still have to go")
    if count.running < count.wanted:
        return _in_progress(f"{count.running} of {count.wanted} peers are ready")
    strategy = spec.get("updateStrategy") or {}
    partition = int((strategy.get("rollingUpdate") or {}).get("partition") or 0)
    due = count.wanted if strategy.get("type") == "OnDelete" else count.wanted - partition
    if count.updated < due:
        return _in_progress(f"{count.updated} of {due} peers are of the newest revision")
    available = int(status.get("availableReplicas") or 0)
    if spec.get("minReadySeconds") and available < count.wanted:
        return _in_progress(f"{available} of {count.wanted} peers are available")
    return _current(f"{count.running} of {count.wanted} peers run")


def _deployment(live: Manifest) -> Status:
    status = live.get("status") or {}
    wanted = int((live.get("spec") or {}).get("replicas", 1))
    progressing = _condition(status, "Progressing")
    if progressing.get("reason") == "ProgressDeadlineExceeded":
        message = str(progressing.get("message") or "the deadline is exceeded")
        return Status(state=State.FAILED, message=message)
    for name in ("replicas", "updatedReplicas", "availableReplicas", "readyReplicas"):
        count = int(status.get(name) or 0)
        if count != wanted:
            return _in_progress(f"{name}: {count} of {wanted}")
    return _current(f"{wanted} of {wanted} pods run")


def _daemonset(live: Manifest) -> Status:
    status = live.get("status") or {}
    if status.get("observedGeneration") is None:
        return _in_progress("its controller hasn't seen it yet")
    wanted = int(status.get("desiredNumberScheduled") or 0)
    for name in (
        "currentNumberScheduled",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberReady",
    ):
        count = int(status.get(name) or 0)
        if count < wanted:
            return _in_progress(f"{name}: {count} of {wanted}")
    return _current(f"{wanted} of {wanted} pods run")


def _pod(live: Manifest) -> Status:
    status = live.get("status") or {}
    if status.get("phase") == "Failed":
        return Status(state=State.FAILED, message=str(status.get("message") or "it has failed"))
    if status.get("phase") == "Succeeded":
        return _current("it has ended well")
    if _condition(status, "Ready").get("status") == "True":
        return _current("it runs")
    return _in_progress(f"phase {status.get('phase', 'unknown')}")


def _namespace(live: Manifest) -> Status:
    phase = (live.get("status") or {}).get("phase")
    return _current("it is active") if phase == "Active" else _in_progress(f"phase {phase}")


def _always_current(live: Manifest) -> Status:
    del live
    return _current("it exists")


def _ready_condition(live: Manifest) -> Status:
    ready = _condition(live.get("status") or {}, "Ready")
    if ready and ready.get("status") != "True":
        return _in_progress(str(ready.get("message") or "not ready"))
    return _current("it exists")


_BY_KIND: Final[Mapping[str, Callable[[Manifest], Status]]] = {
    "StatefulSet": _statefulset,
    "Deployment": _deployment,
    "DaemonSet": _daemonset,
    "Pod": _pod,
    "Namespace": _namespace,
    "ConfigMap": _always_current,
    "Secret": _always_current,
    "Service": _always_current,
}


def _condition(status: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    conditions: Sequence[Mapping[str, Any]] = status.get("conditions") or ()
    return next((c for c in conditions if c.get("type") == name), {})


def _current(message: str) -> Status:
    return Status(state=State.CURRENT, message=message)


def _in_progress(message: str) -> Status:
    return Status(state=State.IN_PROGRESS, message=message)
