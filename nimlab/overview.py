"""A plan that is not carried out -> the rows of `list` and the detail of `status`.

In: a plan, the experiments of the files, pods and events as read. Out: rows and a detail, as values. What
differs between files and cluster is the plan's; here it only gets a word. Pure; the time is an argument.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Final

from nimlab.change import Action, Change
from nimlab.fields import own_entry
from nimlab.manifest import WORKLOADS, Manifest, ObjectKey, labels_of
from nimlab.masking import redact, secrets_in
from nimlab.plan import ExperimentPlan, Plan
from nimlab.spec import Broken, Experiment
from nimlab.status import State, Trouble, event_trouble, peers_of, pod_trouble, status_of

_EVENTS: Final = 10


class RowState(Enum):
    """How an experiment's file and its objects in the cluster stand to each other."""

    IN_SYNC = "in sync"
    DRIFTED = "drifted"  # the cluster is not as it was synced
    CHANGED = "changed"  # the file is not the one that was synced
    BLOCKED = "blocked"  # a sync would fail
    NOT_SYNCED = "not synced"  # nothing of it is in the cluster
    ORPHANED = "orphaned"  # in the cluster without a file
    BROKEN = "file broken"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One experiment in `list`.

    `scale` is what the cluster is asked for, or the file where nothing is; None where neither is known.
    `started_at` is when its StatefulSet was made, RFC 3339.
    """

    experiment: str
    full_name: str
    scale: int | None
    running: int | None
    started_at: str | None
    age_s: int | None
    state: RowState


@dataclass(frozen=True, slots=True, kw_only=True)
class PodLine:
    """One peer: how it is, its node, its restarts."""

    name: str
    state: str
    is_running: bool
    node: str
    restarts: int
    age_s: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLine:
    """One event: when it was last seen (RFC 3339), what it is about, how often it was seen."""

    at: str
    age_s: int | None
    kind: str
    name: str
    reason: str
    message: str
    is_warning: bool
    times: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """Everything that `status` shows of one experiment, or of a component of the platform.

    `noun` is what its pods are called; `plan` is None when its file is broken.
    """

    row: Row
    source: str | None
    plan: ExperimentPlan | None
    unread: int
    pods: tuple[PodLine, ...]
    troubles: tuple[Trouble, ...]
    events: tuple[EventLine, ...]
    noun: str


def overview_rows(plan: Plan, experiments: Iterable[Experiment], now: datetime) -> tuple[Row, ...]:
    """Return a row for each experiment, in files or cluster, sorted by name."""
    known = {one.name: one for one in experiments}
    rows = {broken.name: _broken_row(broken, known.get(broken.name)) for broken in plan.broken}
    for one in plan.experiments:
        rows.setdefault(one.name, _row(one, known.get(one.name), now))
    return tuple(rows[name] for name in sorted(rows))


def experiment_detail(
    name: str,
    plan: Plan,
    experiments: Iterable[Experiment],
    *,
    pods: Sequence[Manifest],
    all_pods: bool,
    events: Sequence[Manifest],
    now: datetime,
) -> Detail:
    """Return what there is to say about one experiment of the plan.

    `pods` may be a part of them, if it isn't `all_pods`: their workload counts the others.
    `events` may be those of whole namespaces; only its own are taken, warnings first, the newest last.
    """
    row = next(row for row in overview_rows(plan, experiments, now) if row.experiment == name)
    one = next((one for one in plan.experiments if one.name == name), None)
    broken = next((broken.source for broken in plan.broken if broken.name == name), None)
    own = _without_secrets(_own_events(events, one, pods), one, pods) if one else []
    is_short = row.running is not None and row.scale is not None and row.running < row.scale
    return Detail(
        row=row,
        source=broken or (one.source if one else None),
        plan=one,
        unread=0 if all_pods or one is None else max(0, _existing(one) - len(pods)),
        pods=tuple(_pod_line(pod, now) for pod in sorted(pods, key=_ordinal)),
        troubles=_troubles(pods, own if is_short else [], now),
        events=_recent([_event_line(event, now) for event in own]),
        noun=plan.apply_set.noun,
    )


def _broken_row(broken: Broken, experiment: Experiment | None) -> Row:
    """What is in the cluster of a file that can't be used isn't planned for, so nothing is known of it."""
    return Row(
        experiment=broken.name,
        full_name=experiment.full_name if experiment else "",
        scale=experiment.peers if experiment else None,
        running=None,
        started_at=None,
        age_s=None,
        state=RowState.BROKEN,
    )


def _row(one: ExperimentPlan, experiment: Experiment | None, now: datetime) -> Row:
    workloads = [c for c in one.changes if c.key.kind in WORKLOADS]
    known = [c.live for c in workloads if c.live]
    live = known[0] if known else None
    started_at = min((str(w["metadata"].get("creationTimestamp") or "") for w in known), default=None)
    if known:
        scale: int | None = sum(peers_of(w).wanted for w in known) + _missing(workloads)
    else:
        scale = experiment.peers if experiment else None
    return Row(
        experiment=one.name,
        full_name=experiment.full_name if experiment else _full_name(one, live),
        scale=scale,
        running=sum(peers_of(w).running for w in known) if known or scale is not None else None,
        started_at=started_at,
        age_s=_age_s(started_at, now),
        state=_state(one),
    )


def _missing(workloads: Sequence[Change]) -> int:
    """How many peers the roles ask for that are not in the cluster; none while others are to go for them."""
    if any(change.desired is None for change in workloads):
        return 0
    return sum(peers_of(c.desired).wanted for c in workloads if c.live is None and c.desired is not None)


def _full_name(one: ExperimentPlan, workload: Manifest | None) -> str:
    """The full name that the objects in the cluster carry, else that of the workload; empty if none is."""
    names = (labels_of(change.live).get("prefix") for change in one.changes if change.live)
    own = str(workload["metadata"]["name"]) if workload else ""
    return next((name for name in names if name), own)


def _state(one: ExperimentPlan) -> RowState:
    if one.source is None:
        return RowState.ORPHANED
    if any(change.error is not None for change in one.changes):
        return RowState.BLOCKED
    if all(change.live is None for change in one.changes):
        return RowState.NOT_SYNCED
    if any(change.foreign for change in one.changes):
        return RowState.DRIFTED
    if all(change.action is Action.KEEP for change in one.changes):
        return RowState.IN_SYNC
    return RowState.CHANGED if _is_other_file(one.changes) else RowState.DRIFTED


def _is_other_file(changes: Sequence[Change]) -> bool:
    """True when the hash of the file as synced, kept with the spec as run, isn't that of the file."""
    for change in changes:
        if change.key.kind == "ConfigMap" and change.live and change.desired:
            synced, wanted = _digest(change.live), _digest(change.desired)
            if wanted and synced != wanted and _is_ours(change.live, "f:data", "f:sha256"):
                return True
    return False


