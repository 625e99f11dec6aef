"""Periodic reads in addition to the watches, for FailedCreate events and for kinds that are not watched.

In: the pending wait targets. Out: updates of a `Readiness`. Each kind is read by one LIST over all namespaces
if the credentials allow that, else by one LIST per namespace. A kind is no longer read once no object of this
kind is pending.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from nimlab.cluster.apply.readiness import Readiness, WaitTarget
from nimlab.cluster.interface import Cluster
from nimlab.errors import Forbidden
from nimlab.objects.applyset import PART_OF, ApplySet
from nimlab.objects.kinds_and_order import KINDS, WORKLOADS
from nimlab.objects.manifest import Manifest, ObjectKey
from nimlab.plan.kstatus import peers_of


class PeriodicReads:
    """A reader for the kinds that are not watched. It stores which kinds need one LIST for each namespace."""

    def __init__(self, cluster: Cluster, apply_set: ApplySet) -> None:
        self._cluster = cluster
        self._labels = f"{PART_OF}={apply_set.id}"
        self._forbidden: set[str] = set()

    def read(self, pending: Sequence[WaitTarget], readiness: Readiness, now: datetime) -> None:
        """Record in `readiness` which deleted objects still exist, and why pods cannot be created.

        Raises ClusterError.
        """
        awaited = {key for target in pending for key in target.terminating if key.kind not in WORKLOADS}
        unread = {key for key in awaited if key.kind not in readiness.listed or key in readiness.terminating}
        for kind in sorted({key.kind for key in unread}):
            remaining = self._read_terminating(kind, {key for key in awaited if key.kind == kind})
            readiness.record_terminating(kind, remaining)
        workloads = {key for target in pending for key in target.workloads}
        namespaces = {key.namespace for key in workloads if _lacks_pods(key, readiness)}
        for event in self._list("Event", namespaces, fields="reason=FailedCreate,type=Warning"):
            readiness.record_rejection(event, now)

    def _read_terminating(self, kind: str, keys: set[ObjectKey]) -> Iterable[Manifest]:
        if KINDS[kind].namespaced:
            return self._list(kind, {key.namespace for key in keys}, labels=self._labels)
        return self._cluster.list_objects(kind, namespace=None, labels=self._labels).items

    def _list(
        self, kind: str, namespaces: set[str], *, labels: str = "", fields: str = ""
    ) -> Iterable[Manifest]:
        """Return all objects in these namespaces, by a single LIST if the credentials allow it."""
        if len(namespaces) > 1 and kind not in self._forbidden:
            try:
                return self._cluster.list_objects(kind, namespace=None, labels=labels, fields=fields).items
            except Forbidden:
                self._forbidden.add(kind)
        return tuple(
            item
            for namespace in sorted(namespaces)
            for item in self._cluster.list_objects(
                kind, namespace=namespace, labels=labels, fields=fields
            ).items
        )


def _lacks_pods(key: ObjectKey, readiness: Readiness) -> bool:
    live = readiness.workloads.get(key)
    return live is not None and peers_of(live).existing < peers_of(live).wanted
