"""Lock for syncs: a Lease that expires, so that only one sync of an apply-set writes at a time.

The lease also proves that a snapshot is current. A sync reads the lease together with the snapshot. It can
acquire the lease only if the lease still has the resourceVersion that was read. Therefore, if a sync acquires
the lease, no other sync has written since the snapshot.

If the holder dies, it no longer renews the lease, and another sync can acquire it after its expiry. A holder
calls `check` before each write, and stops writing once its lease may have expired. This can happen if the
holder is suspended for some time, such as on a sleeping laptop. If the clock of another machine is ahead by
more than the lease duration, that machine can acquire the lease too early. Then the next renewal by the first
holder fails, and the first holder stops writing.

If the expiry cannot be determined (the renew time is missing, invalid or in the far future), the lease counts
as held. The error names the holder, the renew time, and the command that deletes the lease.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from nimlab.cluster.interface import RUN_AGAIN, Cluster
from nimlab.errors import ClusterError, Interrupted, LockHeld, NimlabError, PreconditionFailed
from nimlab.objects.applyset import ApplySet
from nimlab.objects.manifest import Manifest, ObjectKey, key_of

_DURATION_S: Final = 60
_RENEW_EVERY_S: Final = 15
_RELEASE_ATTEMPTS: Final = 3
_MAX_CLOCK_SKEW: Final = timedelta(seconds=5)  # beyond this, the error suggests comparing the clocks
_SURELY_HELD: Final = timedelta(
    seconds=_DURATION_S - _RENEW_EVERY_S
)  # the remaining time is for a write in progress


class Lock:
    """A lease that is held and renewed until `release`.

    The event `lost` is set when another sync has acquired the lease or may have acquired it. The event
    `stop`, which the caller passes, is set at the same time.
    """

    def __init__(
        self,
        cluster: Cluster,
        lease: Manifest,
        now: Callable[[], datetime],
        *,
        acquired: datetime,
        stop: threading.Event,
    ) -> None:
        self._cluster = cluster
        self._lease = lease
        self._now = now
        self._renewed = acquired
        self._stop = stop
        self._done = threading.Event()
        self.lost = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise LockHeld unless this sync certainly still holds the lease; called before every write."""
        if self._now() - self._renewed > _SURELY_HELD:
            self._mark_lost()
        if self.lost.is_set():
            raise LockHeld(
                "the lock of this sync has expired, and another sync may be running; this sync stops writing",
                where=key_of(self._lease),
                hint=RUN_AGAIN,
            )

    def release(self) -> None:
        """Release the lease; further calls do nothing. If the request fails, the lease expires by itself."""
        if self._done.is_set():
            return
        self._done.set()
        self._thread.join()
        if self.lost.is_set():
            return
        for _ in range(_RELEASE_ATTEMPTS):
            try:
                self._cluster.replace(_with_spec(self._lease, holderIdentity="", leaseDurationSeconds=1))
            except Interrupted:  # a signal ended the pause before a retry: send the request again
                continue
            except NimlabError:
                return
            return

    def _renew(self) -> None:
        while not self._done.wait(_RENEW_EVERY_S):
            renew_time = self._now()
            try:
                renewal = _with_spec(self._lease, renewTime=_format_time(renew_time))
                self._lease = _write(self._cluster, self._cluster.replace, renewal)
                self._renewed = renew_time
            except PreconditionFailed:
                self._mark_lost()
            except NimlabError as error:
                is_deleted = (
                    isinstance(error, ClusterError) and error.status == 404
                )  # a user deleted the lease
                if is_deleted or self._now() - self._renewed > _SURELY_HELD:
                    self._mark_lost()
            if self.lost.is_set():
                return

    def _mark_lost(self) -> None:
        self.lost.set()
        self._stop.set()


class Locks:
    """Several locks that are held together; the first one is the lock of the current apply-set."""

    def __init__(self, locks: Sequence[Lock]) -> None:
        self._locks = tuple(locks)

    def check(self) -> None:
        """Raise LockHeld unless this sync certainly still holds all leases; called before every write."""
        for lock in self._locks:
            lock.check()

    def release(self) -> None:
        """Release all leases; further calls do nothing."""
        for lock in self._locks:
            lock.release()

    @property
    def is_lost(self) -> bool:
        """True once one of the leases is lost or may be lost."""
        return any(lock.lost.is_set() for lock in self._locks)


