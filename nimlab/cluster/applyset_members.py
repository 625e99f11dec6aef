"""Read the live objects of an apply-set: its members by label, and the desired objects by name.

In: the cluster, an `ApplySet`, the keys of the desired objects. Out: live objects. A read that fails or is
incomplete is an error, never an empty result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from nimlab.cluster.interface import Cluster
from nimlab.errors import Forbidden
from nimlab.objects.applyset import PART_OF, ApplySet
from nimlab.objects.applyset_parent import Parent, Scope
from nimlab.objects.kinds_and_order import KINDS
from nimlab.objects.manifest import Manifest, ObjectKey, key_of

ParallelMap: TypeAlias = Callable[..., Iterator[Any]]

_LIST_FROM: Final = 20  # from this number of objects on, single GETs cost more than one page of a LIST


def read_members(
    cluster: Cluster,
    parallel_map: ParallelMap,
    apply_set: ApplySet,
    parent: Parent | None,
    wanted: Iterable[ObjectKey],
) -> list[Manifest]:
    """Return all objects with the apply-set's label, of every kind that members can have, in every namespace.

    The labels decide membership, not the parent, because the parent can be lost, edited or restored from an
    old backup. The parent's scope is used only if permissions are missing. If the credentials cannot list all
    namespaces, the scope contains the namespaces to search. If they cannot list a cluster-scoped kind, the
    scope shows whether the apply-set uses this kind. A kind that the apply-set uses only in the lab's
    namespace is read only in that namespace, so that no further permission is needed.
    """
    keys = tuple(wanted)
    scope = parent.scope if parent else Scope.empty()
    namespaces = {apply_set.namespace, *scope.namespaces, *(key.namespace for key in keys)} - {""}
    needed = scope.kinds | {key.kind for key in keys}
    selector = f"{PART_OF}={apply_set.id}"

    def read(kind: str, *, all_namespaces: bool) -> tuple[Manifest, ...]:
        if not KINDS[kind].namespaced:
            return _read_cluster_scoped(cluster, kind, selector, needed=kind in needed)
        is_lab_only = kind not in apply_set.kinds_elsewhere
        if all_namespaces and not is_lab_only:
            return cluster.list_objects(kind, namespace=None, labels=selector).items
        return tuple(
            item
            for namespace in ([apply_set.namespace] if is_lab_only else sorted(namespaces))
            for item in cluster.list_objects(kind, namespace=namespace, labels=selector).items
        )

    # The first LIST shows whether the credentials allow a LIST over all namespaces.
    first, *others = sorted(apply_set.kinds, key=lambda kind: kind not in apply_set.kinds_elsewhere)
    try:
        members, all_namespaces = list(read(first, all_namespaces=True)), True
    except Forbidden:
        members, all_namespaces = list(read(first, all_namespaces=False)), False
    for items in parallel_map(lambda kind: read(kind, all_namespaces=all_namespaces), others):
        members += items
    return members


def _read_cluster_scoped(cluster: Cluster, kind: str, selector: str, *, needed: bool) -> tuple[Manifest, ...]:
    """Return the members of a cluster-scoped kind.

    If the credentials do not allow the LIST, raise Forbidden if the kind is `needed`, and return nothing
    otherwise.
    """
    try:
        return cluster.list_objects(kind, namespace=None, labels=selector).items
    except Forbidden:
        if needed:
            raise
        return ()


def read_by_name(
    cluster: Cluster,
    parallel_map: ParallelMap,
    wanted: Mapping[ObjectKey, Manifest],
    live: Mapping[ObjectKey, Manifest],
    lab_namespace: str | None,
) -> dict[ObjectKey, Manifest]:
    """Read the desired objects that are not in `live`, because they may exist without the apply-set's label.

    Cluster-scoped objects, which include namespaces, are read first. In a namespace that does not exist,
    nothing is read. `lab_namespace` is None if the lab's own namespace does not exist.
    """
    missing = [key for key in wanted if key not in live]
    objects = _read_keys(cluster, parallel_map, [key for key in missing if not key.namespace])
    existing = {key.name for key in (*live, *objects) if key.kind == "Namespace"}
    managed = {key.name for key in wanted if key.kind == "Namespace"}
    if lab_namespace is not None and lab_namespace not in managed:
        existing.add(lab_namespace)
    in_namespaces = [key for key in missing if key.namespace in existing]
    objects.update(_read_keys(cluster, parallel_map, in_namespaces))
    return objects


def _read_keys(
    cluster: Cluster, parallel_map: ParallelMap, keys: Sequence[ObjectKey]
) -> dict[ObjectKey, Manifest]:
    """Read objects by name: one GET per object, or one LIST for many objects of one kind in one namespace."""
    groups: dict[tuple[str, str], list[ObjectKey]] = {}
    for key in keys:
        groups.setdefault((key.kind, key.namespace), []).append(key)
    large = [group for (_, namespace), group in groups.items() if namespace and len(group) >= _LIST_FROM]
    single = [key for group in groups.values() if group not in large for key in group]
    results = zip(single, parallel_map(cluster.get, single), strict=True)
    objects = {key: live for key, live in results if live is not None}
    for listed in parallel_map(lambda group: _read_group(cluster, group), large):
        objects |= listed
    return objects


def _read_group(cluster: Cluster, group: Sequence[ObjectKey]) -> dict[ObjectKey, Manifest]:
    """Return the objects with these keys from a LIST of their kind in their namespace."""
    wanted = frozenset(group)
    pages = cluster.pages(group[0].kind, namespace=group[0].namespace)
    return {key: item for page in pages for item in page.items if (key := key_of(item)) in wanted}
