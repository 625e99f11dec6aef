"""Pods and events of one experiment -> the troubles that keep its peers from running.

In: an experiment's plan, its pods, its events, the time. Out: troubles. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from nimlab.objects.manifest import Manifest, key_of
from nimlab.plan.experiment_health import lacks_running_pods
from nimlab.plan.explain_stuck_deletion import deletion_trouble
from nimlab.plan.kstatus import last_seen_at, peers_of, spec_changed_at
from nimlab.plan.make_plan import ExperimentPlan, Plan
from nimlab.plan.pod_trouble import Trouble, event_trouble, is_due, pod_trouble, warning_trouble
from nimlab.report.experiment_events import own_events, time_of
from nimlab.report.list_rows import live_workloads, terminating_objects


def short_experiments(plan: Plan) -> tuple[ExperimentPlan, ...]:
    """Return the experiments whose pods do not all run, so that the caller can read their pods and events."""
    return tuple(planned for planned in plan.experiments if lacks_running_pods(live_workloads(planned)))


def troubles_of(
    planned: ExperimentPlan, pods: Sequence[Manifest], events: Sequence[Manifest], now: datetime
) -> tuple[Trouble, ...]:
    """Return the troubles for a row of `list`.

    These are the troubles of the experiment's pods. If there are none, the result is the last warning event
    of the experiment.
    """
    own = own_events(events, planned, pods)
    troubles = _pod_troubles(pods, _current_events(own, live_workloads(planned)), now)
    due = tuple(trouble for trouble in troubles if is_due(trouble, now))
    if due:
        return due
    warnings = (warning_trouble(event, now) for event in sorted(own, key=time_of))
    return tuple(warning for warning in warnings if warning is not None)[-1:]


def detail_troubles(
    planned: ExperimentPlan | None, pods: Sequence[Manifest], own: Sequence[Manifest], now: datetime
) -> tuple[Trouble, ...]:
    """Return the troubles for `status`: of the experiment's pods, and of its objects that are being deleted.

    `own` are the events of the experiment. They are used only if fewer peers run than requested.
    """
    if planned is None:  # its file is broken, so only its pods are known
        return _pod_troubles(pods, (), now)
    lives = live_workloads(planned)
    is_missing_peers = any(peers_of(live).running < peers_of(live).wanted for live in lives)
    current = _current_events(own, lives) if is_missing_peers else ()
    return (*_pod_troubles(pods, current, now), *map(deletion_trouble, terminating_objects(planned)))


def ordinal_of(pod: Manifest) -> tuple[str, int]:
    """Return the sort key of a pod: the name of its StatefulSet and its number."""
    stem, _, number = pod["metadata"]["name"].rpartition("-")
    return (stem, int(number) if number.isdigit() else 0)


def _pod_troubles(pods: Sequence[Manifest], events: Sequence[Manifest], now: datetime) -> tuple[Trouble, ...]:
    """Return the troubles of the pods, then the last event about a pod that could not be created."""
    troubles = (pod_trouble(pod, now) for pod in sorted(pods, key=ordinal_of))
    due = (trouble for trouble in troubles if trouble is not None and is_due(trouble, now))
    failures = (event_trouble(event) for event in sorted(events, key=time_of))
    return (*due, *[failure for failure in failures if failure is not None][-1:])


def _current_events(events: Sequence[Manifest], workloads: Sequence[Manifest]) -> list[Manifest]:
    """Return the events, without events about a workload from before its last change."""
    changed_at = {str(key_of(live)): spec_changed_at(live) for live in workloads}

    def is_current(event: Manifest) -> bool:
        involved = event.get("involvedObject") or {}
        since = changed_at.get(f"{involved.get('kind')}/{involved.get('namespace')}/{involved.get('name')}")
        at = last_seen_at(event)
        return since is None or (at is not None and at >= since)

    return [event for event in events if is_current(event)]
