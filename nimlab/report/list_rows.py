"""A plan that is not carried out -> the rows of `list` and the detail of `status`.

In: a plan, the experiments of the files, pods and events as read. Out: rows and a detail, as values. What
differs between files and cluster is the plan's; here it only gets a word. Pure; the time is an argument.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final

from nimlab.files.spec import Broken, Experiment
from nimlab.objects.managed_fields import own_entry
from nimlab.objects.manifest import WORKLOADS, Manifest, ObjectKey, key_of, labels_of
from nimlab.objects.masking import redact, secrets_in
from nimlab.plan.change import Change
from nimlab.plan.deletion_blockers import held_by, is_leaving, leaving_trouble
from nimlab.plan.drift_origin import has_other_writer, is_newer
from nimlab.plan.health import Health, Verdict, health_of, is_short
from nimlab.plan.kstatus import State, peers_of, seen_at, spec_changed_at, status_of, template_changed_at
from nimlab.plan.make_plan import ExperimentPlan, Plan
from nimlab.plan.pod_trouble import Trouble, event_trouble, is_due, pod_trouble, warning_trouble

_EVENTS: Final = 10
_UNKNOWN: Final = Verdict(health=Health.UNKNOWN)


class RowState(Enum):
    """How an experiment in Git and its objects in the cluster stand to each other; not how its pods are."""

    IN_SYNC = "in sync"
    DRIFTED = "drifted"  # the cluster is not as it was synced
    CHANGED = "changed"  # what is checked out is not what was synced
    BLOCKED = "blocked"  # a sync would fail
    NOT_SYNCED = "not synced"  # nothing of it is in the cluster
    ORPHANED = "orphaned"  # in the cluster without a file
    BROKEN = "file broken"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One experiment in `list`.

    `scale` is what the cluster is asked for, or the file where nothing is; None where neither is known.
    `started_at` is when the current run began, RFC 3339: when the pod template was written last.
    """

    experiment: str
    full_name: str
    scale: int | None
    running: int | None
    started_at: str | None
    age_s: int | None
    state: RowState
    verdict: Verdict = _UNKNOWN

    @property
    def is_pending(self) -> bool:
        """True when a sync would change something, or can't."""
        return self.state is not RowState.IN_SYNC


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


def overview_rows(
    plan: Plan,
    experiments: Iterable[Experiment],
    now: datetime,
    troubles: Mapping[str, Sequence[Trouble]] | None = None,
) -> tuple[Row, ...]:
    """Return a row for each experiment, in files or cluster, sorted by name.

    `troubles` are what is known of the pods of those that don't all run.
    """
    known = {one.name: one for one in experiments}
    found = troubles or {}
    rows = {broken.name: _broken_row(broken, known.get(broken.name)) for broken in plan.broken}
    for one in plan.experiments:
        rows.setdefault(one.name, _row(one, plan, known.get(one.name), found.get(one.name, ()), now))
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
    one = next((one for one in plan.experiments if one.name == name), None)
    broken = next((broken.source for broken in plan.broken if broken.name == name), None)
    own = _without_secrets(_own_events(events, one, pods), one, pods) if one else []
    lives = live_workloads(one) if one else ()
    is_missing_pods = any(peers_of(live).running < peers_of(live).wanted for live in lives)
    troubles = (
        *_troubles(pods, _refusals(own, lives) if is_missing_pods else [], now),
        *(leaving_trouble(live) for live in (_leaving(one) if one else ())),
    )
    row = next(
        row for row in overview_rows(plan, experiments, now, {name: troubles}) if row.experiment == name
    )
    return Detail(
        row=row,
        source=broken or (one.source if one else None),
        plan=one,
        unread=0 if all_pods or one is None else max(0, _existing(one) - len(pods)),
        pods=tuple(_pod_line(pod, now) for pod in sorted(pods, key=_ordinal)),
        troubles=troubles,
        events=_recent([_event_line(event, now) for event in own]),
        noun=plan.apply_set.noun,
    )


def _leaving(one: ExperimentPlan) -> tuple[Manifest, ...]:
    """The experiment's own objects that are being deleted; what only carries its label is not among them."""
    own = (c.live for c in one.changes if c.leaving or c.desired is not None)
    return tuple(live for live in own if live is not None and is_leaving(live))


def live_workloads(one: ExperimentPlan) -> tuple[Manifest, ...]:
    """Return the workloads of an experiment that exist; it may have several."""
    return tuple(c.live for c in one.changes if c.key.kind in WORKLOADS and c.live is not None)


def short_experiments(plan: Plan) -> tuple[ExperimentPlan, ...]:
    """Return the experiments whose pods don't all run: a reason is worth looking for."""
    return tuple(one for one in plan.experiments if is_short(live_workloads(one)))


def troubles_of(
    one: ExperimentPlan, pods: Sequence[Manifest], events: Sequence[Manifest], now: datetime
) -> tuple[Trouble, ...]:
    """Return what troubles an experiment: its pods' own words, else the warnings of the current run."""
    lives = live_workloads(one)
    own = _without_secrets(_own_events(events, one, pods), one, pods)
    found = [t for t in _troubles(pods, _refusals(own, lives), now) if is_due(t, now)]
    if found:
        return tuple(found)
    warned = [t for event in sorted(own, key=_at) if (t := warning_trouble(event, now)) is not None]
    return tuple(warned[-1:])


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
        verdict=_UNKNOWN,
    )


