"""Acquire the lock if no other sync has written since the observation, or wait until it is released."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Final

from nimlab.cluster.apply import (
    Event,
    Locks,
    acquire_locks,
    current_holder,
    explain_terminating_namespace,
    system_clock,
)
from nimlab.errors import Forbidden, NimlabError, PreconditionFailed
from nimlab.plan.snapshot import Snapshot
from nimlab.plan.sync_events import LockAwaited
from nimlab.workflow.session import Session

_POLL_S: Final = 1.0


def acquire_lock(session: Session, snapshot: Snapshot) -> Locks:
    """Acquire the leases of the apply-set and its former apply-sets, if they are as in the snapshot.

    Raises PreconditionFailed if a lease has changed since the snapshot. Raises LockHeld if another sync holds
    a lease. Raises Forbidden if the account may not write leases.
    """
    leases = [
        (snapshot.apply_set, snapshot.lease),
        *((former.apply_set, former.lease) for former in snapshot.former),
    ]
    now = _server_clock(session)
    try:
        return acquire_locks(session.cluster, leases, holder=_holder(), now=now, stop=session.stop)
    except (Forbidden, PreconditionFailed) as error:
        explained = explain_terminating_namespace(error, session.cluster, snapshot.apply_set.namespace)
        if explained is error:
            raise
        raise explained from error


def wait_for_lock(
    session: Session, snapshot: Snapshot, error: NimlabError, deadline_s: float
) -> Iterator[Event]:
    """Wait until all leases are free; raise `error` at the deadline. Yields at most one LockAwaited."""
    sets = (snapshot.apply_set, *(former.apply_set for former in snapshot.former))
    now = _server_clock(session)
    is_reported = False
    while True:
        holders = (current_holder(session.cluster.get(apply_set.lease_key), now()) for apply_set in sets)
        holder = next(filter(None, holders), None)
        if holder is None:
            return
        session.raise_if_stopped()
        if time.monotonic() > deadline_s:
            raise error
        if not is_reported:
            yield LockAwaited(holder=holder.name)
            is_reported = True
        session.stop.wait(_POLL_S)


def _server_clock(session: Session) -> Callable[[], datetime]:
    """Return a function for the server's time. The clocks of the machines that run syncs may differ."""
    ahead = timedelta(seconds=session.cluster.ahead_s())
    own_now = system_clock().now
    return lambda: own_now() + ahead


def _holder() -> str:
    """Return the name of this sync for the lock.

    In a pipeline, the name is the URL of the job. Elsewhere, it consists of the user, the machine and the
    process.
    """
    job = os.environ.get("CI_JOB_URL")
    return job or f"{os.environ.get('USER', 'unknown')}@{socket.gethostname()} (pid {os.getpid()})"
