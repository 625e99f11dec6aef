"""What is known of the peers while waiting for them, and what that means for each experiment.

In: objects as watches and LISTs tell of them. Out: for an experiment, how it stands. Nothing is read here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from nimlab.objects.applyset import ApplySet
from nimlab.objects.manifest import WORKLOADS, Manifest, ObjectKey, key_of
from nimlab.objects.masking import redact, secrets_in
from nimlab.plan.deletion_blockers import held_by, leaving_trouble
from nimlab.plan.kstatus import PeerCount, State, is_observed, peers_of, seen_at, spec_changed_at, status_of
from nimlab.plan.pod_trouble import Trouble, after_grace_period, event_trouble, is_due, pod_trouble
from nimlab.plan.sync_events import Event, ExperimentSettled, ExperimentStuck, PeersProgress

_REFUSAL_GRACE: Final = timedelta(seconds=10)  # a quota may be freed by peers that are just leaving
_EVENT_AGE: Final = timedelta(minutes=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitTarget:
    """What one experiment waits for: these workloads to settle, these objects to be gone.

    `noun` is what its pods are called. `uids` are those of the leaving objects: another one of the same
    name isn't awaited. `needs_pods` is False when all its workloads have settled already. `settled_peers`
    is the number of running peers if the snapshot shows that nothing is awaited; None otherwise.
    """

    experiment: str
    workloads: frozenset[ObjectKey]
    leaving: frozenset[ObjectKey]
    noun: str = "peer"
    uids: Mapping[ObjectKey, str] = field(default_factory=dict)
    needs_pods: bool = True
    settled_peers: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _RejectedPod:
    """Why a workload gets no pods: since when that is known, and which object the event is about."""

    since: datetime
    trouble: Trouble
    uid: str
    seen_at: datetime


@dataclass(slots=True)
class Readiness:
    """What the watches have told so far of a set; only the waiting thread writes it.

    `troubled` says of each experiment which pods don't run for a reason, without holding the pods; `refused`
    are workloads whose pods may not be made: they have no pod to carry the reason. `leaving` are deleted
    objects of other kinds that still exist. `listed` are the kinds of which everything is known.
    """

    apply_set: ApplySet
    workloads: dict[ObjectKey, Manifest] = field(default_factory=dict)
    troubled: dict[str | None, dict[ObjectKey, Trouble]] = field(default_factory=dict)
    refused: dict[ObjectKey, _RejectedPod] = field(default_factory=dict)
    leaving: dict[ObjectKey, Manifest] = field(default_factory=dict)
    listed: set[str] = field(default_factory=set)

    def forget(self, kind: str, namespace: str | None) -> None:
        """Drop what is known of a kind in a namespace; a fresh LIST follows."""
        if kind != "Pod":
            for key in [k for k in self.workloads if k.kind == kind and namespace in (None, k.namespace)]:
                del self.workloads[key]
            return
        for known in self.troubled.values():
            for key in [k for k in known if namespace in (None, k.namespace)]:
                del known[key]

    def put(self, live: Manifest, now: datetime) -> None:
        """Take note of an object as it is."""
        key = key_of(live)
        if key.kind != "Pod":
            self.workloads[key] = live
            return
        troubled = self.troubled.setdefault(self.apply_set.group_of(live), {})
        troubled.pop(key, None)
        trouble = pod_trouble(live, now)
        if trouble is not None:
            troubled[key] = trouble

    def put_leaving(self, kind: str, items: Iterable[Manifest]) -> None:
        """Take note of all objects of a kind that still exist; what isn't among them is gone."""
        for key in [key for key in self.leaving if key.kind == kind]:
            del self.leaving[key]
        self.leaving.update((key_of(live), live) for live in items)
        self.listed.add(kind)

    def note_refusal(self, event: Manifest, now: datetime) -> None:
        """Take note of an event that says why a workload gets no peers; an old one says nothing."""
        about = event.get("involvedObject") or {}
        key = ObjectKey(str(about.get("kind")), str(about.get("namespace") or ""), str(about.get("name")))
        trouble, at = event_trouble(event), seen_at(event)
        if trouble is None or at is None or now - at >= _EVENT_AGE:
            return
        uid, known = str(about.get("uid") or ""), self.refused.get(key)
        if known is not None and known.uid == uid:
            at = max(at, known.seen_at)
            self.refused[key] = replace(known, trouble=trouble, seen_at=at)
        elif known is None or known.seen_at <= at:
            self.refused[key] = _RejectedPod(since=now, trouble=trouble, uid=uid, seen_at=at)

    def drop(self, live: Manifest) -> None:
        """Take note that an object is gone."""
        key = key_of(live)
        self.troubled.get(self.apply_set.group_of(live), {}).pop(key, None)
        self.workloads.pop(key, None)


