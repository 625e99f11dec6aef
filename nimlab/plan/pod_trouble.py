"""Troubles of pods: the reasons why a peer does not run.

In: a live Pod or Event, and the time. Out: a `Trouble` with the reason, or None. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from nimlab.objects.manifest import Manifest
from nimlab.objects.mask_secrets import redact, secrets_in
from nimlab.plan.kstatus import condition_of, last_seen_at, parse_time

_UNSCHEDULABLE: Final = "Unschedulable"
_UNSCHEDULABLE_GRACE: Final = timedelta(seconds=15)  # as in kstatus, because a new node may be joining
_SCHEDULING_REASONS: Final = frozenset({_UNSCHEDULABLE, "SchedulingGated"})

_CRASH_LOOP: Final = "CrashLoopBackOff"
_OOM_KILLED: Final = "OOMKilled"
_FATAL_WAITING: Final = frozenset({
    "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError",
    "CreateContainerError", _CRASH_LOOP, "RunContainerError",
})  # fmt: skip
_EARLY_WAITING: Final = frozenset({"ErrImagePull"})  # becomes ImagePullBackOff if the error persists

_NOT_READY: Final = "NotReady"
_NODE_LOST: Final = "NodeLost"
_TERMINATING: Final = "Terminating"
_TRANSIENT: Final = frozenset({_NOT_READY, _TERMINATING})  # normal pods are in these states for a short time
_TRANSIENT_GRACE: Final = timedelta(seconds=30)
_RECENT: Final = timedelta(minutes=10)  # a container that was killed recently will probably be killed again

_MESSAGE_CHARACTERS: Final = 300  # a termination message has up to 4,096 bytes; only its end is shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """The reason why a pod does not run, or why another object needs attention.

    `kind` is the kind of the object; `pod` is its name, even if it is not a pod. `fatal` is True if waiting
    longer does not help. `since` is the time at which the trouble began, in RFC 3339.
    """

    pod: str
    reason: str
    message: str
    since: str | None
    fatal: bool
    kind: str = "Pod"


def pod_trouble(pod: Manifest, now: datetime) -> Trouble | None:
    """Return the trouble that prevents a pod from running; None if it runs or is still starting normally."""
    status = pod.get("status") or {}
    name = pod["metadata"]["name"]
    if pod["metadata"].get("deletionTimestamp"):
        return _deletion_trouble(pod)
    if status.get("phase") == "Failed":
        return Trouble(
            pod=name,
            reason=_failure_reason(status),
            message=_redacted(status.get("message"), pod) or "the pod has failed",
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
            trouble = _waiting_trouble(pod, container, containers) or _exit_trouble(pod, container, now)
            if trouble is not None:
                return trouble
    return _scheduling_trouble(name, status, now) or _readiness_trouble(pod, status)


def event_trouble(event: Manifest) -> Trouble | None:
    """Return the trouble in a FailedCreate event about a StatefulSet; None for any other event.

    Such an event contains the reason why the server rejects the pods, such as a quota. The message is not
    redacted, because redacting requires the StatefulSet's secret values, which the event does not contain.
    """
    about = event.get("involvedObject") or {}
    if about.get("kind") != "StatefulSet" or event.get("reason") != "FailedCreate":
        return None
    message = str(event.get("message") or "pods cannot be created")
    return Trouble(
        pod=str(about.get("name", "")),
        reason="FailedCreate",
        message=message.rpartition("failed error: ")[2],
        since=event.get("firstTimestamp"),
        fatal=True,
        kind="StatefulSet",
    )


def warning_trouble(event: Manifest, now: datetime) -> Trouble | None:
    """Return the trouble in a recent Warning event about a pod; None for any other event."""
    about, at = event.get("involvedObject") or {}, last_seen_at(event)
    if about.get("kind") != "Pod" or event.get("type") != "Warning" or at is None or now - at >= _RECENT:
        return None
    reason = str(event.get("reason") or "Warning")
    return Trouble(
        pod=str(about.get("name", "")),
        reason=_UNSCHEDULABLE if reason == "FailedScheduling" else reason,
        message=str(event.get("message") or reason),
        since=event.get("firstTimestamp"),
        fatal=False,
    )


def after_grace_period(trouble: Trouble, now: datetime) -> Trouble:
    """Return the trouble; it is fatal if the pod has been unschedulable for longer than the grace period."""
    if trouble.fatal or trouble.reason != _UNSCHEDULABLE or trouble.since is None:
        return trouble
    return replace(trouble, fatal=now - datetime.fromisoformat(trouble.since) > _UNSCHEDULABLE_GRACE)


def is_due(trouble: Trouble, now: datetime) -> bool:
    """Return False during the grace period of a transient state, because normal pods pass through it."""
    since = parse_time(trouble.since)
    return trouble.reason not in _TRANSIENT or since is None or now - since > _TRANSIENT_GRACE


def _redacted(message: object, pod: Manifest) -> str:
    """Return a message of a kubelet or a container with the pod's secrets masked."""
    return redact(str(message), secrets_in(pod)) if message else ""


def _termination_message(message: object, pod: Manifest) -> str:
    """Return `: ` and the end of a termination message on one line; empty if there is no message."""
    text = " ".join(_redacted(message, pod).split())[-_MESSAGE_CHARACTERS:]
    return f": {text}" if text else ""


