"""One sync at a time: a Lease with an expiry, which is also the proof that a snapshot is still good.

A sync reads the lease together with everything else. Taking it demands that it still has the
resourceVersion that was read, so whoever holds it knows that no other sync has written since its own look.
A holder that dies stops renewing, and the lease may be taken when its time is over. Machines whose clocks
differ by more than the duration can take it too early; then the former holder's next renewal fails, and it
stops.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from nimlab.cluster import Cluster
from nimlab.errors import ClusterError, LockHeld, Moved
from nimlab.manifest import Manifest, key_of
from nimlab.owned import ApplySet

_DURATION_S: Final = 60
_RENEW_EVERY_S: Final = 15


class Lock:
    """A lease that is held and renewed until `release`. `lost` is set when somebody else has taken it."""

    def __init__(self, cluster: Cluster, lease: Manifest, now: Callable[[], datetime]) -> None:
        self._cluster = cluster
        self._lease = lease
        self._now = now
        self._done = threading.Event()
        self.lost = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Give the lease back, once; a lease that can't be given back expires by itself."""
        if self._done.is_set():
            return
        self._done.set()
        self._thread.join()
        if self.lost.is_set():
            return
        with suppress(ClusterError):
            self._cluster.replace(_with_spec(self._lease, holderIdentity="", leaseDurationSeconds=1))

    def _renew(self) -> None:
        renewed = self._now()
        while not self._done.wait(_RENEW_EVERY_S):
            try:
                renewal = _with_spec(self._lease, renewTime=_stamp(self._now()))
                self._lease = _sent(self._cluster, self._cluster.replace, renewal)
                renewed = self._now()
            except Moved:
                self.lost.set()
                return
            except ClusterError:
                if self._now() - renewed > timedelta(seconds=_DURATION_S - _RENEW_EVERY_S):
                    self.lost.set()
                    return


def acquire(
    cluster: Cluster,
    apply_set: ApplySet,
    lease: Manifest | None,
    *,
    holder: str,
    now: Callable[[], datetime],
) -> Lock:
    """Take the lease as it was read and return the lock.

    Raises Moved when it has changed since (look again), LockHeld when another sync holds it.
    """
    current = holder_of(lease, now())
    if current is not None:
        raise LockHeld(
            f"another sync is at work: {current}",
            where=apply_set.lease_key,
            hint="wait for it (`--lock-timeout 5m`); a dead one's lock ends by itself within a minute",
        )
    stamp = _stamp(now())
    spec = {
        "holderIdentity": holder,
        "leaseDurationSeconds": _DURATION_S,
        "acquireTime": stamp,
        "renewTime": stamp,
    }
    if lease is not None:
        return Lock(cluster, _sent(cluster, cluster.replace, _with_spec(lease, **spec)), now)
    key = apply_set.lease_key
    new = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": key.name, "namespace": key.namespace},
        "spec": spec,
    }
    return Lock(cluster, _sent(cluster, cluster.create, new), now)


def holder_of(lease: Manifest | None, now: datetime) -> str | None:
    """Return who holds the lease, None when it is free or its time is over."""
    spec = (lease or {}).get("spec") or {}
    holder, renewed = spec.get("holderIdentity"), spec.get("renewTime")
    if not holder or not renewed:
        return None
    until = datetime.fromisoformat(renewed) + timedelta(seconds=int(spec.get("leaseDurationSeconds") or 0))
    return str(holder) if now < until else None


def _sent(cluster: Cluster, send: Callable[[Manifest], Manifest], lease: Manifest) -> Manifest:
    """Write the lease; when the answer to a first try got lost, the second one finds our own writing."""
    try:
        return send(lease)
    except Moved:
        live = cluster.get(key_of(lease))
        if live is None or live.get("spec") != lease["spec"]:
            raise
        return live


def _with_spec(lease: Manifest, **changes: Any) -> Manifest:  # noqa: ANN401 -- any JSON value
    return {**lease, "spec": {**(lease.get("spec") or {}), **changes}}


def _stamp(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