def _row(
    one: ExperimentPlan, plan: Plan, experiment: Experiment | None, troubles: Sequence[Trouble], now: datetime
) -> Row:
    lives = live_workloads(one)
    missing = [c for c in one.changes if c.key.kind in WORKLOADS and c.live is None and c.desired is not None]
    if lives:
        scale: int | None = sum(peers_of(live).wanted for live in lives) + _missing(one)
    else:
        scale = experiment.peers if experiment else None
    started_at = _started_at(lives)
    return Row(
        experiment=one.name,
        full_name=experiment.full_name if experiment else _full_name(one, lives[0] if lives else None),
        scale=scale,
        running=sum(peers_of(live).running for live in lives) if lives else (None if scale is None else 0),
        started_at=started_at,
        age_s=_age_s(started_at, now),
        state=_state(one, plan),
        verdict=_verdict(one, lives, len(missing), troubles, now),
    )


def _verdict(
    one: ExperimentPlan,
    lives: Sequence[Manifest],
    missing: int,
    troubles: Sequence[Trouble],
    now: datetime,
) -> Verdict:
    """How its pods are; a namespace or another object on its way out takes what is in it along."""
    leaving = next(iter(_leaving(one)), None)
    if leaving is not None:
        return Verdict(health=Health.TERMINATING, message=f"{key_of(leaving)}: {held_by(leaving)}")
    return health_of(lives, missing, troubles, now)


def _started_at(lives: Sequence[Manifest]) -> str | None:
    """When the current run began: the newest template of all workloads; RFC 3339."""
    times = [time for live in lives if (time := template_changed_at(live)) is not None]
    return max(times).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if times else None


def _missing(one: ExperimentPlan) -> int:
    """Return how many peers the roles ask for that have no workload yet; 0 while former roles are to go."""
    workloads = [c for c in one.changes if c.key.kind in WORKLOADS]
    if any(change.desired is None for change in workloads):
        return 0
    return sum(peers_of(c.desired).wanted for c in workloads if c.live is None and c.desired is not None)


def _full_name(one: ExperimentPlan, workload: Manifest | None) -> str:
    """The full name that the objects in the cluster carry, else that of the workload; empty if none is."""
    names = (labels_of(change.live).get("prefix") for change in one.changes if change.live)
    own = str(workload["metadata"]["name"]) if workload else ""
    return next((name for name in names if name), own)


def _state(one: ExperimentPlan, plan: Plan) -> RowState:
    if one.source is None:
        return RowState.ORPHANED
    if any(change.error is not None for change in one.changes):
        return RowState.BLOCKED
    if all(change.live is None for change in one.changes):
        return RowState.NOT_SYNCED
    if any(change.foreign or change.taken or has_other_writer(change) for change in one.changes):
        return RowState.DRIFTED
    if not any(change.is_pending for change in one.changes):
        return RowState.IN_SYNC
    if _is_other_file(one.changes) or any(map(is_newer, one.changes)) or _is_other_commit(one, plan):
        return RowState.CHANGED
    return RowState.DRIFTED


def _is_other_commit(one: ExperimentPlan, plan: Plan) -> bool:
    """True when another commit was synced last; an object that is missing altogether was deleted, though."""
    if plan.commit is None or plan.recorded_commit is None:
        return False
    lost = any(c.live is None and c.key.kind in plan.before.scope.kinds for c in one.changes)
    return not lost and (plan.commit.dirty or plan.commit.sha != plan.recorded_commit)


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
    found = [t for pod in sorted(pods, key=_ordinal) if (t := pod_trouble(pod, now)) and is_due(t, now)]
    refused = [t for event in sorted(refusals, key=_at) if (t := event_trouble(event)) is not None]
    return (*found, *refused[-1:])


def _refusals(events: Sequence[Manifest], workloads: Sequence[Manifest]) -> list[Manifest]:
    """The events since the last change of the workload that they are about: older ones say nothing of it."""
    changed = {str(key_of(live)): spec_changed_at(live) for live in workloads}

    def is_current(event: Manifest) -> bool:
        about = event.get("involvedObject") or {}
        since = changed.get(f"{about.get('kind')}/{about.get('namespace')}/{about.get('name')}")
        at = seen_at(event)
        return since is None or (at is not None and at >= since)

    return [event for event in events if is_current(event)]


def _own_events(events: Sequence[Manifest], one: ExperimentPlan, pods: Sequence[Manifest]) -> list[Manifest]:
    """The events about an object of the experiment, or about a pod that it has or had in its current run.

    Objects are told apart by their uid: a former one may have had the same name. Of a pod that isn't seen
    now, the time decides whether it was of this run.
    """
    uids = {change.key: (change.live or {}).get("metadata", {}).get("uid") for change in one.changes}
    keys = uids.keys()
    seen = {pod["metadata"].get("uid") for pod in pods}
    started = max(filter(None, map(template_changed_at, live_workloads(one))), default=None)
    sets = [re.escape(f"{k.namespace}/{k.name}") for k in keys if k.kind == "StatefulSet"]
    peer = re.compile(f"(?:{'|'.join(sets)})-[0-9]+") if sets else None
    names = {f"{p['metadata'].get('namespace', '')}/{p['metadata']['name']}" for p in pods}

    def is_own(event: Manifest) -> bool:
        about = event.get("involvedObject") or {}
        key = ObjectKey(
            str(about.get("kind", "")), str(about.get("namespace") or ""), str(about.get("name", ""))
        )
        uid = about.get("uid")
        if key.kind != "Pod":
            return key in keys and uid in (None, "", uids[key])
        if uid and uid in seen:
            return True
        at = seen_at(event)
        if started is not None and at is not None and at < started:
            return False
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