def _is_ours(live: Manifest, *path: str) -> bool:
    """True when nobody has written the field since we did: else it tells nothing about our sync."""
    fields: Any = own_entry(live)
    for name in path:
        fields = fields.get(name) if isinstance(fields, Mapping) else None
    return fields is not None


def _digest(config: Manifest) -> str | None:
    return (config.get("data") or {}).get("sha256")


def _age_s(at: str | None, now: datetime) -> int | None:
    if not at:
        return None
    return max(0, int((now - datetime.fromisoformat(at)).total_seconds()))


def _existing(one: ExperimentPlan) -> int:
    """How many pods there are, by the word of their workload."""
    sets = (c.live for c in one.changes if c.key.kind in WORKLOADS and c.live is not None)
    return sum(peers_of(live).existing for live in sets)


def _pod_line(pod: Manifest, now: datetime) -> PodLine:
    status = pod.get("status") or {}
    is_running = status_of(pod).state is State.CURRENT
    return PodLine(
        name=pod["metadata"]["name"],
        state="Running" if is_running else _pod_state(pod, now),
        is_running=is_running,
        node=str((pod.get("spec") or {}).get("nodeName") or ""),
        restarts=sum(int(c.get("restartCount") or 0) for c in status.get("containerStatuses") or ()),
        age_s=_age_s(pod["metadata"].get("creationTimestamp"), now),
    )


