"""Cluster -> snapshot: read everything that a plan needs, once.

In: a `Cluster` and the desired manifests. Out: a `Snapshot`. Only reads and server dry-runs happen here. A
read that fails, is forbidden or is incomplete is an error, never an empty answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Final

from nimlab.cluster.port import Cluster
from nimlab.errors import (
    ClusterError,
    Conflict,
    FieldConflict,
    Forbidden,
    IncompleteDiscovery,
    OwnershipConflict,
)
from nimlab.files.git import Relation
from nimlab.objects.applyset import FIELD_MANAGER, PART_OF, ApplySet
from nimlab.objects.applyset_parent import ID as APPLYSET_ID
from nimlab.objects.applyset_parent import Parent, Scope, parse_parent
from nimlab.objects.change_detector import compare
from nimlab.objects.lab_identity import LabIdentity, LabRelation
from nimlab.objects.managed_fields import is_hand_tool
from nimlab.objects.manifest import KINDS, Manifest, ObjectKey, key_of, labels_of
from nimlab.objects.masking import hide_secrets
from nimlab.objects.takeover import Takeover, effective, takeover_of, takeover_patch
from nimlab.plan.commit_order import lab_relation_of
from nimlab.plan.namespace_contents import foreign_objects_among
from nimlab.plan.snapshot import Desired, Former, Prediction, Snapshot
from nimlab.plan.workload import immutable_changes, trial_of
from nimlab.timing import stage


@dataclass(frozen=True, slots=True, kw_only=True)
class LabOrigin:
    """The lab's identity, and two questions to its Git repository that are asked only where they matter.

    `relation_of` returns the relation of the checked-out commit to another one, `former_namespaces` the
    namespaces that earlier versions of `lab.yaml` name.
    """

    identity: LabIdentity
    relation_of: Callable[[str], Relation]
    former_namespaces: Callable[[], tuple[str, ...]]

    def is_own(self, parent: Parent) -> bool:
        """Return True if the set that a parent records is certainly this lab's."""
        relations = {sha: self.relation_of(sha) for sha in parent.commits}
        return lab_relation_of(self.identity, parent, relations) is LabRelation.SAME


def observe(
    cluster: Cluster,
    desired: Sequence[Desired],
    apply_set: ApplySet,
    *,
    take_ownership: bool,
    remove_foreign: bool,
    parallel: int,
    origin: LabOrigin | None = None,
) -> Snapshot:
    """Read everything a plan needs: the parent, one LIST per kind, and a server dry-run per suspect object.

    Without `origin`, the lab's former namespaces are not looked for. Raises ClusterError when anything can't
    be read completely; OwnershipConflict when the parent isn't ours.
    """
    with ThreadPoolExecutor(max_workers=parallel) as pool:
        parent_live, lease = _read_marks(cluster, pool.map, apply_set)
        parent = parse_parent(parent_live, apply_set)
        wanted = {key_of(m): m for one in desired for m in one.manifests}
        members = _read_members(cluster, pool.map, apply_set, parent, wanted)
        live = {key_of(item): item for item in members}
        former, unchecked = _read_former(cluster, pool.map, apply_set, parent, origin)
        exists = parent is not None or _exists(cluster, apply_set.namespace)
        live.update(_by_name(cluster, pool.map, wanted, live, apply_set if exists else None))
        own_sets = frozenset({apply_set.id, *(one.apply_set.id for one in former)})
        with stage("compare"):
            suspects = _suspects(wanted, live, remove_foreign=remove_foreign)
        answers = pool.map(
            lambda key: _ask(cluster, own_sets, wanted[key], live[key], suspects[key], force=take_ownership),
            suspects,
        )
        predicted = dict(zip(suspects, answers, strict=True))
        foreign_objects = _foreign_objects(cluster, pool.map, apply_set, wanted, live)
        for one in former:
            foreign_objects |= _foreign_objects(cluster, pool.map, one.apply_set, wanted, one.live)
    return Snapshot(
        apply_set=apply_set,
        parent=parent,
        lease=lease,
        namespace_exists=exists,
        live=live,
        predicted=predicted,
        foreign_objects=foreign_objects,
        former=former,
        unchecked=unchecked,
    )


