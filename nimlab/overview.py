"""A plan that is not yet carried out -> the rows of `list` and the page of `status`.

In: a plan, experiments, pods and events. Out: rows and details as values. What differs between files and
cluster is the plan's; here it only gets a word. Pure; the time is an argument.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from nimlab.change import Action, Change
from nimlab.manifest import Manifest, key_of
from nimlab.plan import ExperimentPlan, Plan
from nimlab.spec import Experiment
from nimlab.status import State, Trouble, event_trouble, peers_of, pod_trouble, status_of

_RECENT_EVENTS = 8


class RowState(Enum):
    """How an experiment's file and its objects in the cluster stand to each other."""

    IN_SYNC = "in sync"
    DRIFTED = "drifted"
    NOT_SYNCED = "not synced"
    ORPHANED = "orphaned"
    BROKEN = "file broken"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One experiment in `list`. `scale` is what the cluster is asked for, or the file where nothing is."""

    experiment: str
    full_name: str
    scale: int
    running: int
    started_at: str | None
    age_s: int | None
    state: RowState


@dataclass(frozen=True, slots=True, kw_only=True)
class PodLine:
    """One peer: its state in kstatus' words, its node, and what troubles it."""

    name: str
    state: str
    node: str
    restarts: int
    trouble: Trouble | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLine:
    """One recent event of the experiment, RFC 3339."""

    at: str
    kind: str
    name: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """Everything that `status` shows of one experiment."""

    row: Row
    source: str | None
    changes: tuple[Change, ...]
    pods: tuple[PodLine, ...]
    troubles: tuple[Trouble, ...]
    events: tuple[EventLine, ...]


def overview_rows(plan: Plan, experiments: Iterable[Experiment], now: datetime) -> tuple[Row, ...]:
    """Return a row for each experiment, in files or cluster, sorted by name."""
    known = {one.name: one for one in experiments}
    rows = {one.name: _row(one, known.get(one.name), now) for one in plan.experiments if one.name}
    for broken in plan.broken:
        rows.setdefault(
            broken.name,
            Row(
                experiment=broken.name,
                full_name="",
                scale=0,
                running=0,
                started_at=None,
                age_s=None,
                state=RowState.BROKEN,
            ),
        )
    return tuple(rows[name] for name in sorted(rows))


def experiment_detail(
    name: str,
    plan: Plan,
    experiments: Iterable[Experiment],
    pods: Sequence[Manifest],
    events: Sequence[Manifest],
    now: datetime,
) -> Detail:
    """Return what there is to say about one experiment of the plan."""
    row = next(row for row in overview_rows(plan, experiments, now) if row.experiment == name)
    one = next((e for e in plan.experiments if e.name == name), None)
    lines = tuple(_pod_line(pod, now) for pod in sorted(pods, key=_ordinal))
    refused = [trouble for event in events if (trouble := event_trouble(event)) is not None]
    return Detail(
        row=row,
        source=one.source if one else None,
        changes=tuple(
            c for c in (one.changes if one else ()) if c.action is not Action.KEEP or c.foreign or c.reason
        ),
        pods=lines,
        troubles=tuple(
            [line.trouble for line in lines if line.trouble]
            + (refused[-1:] if row.running < row.scale else [])
        ),
        events=tuple(
            sorted((_event_line(event) for event in events), key=lambda line: line.at)[-_RECENT_EVENTS:]
        ),
    )


def _row(one: ExperimentPlan, experiment: Experiment | None, now: datetime) -> Row:
    workload = next((c for c in one.changes if c.key.kind == "StatefulSet"), None)
    live = workload.live if workload else None
    started = live["metadata"].get("creationTimestamp") if live else None
    full_name = experiment.full_name if experiment else _full_name(one)
    return Row(
        experiment=one.name,
        full_name=full_name,
        scale=peers_of(live).wanted if live else (experiment.peers if experiment else 0),
        running=peers_of(live).running if live else 0,
        started_at=started,
        age_s=_age_s(started, now),
        state=_state(one),
    )


def _full_name(one: ExperimentPlan) -> str:
    """The full name that the cluster's objects carry, where the file is gone."""
    labels = ((c.live or {}).get("metadata", {}).get("labels") or {} for c in one.changes)
    return next((found["prefix"] for found in labels if "prefix" in found), "")


def _state(one: ExperimentPlan) -> RowState:
    if one.source is None:
        return RowState.ORPHANED
    if all(change.live is None for change in one.changes):
        return RowState.NOT_SYNCED
    if any(c.action is not Action.KEEP or c.error or c.foreign for c in one.changes):
        return RowState.DRIFTED
    return RowState.IN_SYNC


def _age_s(started: str | None, now: datetime) -> int | None:
    if started is None:
        return None
    return max(0, int((now - datetime.fromisoformat(started)).total_seconds()))


def _pod_line(pod: Manifest, now: datetime) -> PodLine:
    status = status_of(pod)
    counts = (pod.get("status") or {}).get("containerStatuses") or ()
    running = status.state is State.CURRENT
    return PodLine(
        name=pod["metadata"]["name"],
        state="Running" if running else status.state.value,
        node=str((pod.get("spec") or {}).get("nodeName") or ""),
        restarts=sum(int(c.get("restartCount") or 0) for c in counts),
        trouble=pod_trouble(pod, now),
    )


def _ordinal(pod: Manifest) -> tuple[str, int]:
    stem, _, number = pod["metadata"]["name"].rpartition("-")
    return (stem, int(number) if number.isdigit() else 0)


def _event_line(event: Manifest) -> EventLine:
    about = event.get("involvedObject") or {}
    at = event.get("lastTimestamp") or event.get("eventTime") or key_of(event).name
    return EventLine(
        at=str(at),
        kind=str(about.get("kind", "")),
        name=str(about.get("name", "")),
        reason=str(event.get("reason", "")),
        message=" ".join(str(event.get("message", "")).split()),
    )
