"""Pods and events -> the reason why a peer does not run.

In: live Pods and Events. Out: a `Trouble` with the worst reason, or None. Pure; the time is an argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from nimlab.objects.manifest import Manifest
from nimlab.objects.masking import redact, secrets_in
from nimlab.plan.kstatus import condition_of, parse_time, seen_at


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


def after_grace_period(trouble: Trouble, now: datetime) -> Trouble:
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
        kind="StatefulSet",
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
        last = (container.get("lastState") or {}).get("terminated") or {}
        reason, message = _restart_words(pod, container, last, reason)
    else:
        message = said or f"container {container.get('name')} can't be started"
    name = pod["metadata"]["name"]
    return Trouble(pod=name, reason=reason, message=message, since=None, fatal=reason not in _EARLY_WAITING)


def _scheduling_trouble(pod: str, status: Mapping[str, Any], now: datetime) -> Trouble | None:
    scheduled = condition_of(status, "PodScheduled")
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
    return after_grace_period(trouble, now)


def is_due(trouble: Trouble, now: datetime) -> bool:
    """Return False for what every pod goes through, as long as it hasn't lasted too long."""
    since = parse_time(trouble.since)
    return trouble.reason not in _PASSING or since is None or now - since > _PASSING_GRACE


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
    ready = condition_of(status, "Ready")
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


_OOM_KILLED: Final = "OOMKilled"


_NOT_READY: Final = "NotReady"


_NODE_LOST: Final = "NodeLost"


_LEAVING: Final = "Terminating"


_PASSING: Final = frozenset({_NOT_READY, _LEAVING})


_PASSING_GRACE: Final = timedelta(seconds=30)


_MEMORABLE: Final = timedelta(minutes=10)  # a container that was killed so recently is likely to be again
