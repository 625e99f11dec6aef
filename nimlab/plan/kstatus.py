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

from nimlab.objects.manifest import Manifest
from nimlab.objects.masking import redact, secrets_in


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
    """Why a pod doesn't run; `pod` is its name, or that of the object of `kind` when there is no pod.

    `fatal` means that waiting longer won't help. `since` is when it began, RFC 3339, where time decides that.
    """

    pod: str
    reason: str
    message: str
    since: str | None
    fatal: bool
    kind: str = "Pod"


_UNSCHEDULABLE: Final = "Unschedulable"
_UNSCHEDULABLE_GRACE: Final = timedelta(seconds=15)  # kstatus' figure: a node may be joining
_FATAL_WAITING: Final = frozenset({
    "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError",
    "CreateContainerError", "CrashLoopBackOff", "RunContainerError",
})  # fmt: skip
_SAID_CHARACTERS: Final = 300  # of a container's last words; a kubelet keeps up to 4,096 bytes of them
_EARLY_WAITING: Final = frozenset({"ErrImagePull"})
_OOM_KILLED: Final = "OOMKilled"
_NOT_READY: Final = "NotReady"
_NODE_LOST: Final = "NodeLost"
_LEAVING: Final = "Terminating"
_PASSING: Final = frozenset({_NOT_READY, _LEAVING})
_PASSING_GRACE: Final = timedelta(seconds=30)
_MEMORABLE: Final = timedelta(minutes=10)  # a container that was killed so recently is likely to be again


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
    if pod["metadata"].get("deletionTimestamp"):
        return _overdue_trouble(pod)
    if status.get("phase") == "Failed":
        return Trouble(
            pod=name,
            reason=_failure_of(status),
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
            trouble = _container_trouble(pod, container, containers) or _ended_trouble(pod, container, now)
            if trouble is not None:
                return trouble
    return _scheduling_trouble(name, status, now) or _readiness_trouble(pod, status)


def ripened(trouble: Trouble, now: datetime) -> Trouble:
    """Return the trouble as it stands now: what may still pass becomes fatal once it has lasted too long."""
    if trouble.fatal or trouble.reason != _UNSCHEDULABLE or trouble.since is None:
        return trouble
    return replace(trouble, fatal=now - datetime.fromisoformat(trouble.since) > _UNSCHEDULABLE_GRACE)


def is_due(trouble: Trouble, now: datetime) -> bool:
    """Return False for what every pod goes through, as long as it hasn't lasted too long."""
    since = parse_time(trouble.since)
    return trouble.reason not in _PASSING or since is None or now - since > _PASSING_GRACE


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
        kind="StatefulSet",
    )


def warning_trouble(event: Manifest, now: datetime) -> Trouble | None:
    """Return what a recent warning about a pod tells; None for any other event."""
    about, at = event.get("involvedObject") or {}, seen_at(event)
    if about.get("kind") != "Pod" or event.get("type") != "Warning" or at is None or now - at >= _MEMORABLE:
        return None
    reason = str(event.get("reason") or "Warning")
    return Trouble(
        pod=str(about.get("name", "")),
        reason=_UNSCHEDULABLE if reason == "FailedScheduling" else reason,
        message=str(event.get("message") or reason),
        since=event.get("firstTimestamp"),
        fatal=False,
    )


def seen_at(event: Manifest) -> datetime | None:
    """Return when an event was last seen: old and new kinds of events say it in different places."""
    series: Mapping[str, Any] = event.get("series") or {}
    times = (
        event.get("lastTimestamp"),
        series.get("lastObservedTime"),
        event.get("eventTime"),
        (event.get("metadata") or {}).get("creationTimestamp"),
    )
    return next((parsed for time in times if time and (parsed := parse_time(str(time)))), None)


def parse_time(text: str | None) -> datetime | None:
    """Return the time that RFC 3339 text says; None where it says none."""
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None


def spec_changed_at(live: Manifest) -> datetime | None:
    """Return when anybody last wrote an object, its status left out; None where that isn't recorded."""
    return _written_at(live, ())


def template_changed_at(live: Manifest) -> datetime | None:
    """Return when a workload's pod template was last written; None where that isn't recorded."""
    return _written_at(live, ("f:spec", "f:template"))


def _written_at(live: Manifest, path: tuple[str, ...]) -> datetime | None:
    """The newest time of a manager that owns something below a path."""
    entries = live["metadata"].get("managedFields")
    times = [parse_time(live["metadata"].get("creationTimestamp"))]
    for entry in entries if isinstance(entries, list) else ():
        fields: Any = entry.get("fieldsV1")
        for name in path:
            fields = fields.get(name) if isinstance(fields, Mapping) else None
        if fields is not None and entry.get("subresource") != "status":
            times.append(parse_time(entry.get("time")))
    return max((time for time in times if time is not None), default=None)


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
        last = (container.get("lastState") or {}).get("terminated") or {}
        reason, message = _restart_words(pod, container, last, reason)
    else:
        message = said or f"container {container.get('name')} can't be started"
    name = pod["metadata"]["name"]
    return Trouble(pod=name, reason=reason, message=message, since=None, fatal=reason not in _EARLY_WAITING)


