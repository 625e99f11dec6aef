"""What there is to see of pods and of what happened to them: never more than a few pages.

In: the cluster. Out: live objects. All of ten thousand pods take the server seconds to say, and nobody reads
them: what counts them is their StatefulSet.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from nimlab.cluster import Cluster, Listing
from nimlab.manifest import Manifest

_FEW: Final = 100  # a megabyte of pods, which a busy server says in a tenth of a second


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """Some objects, in no order; `whole` if there are no others."""

    items: tuple[Manifest, ...]
    whole: bool


def read_pods(cluster: Cluster, namespace: str, labels: str) -> Sight:
    """Return the pods with these labels: a page of them, and if that isn't all, a page that doesn't run.

    Raises ClusterError.
    """
    return _first_pages(cluster, "Pod", namespace, labels, "status.phase!=Running")


def read_events(cluster: Cluster, namespace: str) -> Sight:
    """Return a namespace's events: a page of them, and if that isn't all, a page of the warnings.

    Each selection makes the server go through all events that there are. Raises ClusterError.
    """
    return _first_pages(cluster, "Event", namespace, "", "type=Warning")


def _first_pages(cluster: Cluster, kind: str, namespace: str, labels: str, chosen: str) -> Sight:
    """Return the first page, and if there are more, what is chosen by its fields, too.

    Both are asked for at once: where there are many, each takes the server its time.
    """

    def read(fields: str) -> Listing:
        return next(iter(cluster.pages(kind, namespace=namespace, labels=labels, fields=fields, size=_FEW)))

    with ThreadPoolExecutor(max_workers=2) as pool:
        first, some = pool.map(read, ("", chosen))
    if not first.more:
        return Sight(items=first.items, whole=True)
    found = {item["metadata"]["uid"]: item for item in (*first.items, *some.items)}
    return Sight(items=tuple(found.values()), whole=False)