def apply_over(
    cluster: Cluster, manifest: Manifest, *, force: bool, dry_run: bool
) -> tuple[Manifest, tuple[Conflict, ...]]:
    """Apply, taking back what people have changed by hand; return the object and the fields taken.

    Raises FieldConflict when any other manager is concerned, ClusterError.
    """
    try:
        made = cluster.apply(manifest, manager=FIELD_MANAGER, force=force, dry_run=dry_run)
    except FieldConflict as conflict:
        if not all(is_hand_tool(c.manager) for c in conflict.conflicts):
            raise
        made = cluster.apply(manifest, manager=FIELD_MANAGER, force=True, dry_run=dry_run)
        return made, conflict.conflicts
    return made, ()


_MANY: Final = 20  # so many single reads cost more than a page


_Map = Callable[..., Iterator[Any]]


def _read_marks(cluster: Cluster, each: _Map, apply_set: ApplySet) -> tuple[Manifest | None, Manifest | None]:
    """The set's parent and lease. In a namespace that isn't there, a Role can't allow even this."""
    try:
        parent, lease = each(cluster.get, (apply_set.parent_key, apply_set.lease_key))
    except Forbidden as error:
        name = apply_set.namespace
        make = f"if the namespace `{name}` isn't there yet, an administrator runs"
        hint = f"{error.hint}; {make} `kubectl create namespace {name}`"
        raise Forbidden(error.what, where=error.where, hint=hint, status=error.status) from error
    return parent, lease


def _read_former(
    cluster: Cluster,
    each: _Map,
    apply_set: ApplySet,
    parent: Parent | None,
    origin: LabOrigin | None,
) -> tuple[tuple[Former, ...], tuple[str, ...]]:
    """Return this lab's sets in other namespaces, and the namespaces that could not be checked for one.

    A search is needed only until the parent here records the lab; a move that was begun is recorded there.
    """
    if origin is None or (parent is not None and parent.lab != LabIdentity() and not parent.former):
        return (), ()
    key = apply_set.parent_key
    unchecked: list[str] = []
    if parent is not None and parent.lab != LabIdentity():
        found = [cluster.get(replace(key, namespace=name)) for name in sorted(parent.former)]
    else:
        try:
            found = list(cluster.list_objects("ConfigMap", namespace=None, labels=APPLYSET_ID).items)
        except Forbidden:
            found, unchecked = _parents_by_name(cluster, key, origin.former_namespaces())
    parents = [one for one in found if one is not None and one["metadata"]["name"] == key.name]
    there = [one for one in parents if one["metadata"]["namespace"] != key.namespace]
    former = (_read_former_set(cluster, each, apply_set, one, origin) for one in there)
    return tuple(one for one in former if one is not None), tuple(unchecked)


def _parents_by_name(
    cluster: Cluster, key: ObjectKey, namespaces: Iterable[str]
) -> tuple[list[Manifest | None], list[str]]:
    """Read the parents in namespaces that Git remembers; return also those that the credentials hide."""
    found: list[Manifest | None] = []
    hidden: list[str] = []
    for namespace in namespaces:
        try:
            found.append(
                None if namespace == key.namespace else cluster.get(replace(key, namespace=namespace))
            )
        except Forbidden:
            hidden.append(namespace)
    return found, hidden


def _read_former_set(
    cluster: Cluster, each: _Map, apply_set: ApplySet, manifest: Manifest, origin: LabOrigin
) -> Former | None:
    """Read the set of a parent in another namespace; None if it is not certainly this lab's."""
    there = replace(apply_set, namespace=manifest["metadata"]["namespace"])
    parent = _parent_or_none(manifest, there)
    if parent is None or not origin.is_own(parent):
        return None
    lease = cluster.get(there.lease_key)
    live = {key_of(item): item for item in _read_members(cluster, each, there, parent, ())}
    return Former(apply_set=there, parent=parent, manifest=manifest, lease=lease, live=live)


