"""A plan carried out: locked, staged, in parallel, each step told as an event.

In: a `Plan` and the port to the cluster. Out: events. This is the only room that writes to a cluster, and
it writes nothing that isn't in the plan. Any of its writes may be the last one before a crash: the next sync
repairs what is missing, since nothing is recorded but ownership.
"""

from __future__ import annotations

from nimlab.cluster.apply.execute import ApplyOptions, create_namespace, create_password, execute
from nimlab.cluster.apply.lease_lock import Lock, Locks, acquire, acquire_all, hold_of
from nimlab.cluster.apply.readiness import WaitTarget
from nimlab.cluster.apply.terminating_namespace import with_reason
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
    "acquire",
    "acquire_all",
    "create_namespace",
    "create_password",
    "execute",
    "hold_of",
    "system_clock",
    "wait_targets",
    "wait_until_settled",
    "with_reason",
]
