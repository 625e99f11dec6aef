"""One sync at a time: a Lease with an expiry, which is also the proof that a snapshot is still good.

A sync reads the lease together with everything else. Taking it demands that it still has the
resourceVersion that was read, so whoever holds it knows that no other sync has written since its own look.
A holder that dies stops renewing, and the lease may be taken when its time is over. One that was only
paused (a laptop asleep, a frozen container) asks `check` before each write, and writes no more once its time
may be over. Machines whose clocks differ by more than the duration can take it too early; then the former
holder's next renewal fails, and it stops.

A lease whose end can't be determined (no time, a time that isn't one, a time in the far future) counts as
held. It is never taken on doubt: the error names its holder, its time, and the command that frees it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from nimlab.cluster.port import Cluster
from nimlab.errors import ClusterError, Interrupted, LockHeld, NimlabError, PreconditionFailed
from nimlab.objects.applyset import ApplySet
from nimlab.objects.manifest import Manifest, ObjectKey, key_of

_DURATION_S: Final = 60
_RENEW_EVERY_S: Final = 15
_RELEASES: Final = 3
_CLOCKS_DIFFER: Final = timedelta(seconds=5)  # more is worth a word
_SURELY_HELD: Final = timedelta(seconds=_DURATION_S - _RENEW_EVERY_S)  # room for a write that is under way


class Lock:
    """A lease that is held and renewed until `release`.

    `lost` is set once somebody else has taken it, or may have; `stop` is set with it.
    """

    def __init__(
        self,
        cluster: Cluster,
        lease: Manifest,
        now: Callable[[], datetime],
        *,
        taken: datetime,
        stop: threading.Event,
    ) -> None:
        self._cluster = cluster
        self._lease = lease
        self._now = now
        self._renewed = taken
        self._stop = stop
        self._done = threading.Event()
        self.lost = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise LockHeld unless the lease is certainly held still; asked before every write."""
        if self._now() - self._renewed > _SURELY_HELD:
            self._lose()
        if self.lost.is_set():
            raise LockHeld(
                "this sync's lock has run out, and another may be at work: it writes no more",
                where=key_of(self._lease),
                hint="run it again: it looks anew",
            )

    def release(self) -> None:
        """Give the lease back, once; a lease that can't be given back expires by itself."""
        if self._done.is_set():
            return
        self._done.set()
        self._thread.join()
        if self.lost.is_set():
            return
        for _ in range(_RELEASES):
            try:
                self._cluster.replace(_with_spec(self._lease, holderIdentity="", leaseDurationSeconds=1))
            except Interrupted:  # a signal allows no pause: try again at once
                continue
            except NimlabError:
                return
            return

    def _renew(self) -> None:
        while not self._done.wait(_RENEW_EVERY_S):
            begun = self._now()
            try:
                renewal = _with_spec(self._lease, renewTime=_stamp(begun))
                self._lease = _sent(self._cluster, self._cluster.replace, renewal)
                self._renewed = begun
            except PreconditionFailed:
                self._lose()
            except NimlabError as error:
                is_freed = isinstance(error, ClusterError) and error.status == 404  # by hand
                if is_freed or self._now() - self._renewed > _SURELY_HELD:
                    self._lose()
            if self.lost.is_set():
                return

    def _lose(self) -> None:
        self.lost.set()
        self._stop.set()


class Locks:
    """Several leases that are held together; the first one is the current set's."""

    def __init__(self, locks: Sequence[Lock]) -> None:
        self._locks = tuple(locks)

    def check(self) -> None:
        """Raise LockHeld unless all leases are certainly held; called before every write."""
        for lock in self._locks:
            lock.check()

    def release(self) -> None:
        """Release all leases, once."""
        for lock in self._locks:
            lock.release()

    @property
    def is_lost(self) -> bool:
        """True once one of the leases is lost, or may be."""
        return any(lock.lost.is_set() for lock in self._locks)


def acquire_all(
    cluster: Cluster,
    leases: Sequence[tuple[ApplySet, Manifest | None]],
    *,
    holder: str,
    now: Callable[[], datetime],
    stop: threading.Event,
) -> Locks:
    """Take the lease of each set as it was read; all of them or none. Raises as `acquire` does."""
    locks: list[Lock] = []
    try:
        for apply_set, lease in leases:
            locks.append(acquire(cluster, apply_set, lease, holder=holder, now=now, stop=stop))
    except NimlabError:
        Locks(locks).release()
        raise
    return Locks(locks)