def _parent_or_none(manifest: Manifest | None, apply_set: ApplySet) -> Parent | None:
    """Return the parent of a set elsewhere; None if there is none, or if it is another tool's."""
    try:
        return parse_parent(manifest, apply_set)
    except OwnershipConflict:
        return None


def _read_members(
    cluster: Cluster,
    each: _Map,
    apply_set: ApplySet,
    parent: Parent | None,
    wanted: Iterable[ObjectKey],
) -> list[Manifest]:
    """All objects with the set's label: of every kind that members can have, wherever they can be.

    The labels are the truth, not the parent: it may be lost, edited, or restored from long ago. What it
    records says where to look when the credentials don't reach over all namespaces. Kinds that the set has
    in the lab's namespace alone are looked for there, and no right beyond it is needed.
    """
    keys = tuple(wanted)
    scope = parent.scope if parent else Scope.empty()
    namespaces = {apply_set.namespace, *scope.namespaces, *(key.namespace for key in keys)} - {""}
    needed = scope.kinds | {key.kind for key in keys}
    selector = f"{PART_OF}={apply_set.id}"

    def read(kind: str, *, everywhere: bool) -> tuple[Manifest, ...]:
        if not KINDS[kind].namespaced:
            return _cluster_members(cluster, kind, selector, needed=kind in needed)
        is_at_home = kind not in apply_set.kinds_elsewhere
        if everywhere and not is_at_home:
            return cluster.list_objects(kind, namespace=None, labels=selector).items
        return tuple(
            item
            for namespace in ([apply_set.namespace] if is_at_home else sorted(namespaces))
            for item in cluster.list_objects(kind, namespace=namespace, labels=selector).items
        )

    kinds = sorted(apply_set.kinds, key=lambda kind: kind not in apply_set.kinds_elsewhere)
    probe, *rest = kinds
    try:
        found, everywhere = list(read(probe, everywhere=True)), True
    except Forbidden:
        found, everywhere = list(read(probe, everywhere=False)), False
    for items in each(lambda kind: read(kind, everywhere=everywhere), rest):
        found += items
    return found


def _cluster_members(cluster: Cluster, kind: str, selector: str, *, needed: bool) -> tuple[Manifest, ...]:
    """Members of a cluster-scoped kind; only a set that never had one may do without the right to look."""
    try:
        return cluster.list_objects(kind, namespace=None, labels=selector).items
    except Forbidden:
        if needed:
            raise
        return ()


def _exists(cluster: Cluster, namespace: str) -> bool:
    """True when the namespace exists, or may not be looked at: then writing into it tells."""
    try:
        return cluster.get(ObjectKey("Namespace", "", namespace)) is not None
    except Forbidden:
        return True


def _by_name(
    cluster: Cluster,
    each: _Map,
    wanted: Mapping[ObjectKey, Manifest],
    live: Mapping[ObjectKey, Manifest],
    home: ApplySet | None,
) -> dict[ObjectKey, Manifest]:
    """Wanted objects that no LIST showed, read by name: they may exist without our label.

    Namespaces come first; in one that doesn't exist there is nothing to read.
    """
    missing = [key for key in wanted if key not in live]
    found = _read(cluster, each, [key for key in missing if not key.namespace])
    there = {key.name for key in (*live, *found) if key.kind == "Namespace"}
    ours = {key.name for key in wanted if key.kind == "Namespace"}
    if home is not None and home.namespace not in ours:
        there.add(home.namespace)
    found.update(_read(cluster, each, [key for key in missing if key.namespace in there]))
    return found