def acquire_locks(
    cluster: Cluster,
    leases: Sequence[tuple[ApplySet, Manifest | None]],
    *,
    holder: str,
    now: Callable[[], datetime],
    stop: threading.Event,
) -> Locks:
    """Acquire the leases of all apply-sets; if one cannot be acquired, release the others.

    Raises the errors of `acquire_lock`.
    """
    locks: list[Lock] = []
    try:
        for apply_set, lease in leases:
            locks.append(acquire_lock(cluster, apply_set, lease, holder=holder, now=now, stop=stop))
    except NimlabError:
        Locks(locks).release()
        raise
    return Locks(locks)


def acquire_lock(
    cluster: Cluster,
    apply_set: ApplySet,
    lease: Manifest | None,
    *,
    holder: str,
    now: Callable[[], datetime],
    stop: threading.Event,
) -> Lock:
    """Acquire the lease, if it is unchanged since it was read. `stop` is set if the lock is lost later.

    Raises PreconditionFailed if the lease has changed; the caller must then read the lease again. Raises
    LockHeld if another sync holds the lease.
    """
    acquired = now()
    current = current_holder(lease, acquired)
    if current is not None:
        raise _lock_held(current, apply_set.lease_key, acquired)
    spec = {
        "holderIdentity": holder,
        "leaseDurationSeconds": _DURATION_S,
        "acquireTime": _format_time(acquired),
        "renewTime": _format_time(acquired),
    }
    if lease is None:
        written = _write(cluster, cluster.create, _new_lease(apply_set.lease_key, spec))
    else:
        written = _write(cluster, cluster.replace, _with_spec(lease, **spec))
    return Lock(cluster, written, now, acquired=acquired, stop=stop)


def _new_lease(key: ObjectKey, spec: Manifest) -> Manifest:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": key.name, "namespace": key.namespace},
        "spec": spec,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseHolder:
    """The holder of a lease; `renewed` is the text of the renew time in the lease.

    `until` is the time at which the lease expires if it is not renewed; None if this time cannot be
    determined.
    """

    name: str
    renewed: str
    until: datetime | None


def current_holder(lease: Manifest | None, now: datetime) -> LeaseHolder | None:
    """Return the holder of the lease; None if the lease has no holder or has certainly expired."""
    spec = (lease or {}).get("spec") or {}
    holder, renewed = spec.get("holderIdentity"), spec.get("renewTime")
    if not holder:
        return None
    until = _expiry(renewed, spec.get("leaseDurationSeconds"))
    if until is not None and now >= until:
        return None
    return LeaseHolder(name=str(holder), renewed=str(renewed or "at an unknown time"), until=until)


def _expiry(renewed: Any, duration_s: Any) -> datetime | None:  # noqa: ANN401 -- any JSON value
    """Return the time at which a lease expires; None if the renew time or the duration is invalid."""
    try:
        begun = datetime.fromisoformat(renewed).astimezone(UTC)
        return begun + timedelta(seconds=_DURATION_S if duration_s is None else int(duration_s))
    except (TypeError, ValueError, OverflowError):
        return None


def _lock_held(holder: LeaseHolder, key: ObjectKey, now: datetime) -> LockHeld:
    """Return the error for a lock that another sync holds; it contains the expiry of the lock and a hint."""
    latest_expiry = now + timedelta(seconds=_DURATION_S) + _MAX_CLOCK_SKEW
    if holder.until is not None and holder.until <= latest_expiry:
        remaining_s = max(1, round((holder.until - now).total_seconds()))
        what = f"another sync is running: {holder.name}; its lock expires in {remaining_s} s unless renewed"
        hint = "wait for it (`--lock-timeout 5m`); if that sync has died, its lock expires within a minute"
        return LockHeld(what, where=key, hint=hint)
    local_time = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    expiry = "cannot be determined" if holder.until is None else f"is {holder.until:%Y-%m-%dT%H:%M:%SZ}"
    what = (
        f"another sync may be running: {holder.name}; its lock was renewed {holder.renewed}, "
        f"its expiry {expiry}, and the time on this machine is {local_time}"
    )
    command = f"`kubectl -n {key.namespace} delete lease {key.name}`"
    hint = f"compare the clocks; the lock will not expire soon. If no sync is running, free it with {command}"
    return LockHeld(what, where=key, hint=hint)


def _write(cluster: Cluster, send: Callable[[Manifest], Manifest], lease: Manifest) -> Manifest:
    """Write the lease and return it.

    If an earlier attempt has already written the lease and its response was lost, the server reports a
    conflict. Such a conflict counts as a success.
    """
    try:
        return send(lease)
    except PreconditionFailed:
        live = cluster.get(key_of(lease))
        if live is None or live.get("spec") != lease["spec"]:
            raise
        return live


def _with_spec(lease: Manifest, **changes: Any) -> Manifest:  # noqa: ANN401 -- any JSON value
    return {**lease, "spec": {**(lease.get("spec") or {}), **changes}}


def _format_time(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
