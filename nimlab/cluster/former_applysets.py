"""Find this lab's former apply-sets: they remain in other namespaces after `spec.namespace` has changed.

In: the cluster, the lab's identity and its Git history. Out: a `Former` for each apply-set that certainly
belongs to this lab. If the origin of an apply-set is doubtful, it is not returned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from nimlab.cluster.applyset_members import ParallelMap, read_members
from nimlab.cluster.interface import Cluster
from nimlab.errors import Forbidden, OwnershipConflict
from nimlab.files.git_history import Relation
from nimlab.objects.applyset import ApplySet
from nimlab.objects.applyset_parent import ID as APPLYSET_ID
from nimlab.objects.applyset_parent import Parent, parse_parent
from nimlab.objects.lab_identity import LabIdentity, LabRelation
from nimlab.objects.manifest import Manifest, ObjectKey, key_of
from nimlab.plan.snapshot import Former
from nimlab.plan.stale_commit import lab_relation_of


@dataclass(frozen=True, slots=True, kw_only=True)
class LabOrigin:
    """The lab's identity and two queries to its Git repository, which are run only if needed.

    `relation_of` returns whether the checked-out commit is newer or older than another commit, or unrelated
    to it. `former_namespaces` returns the namespaces in earlier versions of `lab.yaml`.
    """

    identity: LabIdentity
    relation_of: Callable[[str], Relation]
    former_namespaces: Callable[[], tuple[str, ...]]

    def is_own(self, parent: Parent) -> bool:
        """Return True if the apply-set of a parent certainly belongs to this lab."""
        relations = {sha: self.relation_of(sha) for sha in parent.commits}
        return lab_relation_of(self.identity, parent, relations) is LabRelation.SAME


def read_former_sets(
    cluster: Cluster,
    parallel_map: ParallelMap,
    apply_set: ApplySet,
    parent: Parent | None,
    origin: LabOrigin | None,
) -> tuple[tuple[Former, ...], tuple[str, ...]]:
    """Return this lab's apply-sets in other namespaces, and the namespaces that could not be checked.

    No search is needed if the parent in the current namespace already contains the lab's identity. During a
    move, this parent also contains the former namespaces.
    """
    if origin is None or (parent is not None and parent.lab != LabIdentity() and not parent.former):
        return (), ()
    key = apply_set.parent_key
    unchecked: list[str] = []
    if parent is not None and parent.lab != LabIdentity():
        manifests = [cluster.get(replace(key, namespace=name)) for name in sorted(parent.former)]
    else:
        try:
            manifests = list(cluster.list_objects("ConfigMap", namespace=None, labels=APPLYSET_ID).items)
        except Forbidden:
            manifests, unchecked = _parents_by_name(cluster, key, origin.former_namespaces())
    former_sets = (
        _read_former_set(cluster, parallel_map, apply_set, manifest, origin)
        for manifest in manifests
        if manifest is not None and _is_elsewhere(manifest, key)
    )
    return tuple(former for former in former_sets if former is not None), tuple(unchecked)


def _is_elsewhere(manifest: Manifest, key: ObjectKey) -> bool:
    """Return True for an object of the same name in another namespace."""
    metadata = manifest["metadata"]
    return bool(metadata["name"] == key.name and metadata["namespace"] != key.namespace)


def _parents_by_name(
    cluster: Cluster, key: ObjectKey, namespaces: Iterable[str]
) -> tuple[list[Manifest | None], list[str]]:
    """Read the parents in these namespaces; also return the namespaces where this is forbidden."""
    manifests: list[Manifest | None] = []
    forbidden: list[str] = []
    for namespace in namespaces:
        try:
            manifests.append(
                None if namespace == key.namespace else cluster.get(replace(key, namespace=namespace))
            )
        except Forbidden:
            forbidden.append(namespace)
    return manifests, forbidden


def _read_former_set(
    cluster: Cluster, parallel_map: ParallelMap, apply_set: ApplySet, manifest: Manifest, origin: LabOrigin
) -> Former | None:
    """Read the apply-set of a parent in another namespace; return None if it may belong to another lab."""
    former_set = replace(apply_set, namespace=manifest["metadata"]["namespace"])
    parent = _parent_or_none(manifest, former_set)
    if parent is None or not origin.is_own(parent):
        return None
    lease = cluster.get(former_set.lease_key)
    members = read_members(cluster, parallel_map, former_set, parent, ())
    live = {key_of(item): item for item in members}
    return Former(apply_set=former_set, parent=parent, manifest=manifest, lease=lease, live=live)


def _parent_or_none(manifest: Manifest | None, apply_set: ApplySet) -> Parent | None:
    """Parse the parent in another namespace; return None if it does not exist or belongs to another tool."""
    try:
        return parse_parent(manifest, apply_set)
    except OwnershipConflict:
        return None