def _read(cluster: Cluster, each: _Map, keys: Sequence[ObjectKey]) -> dict[ObjectKey, Manifest]:
    """Read objects by name; where many of a kind are wanted in one namespace, all of that kind there."""
    groups: dict[tuple[str, str], list[ObjectKey]] = {}
    for key in keys:
        groups.setdefault((key.kind, key.namespace), []).append(key)
    large = [group for (_, namespace), group in groups.items() if namespace and len(group) >= _MANY]
    single = [key for group in groups.values() if group not in large for key in group]
    found = {key: one for key, one in zip(single, each(cluster.get, single), strict=True) if one is not None}
    for items in each(lambda group: _pick(cluster, group), large):
        found |= items
    return found


def _pick(cluster: Cluster, group: Sequence[ObjectKey]) -> dict[ObjectKey, Manifest]:
    """Read objects of one kind and namespace out of the LIST of everything there, page by page."""
    wanted = frozenset(group)
    pages = cluster.pages(group[0].kind, namespace=group[0].namespace)
    return {key: item for page in pages for item in page.items if (key := key_of(item)) in wanted}


def _suspects(
    wanted: Mapping[ObjectKey, Manifest], live: Mapping[ObjectKey, Manifest], *, remove_foreign: bool
) -> dict[ObjectKey, Takeover | None]:
    """The wanted objects that aren't proven to be right, and what has to be handed over of each."""
    found = {}
    for key, manifest in wanted.items():
        if key in live:
            takeover = takeover_of(manifest, live[key], remove_foreign=remove_foreign)
            if takeover is not None or not compare(manifest, live[key]).unchanged:
                found[key] = takeover
    return found


def _ask(
    cluster: Cluster,
    own_sets: frozenset[str],
    desired: Manifest,
    live: Manifest,
    takeover: Takeover | None,
    *,
    force: bool,
) -> Prediction:
    """Ask the server what an apply would give, or whether it would have a replacement.

    What isn't ours, or is on its way out, isn't asked about.
    """
    owner = labels_of(live).get(PART_OF)
    if owner not in {None, *own_sets} or live["metadata"].get("deletionTimestamp"):
        return Prediction()
    after_takeover = None
    try:
        with hide_secrets(desired, live):
            if immutable_changes(desired, live):
                cluster.apply(trial_of(desired), manager=FIELD_MANAGER, force=force, dry_run=True)
                return Prediction()
            if takeover is not None:
                after_takeover = cluster.patch(key_of(live), takeover_patch(takeover, live), dry_run=True)
                takeover = effective(takeover, live, after_takeover)
            made, taken = apply_over(cluster, desired, force=force, dry_run=True)
    except Forbidden:
        return Prediction(takeover=takeover)
    except ClusterError as error:
        return Prediction(error=error, takeover=takeover)
    if takeover is None:
        return Prediction(manifest=made, taken=taken)
    return Prediction(manifest=made, taken=taken, takeover=takeover, after_takeover=after_takeover)


def _foreign_objects(
    cluster: Cluster,
    each: _Map,
    apply_set: ApplySet,
    wanted: Mapping[ObjectKey, Manifest],
    live: Mapping[ObjectKey, Manifest],
) -> dict[str, tuple[ObjectKey, ...] | None]:
    """For each namespace of ours that is not wanted any more: what in it would go without being ours."""
    ours = {item["metadata"]["uid"]: key for key, item in live.items()}

    def look(name: str) -> tuple[ObjectKey, ...] | None:
        try:
            return find_foreign_objects(cluster, name, apply_set, ours)
        except (Forbidden, IncompleteDiscovery):
            return None

    gone = [key.name for key in live if key.kind == "Namespace" and key not in wanted]
    return dict(zip(gone, each(look, gone), strict=True))


def find_foreign_objects(
    cluster: Cluster, namespace: str, apply_set: ApplySet, ours: Mapping[str, ObjectKey]
) -> tuple[ObjectKey, ...]:
    """Return what a namespace holds that is neither ours (by uid) nor made from ours; sorted.

    Raises Unseen where the server can't show all of it, ClusterError.
    """
    return foreign_objects_among(cluster.survey(namespace), apply_set, ours)