def acquire(
    cluster: Cluster,
    apply_set: ApplySet,
    lease: Manifest | None,
    *,
    holder: str,
    now: Callable[[], datetime],
    stop: threading.Event,
) -> Lock:
    """Take the lease as it was read and return the lock; `stop` is set should it be lost.

    Raises Moved when it has changed since (look again), LockHeld when another sync holds it.
    """
    taken = now()
    current = hold_of(lease, taken)
    if current is not None:
        raise _held(current, apply_set.lease_key, taken)
    spec = {
        "holderIdentity": holder,
        "leaseDurationSeconds": _DURATION_S,
        "acquireTime": _stamp(taken),
        "renewTime": _stamp(taken),
    }
    key = apply_set.lease_key
    new = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": key.name, "namespace": key.namespace},
        "spec": spec,
    }
    if lease is None:
        made = _sent(cluster, cluster.create, new)
    else:
        made = _sent(cluster, cluster.replace, _with_spec(lease, **spec))
    return Lock(cluster, made, now, taken=taken, stop=stop)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Who holds a lease; the times are as the lease says them.

    `until` is when it ends unless it is renewed, None where that can't be told.
    """

    holder: str
    renewed: str
    until: datetime | None


def hold_of(lease: Manifest | None, now: datetime) -> Hold | None:
    """Return who holds the lease, None when nobody does or its time is certainly over."""
    spec = (lease or {}).get("spec") or {}
    holder, renewed = spec.get("holderIdentity"), spec.get("renewTime")
    if not holder:
        return None
    until = _end_of(renewed, spec.get("leaseDurationSeconds"))
    if until is not None and now >= until:
        return None
    return Hold(holder=str(holder), renewed=str(renewed or "at no time that it says"), until=until)


def _end_of(renewed: Any, duration_s: Any) -> datetime | None:  # noqa: ANN401 -- any JSON value
    """When a lease ends; None for a time that isn't one, or that lies beyond what can be computed."""
    try:
        begun = datetime.fromisoformat(renewed).astimezone(UTC)
        return begun + timedelta(seconds=_DURATION_S if duration_s is None else int(duration_s))
    except (TypeError, ValueError, OverflowError):
        return None


def _held(hold: Hold, key: ObjectKey, now: datetime) -> LockHeld:
    """The error for a lock that another sync holds: how long for, and what to do if that sync is dead."""
    free = f"`kubectl -n {key.namespace} delete lease {key.name}` frees it"
    longest = now + timedelta(seconds=_DURATION_S) + _CLOCKS_DIFFER
    if hold.until is not None and hold.until <= longest:
        left_s = max(1, round((hold.until - now).total_seconds()))
        what = f"another sync is at work: {hold.holder}; its lock ends in {left_s} s unless it is renewed"
        return LockHeld(
            what,
            where=key,
            hint="wait for it (`--lock-timeout 5m`); a dead one's lock ends by itself within a minute",
        )
    here = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    end = "can't be computed" if hold.until is None else f"is at {hold.until:%Y-%m-%dT%H:%M:%SZ}"
    what = (
        f"another sync may be at work: {hold.holder}; its lock was renewed {hold.renewed}, "
        f"its end {end}, and it is {here} now"
    )
    hint = f"compare the clocks; the lock won't end by itself soon. If no sync is at work, {free}"
    return LockHeld(what, where=key, hint=hint)


def _sent(cluster: Cluster, send: Callable[[Manifest], Manifest], lease: Manifest) -> Manifest:
    """Write the lease; when the answer to a first try got lost, the second one finds our own writing."""
    try:
        return send(lease)
    except PreconditionFailed:
        live = cluster.get(key_of(lease))
        if live is None or live.get("spec") != lease["spec"]:
            raise
        return live


def _with_spec(lease: Manifest, **changes: Any) -> Manifest:  # noqa: ANN401 -- any JSON value
    return {**lease, "spec": {**(lease.get("spec") or {}), **changes}}


def _stamp(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
