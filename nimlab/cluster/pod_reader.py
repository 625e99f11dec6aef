"""What there is to see of pods and of what happened to them: never more than a few pages.

In: the cluster. Out: live objects. All of ten thousand pods take the server seconds to say, and nobody reads
them: what counts them is their StatefulSet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nimlab.cluster.port import Cluster
from nimlab.errors import Forbidden
from nimlab.objects.manifest import Manifest

_NAMED: Final = 50  # more experiments than that aren't named in a selector: it is part of an URL
_ROUNDS: Final = 8  # of two pages each: a bound for `list`, however many experiments don't run
_FEW: Final = 100  # a megabyte of pods, which a busy server says in a tenth of a second


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialList:
    """Some objects, in no order; `whole` if there are no others."""

    items: tuple[Manifest, ...]
    whole: bool


def read_pods(cluster: Cluster, namespace: str, labels: str) -> PartialList:
    """Return the pods with these labels: a page of them, and if that isn't all, a page that doesn't run.

    Raises ClusterError.
    """
    return _first_pages(cluster, "Pod", namespace, labels, ("", "status.phase!=Running"))


def read_events(cluster: Cluster, namespace: str) -> PartialList:
    """Return a namespace's events: a page of them, and if that isn't all, a page of the warnings.

    Each selection makes the server go through all events that there are. Raises ClusterError.
    """
    return _first_pages(cluster, "Event", namespace, "", ("", "type=Warning"))


def find_troubled(
    cluster: Cluster,
    label: str,
    namespaces: Mapping[str, str],
    is_troubled: Callable[[Manifest], bool],
) -> tuple[Manifest, ...]:
    """Return pods that show why experiments don't run, without reading all pods of any.

    `namespaces` is that of each experiment. A page is read of those that haven't begun to run, then one of
    the others, for fifty experiments together; those that are explained are left out of the next pages.
    Raises ClusterError.
    """
    found: list[Manifest] = []
    left, tries = dict(namespaces), dict.fromkeys(namespaces, 0)
    for _ in range(_ROUNDS):
        names = sorted(left, key=lambda name: (tries[name], name))[:_NAMED]
        for fields in ("status.phase!=Running", "status.phase=Running"):
            asked = [name for name in names if name in left]
            if not asked:
                break
            labels = f"{label} in ({','.join(asked)})"
            page = _page_anywhere(cluster, labels, fields, {left[name] for name in asked})
            troubled = [pod for pod in page.items if is_troubled(pod)]
            found += troubled
            for pod in troubled:
                left.pop(pod["metadata"]["labels"].get(label), None)
        for name in names:
            tries[name] += 1
            if tries[name] == 2:
                left.pop(name, None)
        if not left:
            break
    return tuple(found)


def read_warnings(cluster: Cluster, namespaces: Sequence[str]) -> tuple[Manifest, ...]:
    """Return a page of the warnings in these namespaces. Raises ClusterError."""
    if not namespaces:
        return ()
    return _page_anywhere(cluster, "", "type=Warning", set(namespaces), kind="Event").items


def _page_anywhere(
    cluster: Cluster, labels: str, fields: str, namespaces: set[str], kind: str = "Pod"
) -> PartialList:
    """Read one page: of the one namespace, of all where the credentials allow it, else of some."""
    if len(namespaces) > 1:
        try:
            return _page(cluster, kind, None, labels, fields)
        except Forbidden:
            pass
    some = []
    for namespace in sorted(namespaces)[:_ROUNDS]:
        try:
            some.append(_page(cluster, kind, namespace, labels, fields))
        except Forbidden:  # a reason is worth a look, and no reason to show nothing at all
            some.append(PartialList(items=(), whole=False))
    return PartialList(
        items=tuple(item for sight in some for item in sight.items), whole=all(s.whole for s in some)
    )


def _page(cluster: Cluster, kind: str, namespace: str | None, labels: str, fields: str) -> PartialList:
    page = next(iter(cluster.pages(kind, namespace=namespace, labels=labels, fields=fields, size=_FEW)))
    return PartialList(items=page.items, whole=not page.more)


def _first_pages(
    cluster: Cluster, kind: str, namespace: str, labels: str, selections: tuple[str, ...]
) -> PartialList:
    """Return the first page of the first selection, and of all others if that one goes on."""
    found: dict[str, Manifest] = {}
    for fields in selections:
        page = next(iter(cluster.pages(kind, namespace=namespace, labels=labels, fields=fields, size=_FEW)))
        found |= {item["metadata"]["uid"]: item for item in page.items}
        if not page.more and not fields:
            return PartialList(items=page.items, whole=True)
    return PartialList(items=tuple(found.values()), whole=False)
