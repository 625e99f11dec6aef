"""The only code that writes to a cluster: acquire the lock, execute a plan in parallel, report each step.

In: a `Plan` and a `Cluster`. Out: events. This package makes only the changes that the plan contains. A crash
after any write is safe: the next sync compares the cluster with the files again, plans the remaining changes
and executes them.
"""

from __future__ import annotations

from nimlab.cluster.apply.execute import ApplyOptions, create_namespace, create_password, execute
from nimlab.cluster.apply.explain_rejected_write import explain_terminating_namespace
from nimlab.cluster.apply.lease_lock import Lock, Locks, acquire_lock, acquire_locks, current_holder
from nimlab.cluster.apply.readiness import WaitTarget
from nimlab.cluster.apply.wait_for_peers import Clock, system_clock, wait_targets, wait_until_settled
from nimlab.plan.sync_events import (
    Event,
    ExperimentSettled,
    ExperimentStuck,
    Notice,
    ObjectDone,
    Outcome,
    PeersProgress,
    PeersRestarted,
)

__all__ = [
    "ApplyOptions",
    "Clock",
    "Event",
    "ExperimentSettled",
    "ExperimentStuck",
    "Lock",
    "Locks",
    "Notice",
    "ObjectDone",
    "Outcome",
    "PeersProgress",
    "PeersRestarted",
    "WaitTarget",
    "acquire_lock",
    "acquire_locks",
    "create_namespace",
    "create_password",
    "current_holder",
    "execute",
    "explain_terminating_namespace",
    "system_clock",
    "wait_targets",
    "wait_until_settled",
]