def _waiting_trouble(
    pod: Manifest, container: Mapping[str, Any], containers: Mapping[str, Mapping[str, Any]]
) -> Trouble | None:
    """Return the trouble of a container that waits for its start or restart."""
    waiting = (container.get("state") or {}).get("waiting") or {}
    reason = str(waiting.get("reason") or "")
    if reason not in _FATAL_WAITING | _EARLY_WAITING:
        return None
    image = containers.get(str(container.get("name")), {}).get("image") or container.get("image")
    details = _redacted(waiting.get("message"), pod)
    if "mage" in reason:
        message = f"image {image} cannot be pulled" + (f": {details}" if details else "")
    elif reason == _CRASH_LOOP:
        last = (container.get("lastState") or {}).get("terminated") or {}
        reason, message = _restart_reason(pod, container, last, reason)
    else:
        message = details or f"container {container.get('name')} cannot be started"
    name = pod["metadata"]["name"]
    return Trouble(pod=name, reason=reason, message=message, since=None, fatal=reason not in _EARLY_WAITING)


def _restart_reason(
    pod: Manifest, container: Mapping[str, Any], last: Mapping[str, Any], reason: str
) -> tuple[str, str]:
    """Return the reason and the message for a container that restarts: it was out of memory, or it exited."""
    name, count = container.get("name"), container.get("restartCount", 0)
    if last.get("reason") == _OOM_KILLED:
        return _OOM_KILLED, f"container {name} exceeds its memory limit: {count} restarts"
    code = f", last exit code {last['exitCode']}" if "exitCode" in last else ""
    message = f"container {name} keeps exiting: {count} restarts{code}"
    return reason, message + _termination_message(last.get("message"), pod)


def _exit_trouble(pod: Manifest, container: Mapping[str, Any], now: datetime) -> Trouble | None:
    """Return the trouble of a container that failed and has not restarted, or that was killed recently."""
    state, last = container.get("state") or {}, (container.get("lastState") or {}).get("terminated") or {}
    ended = state.get("terminated") or last
    reason = str(ended.get("reason") or "Error")
    if not ended or (ended.get("exitCode") == 0 and reason != _OOM_KILLED):
        return None
    finished = parse_time(ended.get("finishedAt"))
    is_recent = reason == _OOM_KILLED and finished is not None and now - finished < _RECENT
    if "running" in state and container.get("ready") and not is_recent:
        return None
    if reason == _OOM_KILLED:
        _, message = _restart_reason(pod, container, ended, reason)
    else:
        message = f"container {container.get('name')} exited with code {ended.get('exitCode')}"
        message += _termination_message(ended.get("message"), pod)
    return Trouble(
        pod=pod["metadata"]["name"],
        reason=reason,
        message=message,
        since=ended.get("finishedAt"),
        fatal=False,
    )


def _failure_reason(status: Mapping[str, Any]) -> str:
    """Return the reason why a pod failed, or why its container failed if the pod has no reason."""
    ended = [(c.get("state") or {}).get("terminated") or {} for c in status.get("containerStatuses") or ()]
    killed = any(e.get("reason") == _OOM_KILLED for e in ended)
    return str(status.get("reason") or (_OOM_KILLED if killed else "Failed"))


def _scheduling_trouble(pod: str, status: Mapping[str, Any], now: datetime) -> Trouble | None:
    scheduled = condition_of(status, "PodScheduled")
    reason = str(scheduled.get("reason") or "")
    if scheduled.get("status") != "False" or reason not in _SCHEDULING_REASONS:
        return None
    trouble = Trouble(
        pod=pod,
        reason=reason,
        message=str(scheduled.get("message") or "no suitable node"),
        since=scheduled.get("lastTransitionTime"),
        fatal=False,
    )
    return after_grace_period(trouble, now)


def _deletion_trouble(pod: Manifest) -> Trouble:
    """Return the trouble of a pod that is being deleted.

    The trouble begins at the deletionTimestamp, the time by which the pod should have stopped.
    """
    finalizers = pod["metadata"].get("finalizers") or ()
    node = (pod.get("spec") or {}).get("nodeName")
    if finalizers:
        blocker = f"finalizer `{finalizers[0]}` blocks the deletion"
    else:
        blocker = f"node {node} has not confirmed that it stopped" if node else "it was never scheduled"
    return Trouble(
        pod=pod["metadata"]["name"],
        reason=_TERMINATING,
        message=f"it is being deleted; {blocker}",
        since=pod["metadata"]["deletionTimestamp"],
        fatal=False,
    )


def _readiness_trouble(pod: Manifest, status: Mapping[str, Any]) -> Trouble | None:
    """Return the trouble of a pod whose containers run, but which is not ready.

    Either a probe fails, a readiness gate is not fulfilled, or the node is down.
    """
    name, node = pod["metadata"]["name"], (pod.get("spec") or {}).get("nodeName")
    lost = f"node {node} no longer reports its pods"
    if status.get("reason") == _NODE_LOST or status.get("phase") == "Unknown":
        return Trouble(pod=name, reason=_NODE_LOST, message=lost, since=None, fatal=False)
    ready = condition_of(status, "Ready")
    containers = status.get("containerStatuses") or ()
    if ready.get("status") != "False" or not containers:
        return None
    if not all("running" in (c.get("state") or {}) for c in containers):
        return None
    since = ready.get("lastTransitionTime")
    unready = [str(c.get("name")) for c in containers if not c.get("ready")]
    if unready:
        message = f"container {unready[0]} runs, but its startup or readiness probe fails"
        return Trouble(pod=name, reason=_NOT_READY, message=message, since=since, fatal=False)
    if (pod.get("spec") or {}).get("readinessGates"):
        message = str(ready.get("message") or "a readiness gate is not fulfilled")
        return Trouble(pod=name, reason=_NOT_READY, message=message, since=since, fatal=False)
    return Trouble(pod=name, reason=_NODE_LOST, message=lost, since=since, fatal=False)
