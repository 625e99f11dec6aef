"""Status of a live object: Current, InProgress, Failed, Terminating, NotFound or Unknown, with a reason.

In: live objects. Out: their status by the rules of kstatus, and the counts and times that determine it. This
module adds one rule: a StatefulSet with the strategy OnDelete is Current only if all its pods have the newest
revision. The status of a StatefulSet is never Failed; instead, `pod_trouble` detects troubles for which
waiting does not help. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Final

from nimlab.objects.manifest import Manifest


class State(Enum):
    """The states of kstatus."""

    CURRENT = "Current"
    IN_PROGRESS = "InProgress"
    FAILED = "Failed"
    TERMINATING = "Terminating"
    NOT_FOUND = "NotFound"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A state, and the reason for it in one line."""

    state: State
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerCount:
    """Numbers of a workload's pods.

    `wanted` pods are desired, `running` pods are ready, `updated` pods have the newest revision, and
    `existing` pods exist.
    """

    wanted: int
    running: int
    updated: int
    existing: int


def status_of(live: Manifest | None) -> Status:
    """Return the status of an object; `live` is None if the object does not exist."""
    if live is None:
        return Status(state=State.NOT_FOUND, message="it does not exist")
    if live["metadata"].get("deletionTimestamp"):
        return Status(state=State.TERMINATING, message="it is being deleted")
    status = live.get("status") or {}
    generation = live["metadata"].get("generation")
    observed = status.get("observedGeneration")
    if observed is not None and observed != generation:
        return _in_progress("its controller has not observed the last change yet")
    for name, state in (("Reconciling", State.IN_PROGRESS), ("Stalled", State.FAILED)):
        condition = condition_of(status, name)
        if condition.get("status") == "True":
            return Status(state=state, message=str(condition.get("message") or name))
    status_by_kind = _BY_KIND.get(live["kind"], _ready_condition)
    return status_by_kind(live)


def peers_of(workload: Manifest) -> PeerCount:
    """Return the numbers of a workload's pods; the pods of an experiment are its peers."""
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
    """Return True if the controller has observed the newest generation, so that the counts are up to date."""
    observed = (workload.get("status") or {}).get("observedGeneration")
    return bool(observed == workload["metadata"].get("generation"))


def restart_pending(statefulset: Manifest) -> bool:
    """Return True if the update strategy is OnDelete and peers of an older revision still run.

    With OnDelete, `currentRevision` never changes, so this function compares the counts
    (docs/server-side-apply.md).
    """
    spec = statefulset.get("spec") or {}
    if (spec.get("updateStrategy") or {}).get("type") != "OnDelete":
        return False
    if not is_observed(statefulset):
        return False
    count = peers_of(statefulset)
    return count.updated < count.existing


def condition_of(status: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the condition of this type from a status; an empty map if there is no such condition."""
    conditions: Sequence[Mapping[str, Any]] = status.get("conditions") or ()
    return next((c for c in conditions if c.get("type") == name), {})


def last_seen_at(event: Manifest) -> datetime | None:
    """Return when an event last occurred; None if no time is recorded.

    The name of the field differs between versions of the Event API.
    """
    series: Mapping[str, Any] = event.get("series") or {}
    times = (
        event.get("lastTimestamp"),
        series.get("lastObservedTime"),
        event.get("eventTime"),
        (event.get("metadata") or {}).get("creationTimestamp"),
    )
    return next((parsed for time in times if time and (parsed := parse_time(str(time)))), None)


def parse_time(text: str | None) -> datetime | None:
    """Return the time of an RFC 3339 text; None if the text is empty or malformed."""
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None


def spec_changed_at(live: Manifest) -> datetime | None:
    """Return when a client last wrote the object, apart from its status; None if no time is recorded."""
    return _written_at(live, ())


def template_changed_at(live: Manifest) -> datetime | None:
    """Return when a workload's pod template was last written; None if no time is recorded."""
    return _written_at(live, ("f:spec", "f:template"))


def _written_at(live: Manifest, path: tuple[str, ...]) -> datetime | None:
    """Return the time of the last write by a manager that owns a field below this path.

    If no such write is recorded, return the creation time of the object; None if it is missing too.
    """
    entries = live["metadata"].get("managedFields")
    times = [parse_time(live["metadata"].get("creationTimestamp"))]
    for entry in entries if isinstance(entries, list) else ():
        fields: Any = entry.get("fieldsV1")
        for name in path:
            fields = fields.get(name) if isinstance(fields, Mapping) else None
        if fields is not None and entry.get("subresource") != "status":
            times.append(parse_time(entry.get("time")))
    return max((time for time in times if time is not None), default=None)


def _statefulset(live: Manifest) -> Status:
    count = peers_of(live)
    spec, status = live["spec"], live.get("status") or {}
    if status.get("observedGeneration") is None:
        return _in_progress("its controller has not observed it yet")
    if count.existing < count.wanted:
        return _in_progress(f"{count.existing} of {count.wanted} peers exist")
    if count.existing > count.wanted:
        return _in_progress(f"{count.existing - count.wanted} peers still have to stop")
    if count.running < count.wanted:
        return _in_progress(f"{count.running} of {count.wanted} peers are ready")
    strategy = spec.get("updateStrategy") or {}
    partition = int((strategy.get("rollingUpdate") or {}).get("partition") or 0)
    expected = count.wanted if strategy.get("type") == "OnDelete" else count.wanted - partition
    if count.updated < expected:
        return _in_progress(f"{count.updated} of {expected} peers have the newest revision")
    available = int(status.get("availableReplicas") or 0)
    if spec.get("minReadySeconds") and available < count.wanted:
        return _in_progress(f"{available} of {count.wanted} peers are available")
    return _current(f"{count.running} of {count.wanted} peers run")


def _deployment(live: Manifest) -> Status:
    status = live.get("status") or {}
    wanted = int((live.get("spec") or {}).get("replicas", 1))
    progressing = condition_of(status, "Progressing")
    if progressing.get("reason") == "ProgressDeadlineExceeded":
        message = str(progressing.get("message") or "its progress deadline is exceeded")
        return Status(state=State.FAILED, message=message)
    for name in ("replicas", "updatedReplicas", "availableReplicas", "readyReplicas"):
        count = int(status.get(name) or 0)
        if count != wanted:
            return _in_progress(f"{name}: {count} of {wanted}")
    return _current(f"{wanted} of {wanted} pods run")


def _daemonset(live: Manifest) -> Status:
    status = live.get("status") or {}
    if status.get("observedGeneration") is None:
        return _in_progress("its controller has not observed it yet")
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
        return _current("it has completed")
    if condition_of(status, "Ready").get("status") == "True":
        return _current("it runs")
    return _in_progress(f"phase {status.get('phase', 'unknown')}")


def _namespace(live: Manifest) -> Status:
    phase = (live.get("status") or {}).get("phase")
    return _current("it is active") if phase == "Active" else _in_progress(f"phase {phase}")


def _always_current(live: Manifest) -> Status:
    del live
    return _current("it exists")


def _ready_condition(live: Manifest) -> Status:
    ready = condition_of(live.get("status") or {}, "Ready")
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


def _current(message: str) -> Status:
    return Status(state=State.CURRENT, message=message)


def _in_progress(message: str) -> Status:
    return Status(state=State.IN_PROGRESS, message=message)