def _restart_words(
    pod: Manifest, container: Mapping[str, Any], last: Mapping[str, Any], reason: str
) -> tuple[str, str]:
    """Why a container is restarted again and again: too much memory counts more than the waiting between."""
    name, count = container.get("name"), container.get("restartCount", 0)
    if last.get("reason") == _OOM_KILLED:
        return _OOM_KILLED, f"container {name} uses more memory than its limit: {count} restarts"
    code = f", last exit code {last['exitCode']}" if "exitCode" in last else ""
    said = " ".join(_said(last.get("message"), pod).split())[-_SAID_CHARACTERS:]
    message = f"container {name} ends again and again: {count} restarts{code}"
    return reason, message + (f": {said}" if said else "")


def _ended_trouble(pod: Manifest, container: Mapping[str, Any], now: datetime) -> Trouble | None:
    """A container that has failed and is about to be restarted, or was killed a short while ago."""
    state, last = container.get("state") or {}, (container.get("lastState") or {}).get("terminated") or {}
    ended = state.get("terminated") or last
    reason = str(ended.get("reason") or "Error")
    if not ended or (ended.get("exitCode") == 0 and reason != _OOM_KILLED):
        return None
    finished = parse_time(ended.get("finishedAt"))
    is_recent = reason == _OOM_KILLED and finished is not None and now - finished < _MEMORABLE
    if "running" in state and container.get("ready") and not is_recent:
        return None
    if reason == _OOM_KILLED:
        _, message = _restart_words(pod, container, ended, reason)
    else:
        said = " ".join(_said(ended.get("message"), pod).split())[-_SAID_CHARACTERS:]
        message = f"container {container.get('name')} has ended with exit code {ended.get('exitCode')}"
        message += f": {said}" if said else ""
    return Trouble(
        pod=pod["metadata"]["name"],
        reason=reason,
        message=message,
        since=ended.get("finishedAt"),
        fatal=False,
    )


def _failure_of(status: Mapping[str, Any]) -> str:
    """Why a pod has failed, in a word: its own, or its container's."""
    ended = [(c.get("state") or {}).get("terminated") or {} for c in status.get("containerStatuses") or ()]
    killed = any(e.get("reason") == _OOM_KILLED for e in ended)
    return str(status.get("reason") or (_OOM_KILLED if killed else "Failed"))


def _overdue_trouble(pod: Manifest) -> Trouble:
    """A pod that is being deleted; its deletionTimestamp is the time at which it has to be gone."""
    finalizers = pod["metadata"].get("finalizers") or ()
    node = (pod.get("spec") or {}).get("nodeName")
    if finalizers:
        holder = f"finalizer `{finalizers[0]}` holds it"
    else:
        holder = f"node {node} hasn't confirmed that it has ended" if node else "it was never on a node"
    return Trouble(
        pod=pod["metadata"]["name"],
        reason=_LEAVING,
        message=f"it is being deleted; {holder}",
        since=pod["metadata"]["deletionTimestamp"],
        fatal=False,
    )


def _readiness_trouble(pod: Manifest, status: Mapping[str, Any]) -> Trouble | None:
    """A pod whose containers run, and that still isn't ready: a probe fails, or its node is silent."""
    name, node = pod["metadata"]["name"], (pod.get("spec") or {}).get("nodeName")
    lost = f"node {node} doesn't report its pods any more"
    if status.get("reason") == _NODE_LOST or status.get("phase") == "Unknown":
        return Trouble(pod=name, reason=_NODE_LOST, message=lost, since=None, fatal=False)
    ready = _condition(status, "Ready")
    containers = status.get("containerStatuses") or ()
    if ready.get("status") != "False" or not containers:
        return None
    if not all("running" in (c.get("state") or {}) for c in containers):
        return None
    since = ready.get("lastTransitionTime")
    unready = [str(c.get("name")) for c in containers if not c.get("ready")]
    if unready:
        message = f"container {unready[0]} runs, but its startup or readiness probe doesn't succeed"
        return Trouble(pod=name, reason=_NOT_READY, message=message, since=since, fatal=False)
    if (pod.get("spec") or {}).get("readinessGates"):
        message = str(ready.get("message") or "a readiness gate isn't open")
        return Trouble(pod=name, reason=_NOT_READY, message=message, since=since, fatal=False)
    return Trouble(pod=name, reason=_NODE_LOST, message=lost, since=since, fatal=False)


def _scheduling_trouble(pod: str, status: Mapping[str, Any], now: datetime) -> Trouble | None:
    scheduled = _condition(status, "PodScheduled")
    reason = str(scheduled.get("reason") or "")
    if scheduled.get("status") != "False" or reason not in (_UNSCHEDULABLE, "SchedulingGated"):
        return None
    trouble = Trouble(
        pod=pod,
        reason=reason,
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