def _pod_state(pod: Manifest, now: datetime) -> str:
    """In one word: what troubles a pod, or how far it is."""
    if pod["metadata"].get("deletionTimestamp"):
        return "Terminating"
    trouble = pod_trouble(pod, now)
    if trouble is not None:
        return trouble.reason
    phase = str((pod.get("status") or {}).get("phase") or "Pending")
    return "NotReady" if phase == "Running" else phase


def _ordinal(pod: Manifest) -> tuple[str, int]:
    stem, _, number = pod["metadata"]["name"].rpartition("-")
    return (stem, int(number) if number.isdigit() else 0)


def _troubles(pods: Sequence[Manifest], refusals: Sequence[Manifest], now: datetime) -> tuple[Trouble, ...]:
    """What keeps peers from running: of each pod, and the last refusal to make one."""
    found = [pod_trouble(pod, now) for pod in sorted(pods, key=_ordinal)]
    refused = [t for event in sorted(refusals, key=_at) if (t := event_trouble(event)) is not None]
    return (*(trouble for trouble in found if trouble is not None), *refused[-1:])


def _own_events(events: Sequence[Manifest], one: ExperimentPlan, pods: Sequence[Manifest]) -> list[Manifest]:
    """The events about an object of the experiment, or about a pod that it has or had."""
    keys = {change.key for change in one.changes}
    sets = [re.escape(f"{k.namespace}/{k.name}") for k in keys if k.kind == "StatefulSet"]
    peer = re.compile(f"(?:{'|'.join(sets)})-[0-9]+") if sets else None
    names = {f"{p['metadata'].get('namespace', '')}/{p['metadata']['name']}" for p in pods}

    def is_own(event: Manifest) -> bool:
        about = event.get("involvedObject") or {}
        key = ObjectKey(
            str(about.get("kind", "")), str(about.get("namespace") or ""), str(about.get("name", ""))
        )
        if key.kind != "Pod":
            return key in keys
        name = f"{key.namespace}/{key.name}"
        return name in names or (peer is not None and peer.fullmatch(name) is not None)

    return [event for event in events if is_own(event)]


def _without_secrets(
    events: Sequence[Manifest], one: ExperimentPlan, pods: Sequence[Manifest]
) -> list[Manifest]:
    """The events without what is secret in the objects that they are about: they may echo it."""
    secrets = secrets_in(*(found for c in one.changes for found in (c.desired, c.live)), *pods)
    return [{**event, "message": redact(str(event.get("message") or ""), secrets)} for event in events]


def _at(event: Manifest) -> str:
    """When an event was last seen: old and new kinds of events say it in different places."""
    series: dict[str, Any] = event.get("series") or {}
    times = (
        event.get("lastTimestamp"),
        series.get("lastObservedTime"),
        event.get("eventTime"),
        event["metadata"].get("creationTimestamp"),
    )
    return next((str(time) for time in times if time), "")


def _event_line(event: Manifest, now: datetime) -> EventLine:
    about = event.get("involvedObject") or {}
    at = _at(event)
    return EventLine(
        at=at,
        age_s=_age_s(at, now),
        kind=str(about.get("kind", "")),
        name=str(about.get("name", "")),
        reason=str(event.get("reason") or ""),
        message=str(event.get("message") or ""),
        is_warning=event.get("type") == "Warning",
        times=int(event.get("count") or 1),
    )


def _recent(events: Sequence[EventLine]) -> tuple[EventLine, ...]:
    """The newest ones; warnings are not crowded out by what goes well."""
    by_weight = sorted(events, key=lambda event: (event.is_warning, event.at))
    return tuple(sorted(by_weight[-_EVENTS:], key=lambda event: (event.at, event.name)))
