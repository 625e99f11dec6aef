"""Readiness of the experiments: the known state of their peers, and the resulting event for each experiment.

In: objects from watches and LISTs. Out: one event per experiment. This module sends no requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from nimlab.objects.applyset import ApplySet
from nimlab.objects.kinds_and_order import WORKLOADS
from nimlab.objects.manifest import Manifest, ObjectKey, key_of
from nimlab.objects.mask_secrets import redact, secrets_in
from nimlab.plan.explain_stuck_deletion import deletion_trouble, describe_blockers
from nimlab.plan.kstatus import (
    PeerCount,
    State,
    is_observed,
    last_seen_at,
    peers_of,
    spec_changed_at,
    status_of,
)
from nimlab.plan.pod_trouble import Trouble, after_grace_period, event_trouble, is_due, pod_trouble
from nimlab.plan.sync_events import Event, ExperimentSettled, ExperimentStuck, PeersProgress

_REJECTION_GRACE: Final = timedelta(seconds=10)  # peers that are terminating may free the quota
_MAX_EVENT_AGE: Final = timedelta(minutes=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitTarget:
    """The objects of one experiment to wait for: workloads that must settle, and objects that must disappear.

    `noun` is the word for a pod of the experiment, such as `peer`. `terminating` contains the keys of the
    objects that are being deleted, and `uids` contains their uids. A new object with the same key has another
    uid, so its deletion is not awaited. `needs_pods` is False if all workloads have already settled, so that
    their pods need not be watched. `settled_peers` is the number of running peers if the snapshot shows that
    there is nothing to wait for; None otherwise.
    """

    experiment: str
    workloads: frozenset[ObjectKey]
    terminating: frozenset[ObjectKey]
    noun: str = "peer"
    uids: Mapping[ObjectKey, str] = field(default_factory=dict)
    needs_pods: bool = True
    settled_peers: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _PodRejection:
    """The reason why no pods are created for a workload.

    The reason comes from an event. `since` is the time when nimlab first read the event. `last_seen_at` is
    the time in the event. `uid` is the uid of the workload that the event concerns.
    """

    since: datetime
    trouble: Trouble
    uid: str
    last_seen_at: datetime


@dataclass(slots=True)
class Readiness:
    """The state of an apply-set, as the watches have reported it; only the waiting thread writes it.

    For each experiment, `troubled` contains the pods that do not run, with the reasons. For each workload,
    `rejected_pods` contains the reason why the server rejects its pods. Such pods never exist, so they cannot
    be in `troubled`. `terminating` contains the deleted objects that still exist, except workloads. `listed`
    contains the kinds that have been listed completely.
    """

    apply_set: ApplySet
    workloads: dict[ObjectKey, Manifest] = field(default_factory=dict)
    troubled: dict[str | None, dict[ObjectKey, Trouble]] = field(default_factory=dict)
    rejected_pods: dict[ObjectKey, _PodRejection] = field(default_factory=dict)
    terminating: dict[ObjectKey, Manifest] = field(default_factory=dict)
    listed: set[str] = field(default_factory=set)

    def clear(self, kind: str, namespace: str | None) -> None:
        """Remove all entries of a kind in a namespace, before a new LIST adds them again.

        If `namespace` is None, the entries in all namespaces are removed.
        """
        if kind != "Pod":
            keys = [key for key in self.workloads if key.kind == kind and namespace in (None, key.namespace)]
            for key in keys:
                del self.workloads[key]
            return
        for troubles in self.troubled.values():
            for key in [key for key in troubles if namespace in (None, key.namespace)]:
                del troubles[key]

    def update(self, live: Manifest, now: datetime) -> None:
        """Record the current state of an object."""
        key = key_of(live)
        if key.kind != "Pod":
            self.workloads[key] = live
            return
        troubled = self.troubled.setdefault(self.apply_set.group_of(live), {})
        troubled.pop(key, None)
        trouble = pod_trouble(live, now)
        if trouble is not None:
            troubled[key] = trouble

    def record_terminating(self, kind: str, items: Iterable[Manifest]) -> None:
        """Record `items` as all deleted objects of a kind that still exist; forget its other objects."""
        for key in [key for key in self.terminating if key.kind == kind]:
            del self.terminating[key]
        self.terminating.update((key_of(live), live) for live in items)
        self.listed.add(kind)

    def record_rejection(self, event: Manifest, now: datetime) -> None:
        """Record an event that explains why a workload gets no pods; ignore old events."""
        involved = event.get("involvedObject") or {}
        key = ObjectKey(
            str(involved.get("kind")), str(involved.get("namespace") or ""), str(involved.get("name"))
        )
        trouble, event_at = event_trouble(event), last_seen_at(event)
        if trouble is None or event_at is None or now - event_at >= _MAX_EVENT_AGE:
            return
        uid, known = str(involved.get("uid") or ""), self.rejected_pods.get(key)
        if known is not None and known.uid == uid:
            latest = max(event_at, known.last_seen_at)
            self.rejected_pods[key] = replace(known, trouble=trouble, last_seen_at=latest)
        elif known is None or known.last_seen_at <= event_at:
            self.rejected_pods[key] = _PodRejection(
                since=now, trouble=trouble, uid=uid, last_seen_at=event_at
            )

    def remove(self, live: Manifest) -> None:
        """Remove an object that has been deleted."""
        key = key_of(live)
        self.troubled.get(self.apply_set.group_of(live), {}).pop(key, None)
        self.workloads.pop(key, None)


def assess_readiness(
    target: WaitTarget, readiness: Readiness, now: datetime, *, waited_s: float, timeout_s: float
) -> Event | None:
    """Return the event for an experiment's state; None until all its kinds have been listed. Pure."""
    if target.settled_peers is not None:
        return ExperimentSettled(
            experiment=target.experiment, running=target.settled_peers, after_s=0.0, noun=target.noun
        )
    if not {key.kind for key in target.workloads | target.terminating} <= readiness.listed:
        return None
    workloads = [readiness.workloads[key] for key in target.workloads if key in readiness.workloads]
    counts = [_count(live) for live in workloads]
    running, wanted = sum(c.running for c in counts), sum(c.wanted for c in counts)
    remaining = _remaining(target, readiness)
    are_current = all(status_of(live).state is State.CURRENT for live in workloads)
    if are_current and len(workloads) == len(target.workloads) and not remaining:
        return ExperimentSettled(
            experiment=target.experiment, running=running, after_s=waited_s, noun=target.noun
        )
    troubles = _troubles(target, readiness, now)
    timed_out = waited_s > timeout_s
    if timed_out or any(trouble.fatal for trouble in troubles):
        return ExperimentStuck(
            experiment=target.experiment,
            running=running,
            wanted=wanted,
            troubles=(*troubles, *map(deletion_trouble, remaining)),
            timed_out=timed_out,
            waited_s=waited_s,
            noun=target.noun,
            held=tuple(key_of(live) for live in remaining),
        )
    leaving = sum(c.leaving for c in counts) + sum(_existing_peers(live) for live in remaining)
    counts_explain = leaving or running < wanted  # if not, the event must contain a reason
    return PeersProgress(
        experiment=target.experiment,
        running=running,
        wanted=wanted,
        leaving=leaving,
        noun=target.noun,
        why="" if counts_explain else _pending_reason(target, workloads, remaining),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Count:
    """Three numbers of peers of one workload.

    `wanted` is the desired number. `running` counts the running peers that are not leaving. `leaving` counts
    the peers that must still be terminated.
    """

    wanted: int
    running: int
    leaving: int


def _count(live: Manifest) -> _Count:
    """Count a workload's peers. Peers of an older revision count as leaving until they no longer exist."""
    peers = peers_of(live)
    outdated = _outdated_peers(live, peers)
    leaving = max(peers.existing - peers.wanted, outdated, 0)
    running = min(peers.running, peers.updated) if outdated else peers.running
    return _Count(
        wanted=peers.wanted, running=min(running, peers.wanted) if leaving else running, leaving=leaving
    )


def _outdated_peers(live: Manifest, peers: PeerCount) -> int:
    """Return the number of peers of older revisions.

    The number is 0 for kinds whose status does not count revisions, and for a partitioned rollout, because
    such a rollout keeps old peers.
    """
    spec, status = live.get("spec") or {}, live.get("status") or {}
    rolling = (spec.get("updateStrategy") or {}).get("rollingUpdate") or {}
    if live["kind"] != "StatefulSet" or not status.get("updateRevision") or rolling.get("partition"):
        return 0
    return max(peers.existing - peers.updated, 0) if is_observed(live) else 0


def _remaining(target: WaitTarget, readiness: Readiness) -> list[Manifest]:
    """Return the deleted objects that still exist; skip new objects with the same name."""
    remaining = []
    for key in sorted(target.terminating):
        known = readiness.workloads if key.kind in WORKLOADS else readiness.terminating
        live = known.get(key)
        if live is not None and target.uids.get(key) in (None, live["metadata"].get("uid")):
            remaining.append(live)
    return remaining


def _existing_peers(live: Manifest) -> int:
    return peers_of(live).existing if live["kind"] in WORKLOADS else 0


def _pending_reason(target: WaitTarget, workloads: Sequence[Manifest], remaining: Sequence[Manifest]) -> str:
    """Return why an experiment has not settled although it has the desired number of running peers."""
    missing = sorted(target.workloads - {key_of(live) for live in workloads})
    if missing:
        return f"{missing[0]} does not exist"
    for live in workloads:
        status = status_of(live)
        if status.state is not State.CURRENT:
            return f"{key_of(live)}: {status.message}"
    others = f" (and {len(remaining) - 1} more)" if len(remaining) > 1 else ""
    return f"{key_of(remaining[0])}: {describe_blockers(remaining[0])}{others}" if remaining else ""


def _troubles(target: WaitTarget, readiness: Readiness, now: datetime) -> tuple[Trouble, ...]:
    """Return the reasons why peers do not run; no reasons if the experiment only waits for deletions."""
    if not target.workloads:
        return ()
    # A watch over all namespaces also reports the pods of another lab's experiment with the same name.
    namespaces = {key.namespace for key in target.workloads}
    of_pods = readiness.troubled.get(target.experiment, {}).items()
    troubles = [
        after_grace_period(trouble, now)
        for key, trouble in of_pods
        if key.namespace in namespaces and is_due(trouble, now)
    ]
    for key, rejection in readiness.rejected_pods.items():
        live = readiness.workloads.get(key)
        if key not in target.workloads or live is None or not _concerns(rejection, live):
            continue
        peers = peers_of(live)
        if peers.existing < peers.wanted and now - rejection.since > _REJECTION_GRACE:
            trouble = rejection.trouble
            troubles.append(replace(trouble, message=redact(trouble.message, secrets_in(live))))
    return tuple(sorted(troubles, key=lambda trouble: (not trouble.fatal, trouble.pod)))


def _concerns(rejection: _PodRejection, live: Manifest) -> bool:
    """Return True if the event concerns this object (by uid) and is not older than its last spec change."""
    changed_at = spec_changed_at(live)
    is_same = rejection.uid in ("", live["metadata"].get("uid"))
    return is_same and (changed_at is None or rejection.last_seen_at >= changed_at)
