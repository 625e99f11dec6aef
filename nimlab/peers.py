"""What there is to see of pods and of what happened to them: never more than a few pages.

In: the cluster. Out: live objects. All of ten thousand pods take the server seconds to say, and nobody reads
them: what counts them is their StatefulSet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from nimlab.cluster import Cluster
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
    return _first_pages(cluster, "Pod", namespace, labels, ("", "status.phase!=Running"))


def read_events(cluster: Cluster, namespace: str) -> Sight:
    """Return a namespace's events: a page of them, and if that isn't all, a page of the warnings.

    Each selection makes the server go through all events that there are. Raises ClusterError.
    """
    return _first_pages(cluster, "Event", namespace, "", ("", "type=Warning"))


def _first_pages(
    cluster: Cluster, kind: str, namespace: str, labels: str, selections: tuple[str, ...]
) -> Sight:
    """Return the first page of the first selection, and of all others if that one goes on."""
    found: dict[str, Manifest] = {}
    for fields in selections:
        page = next(iter(cluster.pages(kind, namespace=namespace, labels=labels, fields=fields, size=_FEW)))
        found |= {item["metadata"]["uid"]: item for item in page.items}
        if not page.more and not fields:
            return Sight(items=page.items, whole=True)
    return Sight(items=tuple(found.values()), whole=False)