def judge(
    one: WaitTarget, board: Readiness, now: datetime, *, waited_s: float, timeout_s: float
) -> Event | None:
    """Return how an experiment stands; None as long as nothing is known. Pure."""
    if one.settled_peers is not None:
        return ExperimentSettled(
            experiment=one.experiment, running=one.settled_peers, after_s=0.0, noun=one.noun
        )
    if not {key.kind for key in one.workloads | one.leaving} <= board.listed:
        return None
    known = [board.workloads[key] for key in one.workloads if key in board.workloads]
    counts = [_count(live) for live in known]
    running, wanted = sum(c.running for c in counts), sum(c.wanted for c in counts)
    left = _left(one, board)
    settled = all(status_of(live).state is State.CURRENT for live in known)
    if settled and len(known) == len(one.workloads) and not left:
        return ExperimentSettled(experiment=one.experiment, running=running, after_s=waited_s, noun=one.noun)
    troubles = _troubles(one, board, now)
    timed_out = waited_s > timeout_s
    if timed_out or any(trouble.fatal for trouble in troubles):
        return ExperimentStuck(
            experiment=one.experiment,
            running=running,
            wanted=wanted,
            troubles=(*troubles, *map(leaving_trouble, left)),
            timed_out=timed_out,
            waited_s=waited_s,
            noun=one.noun,
            held=tuple(key_of(live) for live in left),
        )
    leaving = sum(c.leaving for c in counts) + sum(_existing(live) for live in left)
    is_told = leaving or running < wanted  # else the counts would read as if nothing were awaited
    return PeersProgress(
        experiment=one.experiment,
        running=running,
        wanted=wanted,
        leaving=leaving,
        noun=one.noun,
        why="" if is_told else _why(one, known, left),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Count:
    """Peers of one workload: asked for, ready and to stay, still to go."""

    wanted: int
    running: int
    leaving: int


def _count(live: Manifest) -> _Count:
    """Count a workload's peers: those of an older revision that a sync has deleted are still to go."""
    peers = peers_of(live)
    old = _old_peers(live, peers)
    leaving = max(peers.existing - peers.wanted, old, 0)
    running = min(peers.running, peers.updated) if old else peers.running
    return _Count(
        wanted=peers.wanted, running=min(running, peers.wanted) if leaving else running, leaving=leaving
    )


def _old_peers(live: Manifest, peers: PeerCount) -> int:
    """How many peers are of an older revision; only where the status counts revisions, and all are to go."""
    spec, status = live.get("spec") or {}, live.get("status") or {}
    rolling = (spec.get("updateStrategy") or {}).get("rollingUpdate") or {}
    if live["kind"] != "StatefulSet" or not status.get("updateRevision") or rolling.get("partition"):
        return 0
    return max(peers.existing - peers.updated, 0) if is_observed(live) else 0


def _left(one: WaitTarget, board: Readiness) -> list[Manifest]:
    """The deleted objects that still exist, and are not others of the same name."""
    found = []
    for key in sorted(one.leaving):
        live = board.workloads.get(key) if key.kind in WORKLOADS else board.leaving.get(key)
        if live is not None and one.uids.get(key) in (None, live["metadata"].get("uid")):
            found.append(live)
    return found


def _existing(live: Manifest) -> int:
    return peers_of(live).existing if live["kind"] in WORKLOADS else 0


def _why(one: WaitTarget, known: Sequence[Manifest], left: Sequence[Manifest]) -> str:
    """What is awaited where the counts of peers don't show it."""
    missing = sorted(one.workloads - {key_of(live) for live in known})
    if missing:
        return f"{missing[0]} doesn't exist"
    for live in known:
        status = status_of(live)
        if status.state is not State.CURRENT:
            return f"{key_of(live)}: {status.message}"
    others = f" (and {len(left) - 1} more)" if len(left) > 1 else ""
    return f"{key_of(left[0])}: {held_by(left[0])}{others}" if left else ""


def _troubles(one: WaitTarget, board: Readiness, now: datetime) -> tuple[Trouble, ...]:
    """What keeps the peers of an experiment from running; nobody waits for those of a deleted workload."""
    if not one.workloads:
        return ()
    noted = board.troubled.get(one.experiment, {}).values()
    found = [after_grace_period(trouble, now) for trouble in noted if is_due(trouble, now)]
    for key, refusal in board.refused.items():
        live = board.workloads.get(key)
        if key not in one.workloads or live is None or not _is_about(refusal, live):
            continue
        count = peers_of(live)
        if count.existing < count.wanted and now - refusal.since > _REFUSAL_GRACE:
            trouble = refusal.trouble
            found.append(replace(trouble, message=redact(trouble.message, secrets_in(live))))
    return tuple(sorted(found, key=lambda t: (not t.fatal, t.pod)))


def _is_about(refusal: _RejectedPod, live: Manifest) -> bool:
    """True when the event is about this very object, as it is since its last change."""
    changed_at = spec_changed_at(live)
    is_same = refusal.uid in ("", live["metadata"].get("uid"))
    return is_same and (changed_at is None or refusal.seen_at >= changed_at)
