"""Reads beside the watches: events about refused pods, and deleted objects that no watch covers.

In: what is awaited. Out: entries on a board. A LIST for each kind, over all namespaces where the credentials
allow that; kinds of which nothing is awaited any more are not read again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from nimlab.cluster.apply.readiness import Readiness, WaitTarget
from nimlab.cluster.port import Cluster
from nimlab.errors import Forbidden
from nimlab.objects.applyset import PART_OF, ApplySet
from nimlab.objects.manifest import KINDS, WORKLOADS, Manifest, ObjectKey
from nimlab.plan.kstatus import peers_of


class ExtraReads:
    """Reads what no watch tells; remembers which kinds can't be read in all namespaces at once."""

    def __init__(self, cluster: Cluster, apply_set: ApplySet) -> None:
        self._cluster = cluster
        self._labels = f"{PART_OF}={apply_set.id}"
        self._forbidden: set[str] = set()

    def read(self, pending: Sequence[WaitTarget], board: Readiness, now: datetime) -> None:
        """Put on the board which deleted objects still exist, and why pods are refused.

        Raises ClusterError.
        """
        awaited = {key for one in pending for key in one.leaving if key.kind not in WORKLOADS}
        still = {key for key in awaited if key.kind not in board.listed or key in board.leaving}
        for kind in sorted({key.kind for key in still}):
            board.put_leaving(kind, self._leaving(kind, {key for key in awaited if key.kind == kind}))
        short = {key for one in pending for key in one.workloads if _is_short(key, board)}
        fields = "reason=FailedCreate,type=Warning"
        for event in self._items("Event", {key.namespace for key in short}, fields=fields):
            board.note_refusal(event, now)

    def _leaving(self, kind: str, keys: set[ObjectKey]) -> Iterable[Manifest]:
        if KINDS[kind].namespaced:
            return self._items(kind, {key.namespace for key in keys}, labels=self._labels)
        return self._cluster.list_objects(kind, namespace=None, labels=self._labels).items

    def _items(
        self, kind: str, namespaces: set[str], *, labels: str = "", fields: str = ""
    ) -> Iterable[Manifest]:
        """All objects in these namespaces: one LIST where the credentials allow it."""
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


def _is_short(key: ObjectKey, board: Readiness) -> bool:
    live = board.workloads.get(key)
    return live is not None and peers_of(live).existing < peers_of(live).wanted
