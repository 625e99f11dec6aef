"""Read pods and events for a diagnosis, a few pages at most.

In: the cluster. Out: live objects. The server needs seconds to list 10,000 pods. Only the first pages are
read. They need not contain all pods, because the number of pods is in the StatefulSet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nimlab.cluster.interface import MAX_SELECTED_EXPERIMENTS, Cluster
from nimlab.errors import Forbidden
from nimlab.objects.manifest import Manifest

_MAX_ROUNDS: Final = 8  # a round reads two pages; this limits the number of requests
_PAGE_SIZE: Final = 100  # about 1 MB of pods, which a busy server returns within 0.1 s


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialList:
    """Some objects of a list, in any order; `is_complete` is True if these are all objects."""

    items: tuple[Manifest, ...]
    is_complete: bool


def read_pods(cluster: Cluster, namespace: str, labels: str) -> PartialList:
    """Return the first page of pods with these labels; if more pages follow, also a page of pods not running.

    Raises ClusterError.
    """
    return _first_pages(cluster, "Pod", namespace, labels, ("", "status.phase!=Running"))


def read_events(cluster: Cluster, namespace: str) -> PartialList:
    """Return the first page of a namespace's events; if more pages follow, also a page of warnings.

    The server reads all events of the namespace for each page. Raises ClusterError.
    """
    return _first_pages(cluster, "Event", namespace, "", ("", "type=Warning"))


def find_troubled_pods(
    cluster: Cluster,
    label: str,
    namespaces: Mapping[str, str],
    is_troubled: Callable[[Manifest], bool],
) -> tuple[Manifest, ...]:
    """Return pods that show why experiments are not running, without reading all pods of an experiment.

    `namespaces` maps each experiment to its namespace. One selector covers up to fifty experiments. Each
    round reads one page of their pods that are not running, and one page of their running pods. Experiments
    with a troubled pod are excluded from the following pages. Raises ClusterError.
    """
    troubled_pods: list[Manifest] = []
    unexplained, rounds = dict(namespaces), dict.fromkeys(namespaces, 0)
    for _ in range(_MAX_ROUNDS):
        selected = sorted(unexplained, key=lambda name: (rounds[name], name))[:MAX_SELECTED_EXPERIMENTS]
        for fields in ("status.phase!=Running", "status.phase=Running"):
            names = [name for name in selected if name in unexplained]
            if not names:
                break
            labels = f"{label} in ({','.join(names)})"
            page = _first_page_anywhere(cluster, labels, fields, {unexplained[name] for name in names})
            for pod in page.items:
                name = pod["metadata"]["labels"][label]
                # Another lab's experiment with the same name has its pods in another namespace.
                if pod["metadata"]["namespace"] == namespaces[name] and is_troubled(pod):
                    troubled_pods.append(pod)
                    unexplained.pop(name, None)
        for name in selected:
            rounds[name] += 1
            if rounds[name] == 2:
                unexplained.pop(name, None)
        if not unexplained:
            break
    return tuple(troubled_pods)


def read_warnings(cluster: Cluster, namespaces: Sequence[str]) -> tuple[Manifest, ...]:
    """Return a page of the Warning events in these namespaces. Raises ClusterError."""
    if not namespaces:
        return ()
    return _first_page_anywhere(cluster, "", "type=Warning", set(namespaces), kind="Event").items


def _first_page_anywhere(
    cluster: Cluster, labels: str, fields: str, namespaces: set[str], kind: str = "Pod"
) -> PartialList:
    """Read one page over all namespaces if the credentials allow it.

    Otherwise, read one page per namespace, for at most 8 namespaces.
    """
    if len(namespaces) > 1:
        try:
            return _first_page(cluster, kind, None, labels, fields)
        except Forbidden:
            pass
    pages = []
    for namespace in sorted(namespaces)[:_MAX_ROUNDS]:
        try:
            pages.append(_first_page(cluster, kind, namespace, labels, fields))
        except Forbidden:  # the diagnosis is optional: without it, the rest of the output is still shown
            pages.append(PartialList(items=(), is_complete=False))
    return PartialList(
        items=tuple(item for page in pages for item in page.items),
        is_complete=all(page.is_complete for page in pages),
    )


def _first_page(cluster: Cluster, kind: str, namespace: str | None, labels: str, fields: str) -> PartialList:
    pages = cluster.pages(kind, namespace=namespace, labels=labels, fields=fields, size=_PAGE_SIZE)
    page = next(iter(pages))
    return PartialList(items=page.items, is_complete=not page.more)


def _first_pages(
    cluster: Cluster, kind: str, namespace: str, labels: str, selections: tuple[str, ...]
) -> PartialList:
    """Return the first page for the first field selector.

    If that page is not the last one, also return the first page for each other field selector.
    """
    items: dict[str, Manifest] = {}
    for fields in selections:
        page = _first_page(cluster, kind, namespace, labels, fields)
        items |= {item["metadata"]["uid"]: item for item in page.items}
        if page.is_complete and not fields:
            return page
    return PartialList(items=tuple(items.values()), is_complete=False)
