"""Events of a namespace -> the events of one experiment, without secrets.

In: an experiment's plan, its pods, and events. Out: the events about its objects and pods, and `EventLine`
values for display. Pure; the time is an argument.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from nimlab.objects.manifest import Manifest, ObjectKey
from nimlab.objects.mask_secrets import redact, secrets_in
from nimlab.plan.kstatus import last_seen_at, template_changed_at
from nimlab.plan.make_plan import ExperimentPlan
from nimlab.report.list_rows import age_s, live_workloads

_MAX_EVENTS: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLine:
    """One event: the time of its last occurrence (RFC 3339), its object, and the number of occurrences."""

    at: str
    age_s: int | None
    kind: str
    name: str
    reason: str
    message: str
    is_warning: bool
    times: int


def own_events(
    events: Sequence[Manifest], planned: ExperimentPlan, pods: Sequence[Manifest]
) -> list[Manifest]:
    """Return the events about the experiment's objects and about the pods of its current run.

    Secret values of these objects and pods are redacted in the messages of the events.
    """
    secrets = secrets_in(*(live for c in planned.changes for live in (c.desired, c.live)), *pods)
    is_own = _OwnEvents(planned, pods).contain
    return [
        {**event, "message": redact(str(event.get("message") or ""), secrets)}
        for event in events
        if is_own(event)
    ]


def time_of(event: Manifest) -> str:
    """Return the time of an event's last occurrence as text; the two event APIs use different fields."""
    series: Mapping[str, Any] = event.get("series") or {}
    times = (
        event.get("lastTimestamp"),
        series.get("lastObservedTime"),
        event.get("eventTime"),
        event["metadata"].get("creationTimestamp"),
    )
    return next((str(time) for time in times if time), "")


def recent_lines(events: Sequence[Manifest], now: datetime) -> tuple[EventLine, ...]:
    """Return at most `_MAX_EVENTS` events, oldest first. Warnings are chosen first, then newer events."""
    lines = [_event_line(event, now) for event in events]
    by_weight = sorted(lines, key=lambda line: (line.is_warning, line.at))
    return tuple(sorted(by_weight[-_MAX_EVENTS:], key=lambda line: (line.at, line.name)))


def _event_line(event: Manifest, now: datetime) -> EventLine:
    involved = event.get("involvedObject") or {}
    at = time_of(event)
    return EventLine(
        at=at,
        age_s=age_s(at, now),
        kind=str(involved.get("kind", "")),
        name=str(involved.get("name", "")),
        reason=str(event.get("reason") or ""),
        message=str(event.get("message") or ""),
        is_warning=event.get("type") == "Warning",
        times=int(event.get("count") or 1),
    )


class _OwnEvents:
    """The events of one experiment.

    Objects are identified by their UID, because an older object may have had the same name. For a pod that no
    longer exists, the name must match, and the event must be newer than the start of the current run.
    """

    def __init__(self, planned: ExperimentPlan, pods: Sequence[Manifest]) -> None:
        self._uids = {c.key: (c.live or {}).get("metadata", {}).get("uid") for c in planned.changes}
        self._pod_uids = {pod["metadata"].get("uid") for pod in pods}
        self._pod_names = {f"{p['metadata'].get('namespace', '')}/{p['metadata']['name']}" for p in pods}
        starts = map(template_changed_at, live_workloads(planned))
        self._started = max((start for start in starts if start is not None), default=None)
        sets = [re.escape(f"{k.namespace}/{k.name}") for k in self._uids if k.kind == "StatefulSet"]
        self._peer_name = re.compile(f"(?:{'|'.join(sets)})-[0-9]+") if sets else None

    def contain(self, event: Manifest) -> bool:
        involved = event.get("involvedObject") or {}
        kind, namespace = str(involved.get("kind", "")), str(involved.get("namespace") or "")
        key, uid = ObjectKey(kind, namespace, str(involved.get("name", ""))), involved.get("uid")
        if kind == "Pod":
            return self._contain_pod(key, uid, last_seen_at(event))
        return key in self._uids and uid in (None, "", self._uids[key])

    def _contain_pod(self, key: ObjectKey, uid: Any, at: datetime | None) -> bool:  # noqa: ANN401 -- any JSON
        if uid and uid in self._pod_uids:
            return True
        if self._started is not None and at is not None and at < self._started:
            return False
        name = f"{key.namespace}/{key.name}"
        is_peer = self._peer_name is not None and self._peer_name.fullmatch(name) is not None
        return name in self._pod_names or is_peer
