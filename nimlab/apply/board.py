"""What is known of the peers while waiting for them, and what that means for each experiment.

In: objects as watches and LISTs tell of them. Out: for an experiment, how it stands. Nothing is read here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from nimlab.apply.events import Event, ExperimentSettled, ExperimentStuck, PeersProgress
from nimlab.manifest import WORKLOADS, Manifest, ObjectKey, key_of
from nimlab.masking import redact, secrets_in
from nimlab.owned import ApplySet
from nimlab.status import State, Trouble, event_trouble, peers_of, pod_trouble, ripened, status_of

_REFUSAL_GRACE: Final = timedelta(seconds=10)  # a quota may be freed by peers that are just leaving
_EVENT_AGE: Final = timedelta(minutes=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Awaited:
    """What one experiment waits for: these workloads to settle, these objects to be gone.

    `noun` is what its pods are called.
    """

    experiment: str
    workloads: frozenset[ObjectKey]
    leaving: frozenset[ObjectKey]
    noun: str = "peer"


@dataclass(slots=True)
class Board:
    """What the watches have told so far of a set; only the waiting thread writes it.

    `troubled` says of each experiment which pods don't run for a reason, without holding the pods; `refused`
    are workloads whose pods may not be made, with the time that was first seen: they have no pod to carry the
    reason. `listed` are the kinds of which everything is known.
    """

    apply_set: ApplySet
    workloads: dict[ObjectKey, Manifest] = field(default_factory=dict)
    troubled: dict[str | None, dict[ObjectKey, Trouble]] = field(default_factory=dict)
    refused: dict[ObjectKey, tuple[datetime, Trouble]] = field(default_factory=dict)
    gone: set[ObjectKey] = field(default_factory=set)
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
        trouble = None if live["metadata"].get("deletionTimestamp") else pod_trouble(live, now)
        if trouble is not None:
            troubled[key] = trouble

    def note_refusal(self, event: Manifest, now: datetime) -> None:
        """Take note of an event that says why a workload gets no peers; an old one says nothing."""
        about = event.get("involvedObject") or {}
        key = ObjectKey(str(about.get("kind")), str(about.get("namespace") or ""), str(about.get("name")))
        trouble = event_trouble(event)
        if trouble is not None and _is_recent(event, now):
            since = self.refused.get(key, (now, trouble))[0]
            self.refused[key] = (since, trouble)

    def drop(self, live: Manifest) -> None:
        """Take note that an object is gone."""
        key = key_of(live)
        self.troubled.get(self.apply_set.group_of(live), {}).pop(key, None)
        self.workloads.pop(key, None)


def judge(one: Awaited, board: Board, now: datetime, *, waited_s: float, timeout_s: float) -> Event | None:
    """Return how an experiment stands; None as long as nothing is known. Pure."""
    kinds = {key.kind for key in one.workloads | one.leaving} & WORKLOADS
    if not kinds <= board.listed:
        return None
    known = [board.workloads[key] for key in one.workloads if key in board.workloads]
    peers = [peers_of(live) for live in known]
    running, wanted = sum(p.running for p in peers), sum(p.wanted for p in peers)
    left = {key for key in one.leaving if key in board.workloads or _is_namespace_left(key, board)}
    leaving = sum(peers_of(board.workloads[k]).existing for k in left if k in board.workloads)
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
            troubles=troubles,
            timed_out=timed_out,
            waited_s=waited_s,
            noun=one.noun,
        )
    return PeersProgress(
        experiment=one.experiment, running=running, wanted=wanted, leaving=leaving, noun=one.noun
    )


def _is_namespace_left(key: ObjectKey, board: Board) -> bool:
    return key.kind == "Namespace" and key not in board.gone


def _troubles(one: Awaited, board: Board, now: datetime) -> tuple[Trouble, ...]:
    found = [ripened(trouble, now) for trouble in board.troubled.get(one.experiment, {}).values()]
    for key, (since, trouble) in board.refused.items():
        live = board.workloads.get(key)
        if key not in one.workloads or live is None:
            continue
        count = peers_of(live)
        if count.existing < count.wanted and now - since > _REFUSAL_GRACE:
            found.append(replace(trouble, message=redact(trouble.message, secrets_in(live))))
    return tuple(sorted(found, key=lambda t: (not t.fatal, t.pod)))


def _is_recent(event: Manifest, now: datetime) -> bool:
    text = event.get("lastTimestamp") or event.get("eventTime")
    return bool(text) and now - datetime.fromisoformat(str(text)) < _EVENT_AGE
