"""One experiment of a plan -> the content of `status`.

In: a plan, the experiments that the files describe, the pods, and the events. Out: a `Detail`. Pure; the time
is an argument.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from nimlab.files.spec import Experiment
from nimlab.objects.manifest import Manifest
from nimlab.plan.kstatus import State, peers_of, status_of
from nimlab.plan.make_plan import ExperimentPlan, Plan
from nimlab.plan.pod_trouble import Trouble, pod_trouble
from nimlab.report.experiment_events import EventLine, own_events, recent_lines
from nimlab.report.experiment_troubles import detail_troubles, ordinal_of
from nimlab.report.list_rows import Row, age_s, live_workloads, rows_of


@dataclass(frozen=True, slots=True, kw_only=True)
class PodLine:
    """One pod: its state, its node and its restarts."""

    name: str
    state: str
    is_running: bool
    node: str
    restarts: int
    age_s: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """The content of `status` for one experiment, or for one component of the platform.

    `plan` is None if the file is broken. `unread` is the number of existing pods that are not in `pods`.
    `noun` is the word for one of these pods, such as `peer`.
    """

    row: Row
    source: str | None
    plan: ExperimentPlan | None
    unread: int
    pods: tuple[PodLine, ...]
    troubles: tuple[Trouble, ...]
    events: tuple[EventLine, ...]
    noun: str


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
    """Return the detail of one experiment of the plan.

    `all_pods` is False if `pods` contains only some of the experiment's pods. `events` may contain events of
    other objects, which are ignored.
    """
    planned = next((planned for planned in plan.experiments if planned.name == name), None)
    broken = next((broken.source for broken in plan.broken if broken.name == name), None)
    own = own_events(events, planned, pods) if planned else []
    troubles = detail_troubles(planned, pods, own, now)
    rows = rows_of(plan, experiments, now, {name: troubles})
    return Detail(
        row=next(row for row in rows if row.experiment == name),
        source=broken or (planned.source if planned else None),
        plan=planned,
        unread=0 if all_pods or planned is None else max(0, _existing_pods(planned) - len(pods)),
        pods=tuple(_pod_line(pod, now) for pod in sorted(pods, key=ordinal_of)),
        troubles=troubles,
        events=recent_lines(own, now),
        noun=plan.apply_set.noun,
    )


def _existing_pods(planned: ExperimentPlan) -> int:
    """Return the number of existing pods, as the status of the workloads reports it."""
    return sum(peers_of(live).existing for live in live_workloads(planned))


def _pod_line(pod: Manifest, now: datetime) -> PodLine:
    status = pod.get("status") or {}
    is_running = status_of(pod).state is State.CURRENT
    return PodLine(
        name=pod["metadata"]["name"],
        state="Running" if is_running else _pod_state(pod, now),
        is_running=is_running,
        node=str((pod.get("spec") or {}).get("nodeName") or ""),
        restarts=sum(int(c.get("restartCount") or 0) for c in status.get("containerStatuses") or ()),
        age_s=age_s(pod["metadata"].get("creationTimestamp"), now),
    )


def _pod_state(pod: Manifest, now: datetime) -> str:
    """Return one word: the reason why a pod does not run, or its phase."""
    if pod["metadata"].get("deletionTimestamp"):
        return "Terminating"
    trouble = pod_trouble(pod, now)
    if trouble is not None:
        return trouble.reason
    phase = str((pod.get("status") or {}).get("phase") or "Pending")
    return "NotReady" if phase == "Running" else phase
