"""Cluster -> snapshot: read everything that a plan needs, once.

In: a `Cluster` and the desired manifests. Out: a `Snapshot`. This module sends only reads and server dry
runs. A read that fails, is forbidden or is incomplete is an error, never an empty result.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from nimlab.cluster.applyset_members import ParallelMap, read_by_name, read_members
from nimlab.cluster.dry_run import find_suspects, predict
from nimlab.cluster.foreign_objects import read_foreign_objects
from nimlab.cluster.former_applysets import LabOrigin, read_former_sets
from nimlab.cluster.interface import Cluster
from nimlab.errors import Forbidden
from nimlab.objects.applyset import ApplySet
from nimlab.objects.applyset_parent import parse_parent
from nimlab.objects.manifest import Manifest, ObjectKey, key_of
from nimlab.objects.takeover import Takeover
from nimlab.plan.snapshot import Desired, Prediction, Snapshot
from nimlab.stopwatch import stage

__all__ = ["LabOrigin", "observe"]


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
    """Read the parent, the lease and the members; send one server dry run per suspect object.

    Without `origin`, the lab's former namespaces are not searched. Raises ClusterError if a read is
    incomplete. Raises OwnershipConflict if the parent belongs to another apply-set.
    """
    with ThreadPoolExecutor(max_workers=parallel) as pool:
        parent_live, lease = _read_parent_and_lease(cluster, pool.map, apply_set)
        parent = parse_parent(parent_live, apply_set)
        wanted = {key_of(manifest): manifest for group in desired for manifest in group.manifests}
        members = read_members(cluster, pool.map, apply_set, parent, wanted)
        live = {key_of(item): item for item in members}
        former_sets, unchecked = read_former_sets(cluster, pool.map, apply_set, parent, origin)
        exists = parent is not None or _namespace_exists(cluster, apply_set.namespace)
        lab_namespace = apply_set.namespace if exists else None
        live.update(read_by_name(cluster, pool.map, wanted, live, lab_namespace))
        own_sets = frozenset({apply_set.id, *(former.apply_set.id for former in former_sets)})
        with stage("compare"):
            suspects = find_suspects(wanted, live, remove_foreign=remove_foreign)
        predicted = _predict_all(cluster, pool.map, own_sets, wanted, live, suspects, force=take_ownership)
        foreign_objects = read_foreign_objects(cluster, pool.map, apply_set, wanted, live)
        for former in former_sets:
            foreign_objects |= read_foreign_objects(cluster, pool.map, former.apply_set, wanted, former.live)
    return Snapshot(
        apply_set=apply_set,
        parent=parent,
        lease=lease,
        namespace_exists=exists,
        live=live,
        predicted=predicted,
        foreign_objects=foreign_objects,
        former=former_sets,
        unchecked=unchecked,
    )


def _predict_all(
    cluster: Cluster,
    parallel_map: ParallelMap,
    own_sets: frozenset[str],
    wanted: dict[ObjectKey, Manifest],
    live: dict[ObjectKey, Manifest],
    suspects: dict[ObjectKey, Takeover | None],
    *,
    force: bool,
) -> dict[ObjectKey, Prediction]:
    predictions = parallel_map(
        lambda key: predict(cluster, own_sets, wanted[key], live[key], suspects[key], force=force), suspects
    )
    return dict(zip(suspects, predictions, strict=True))


def _read_parent_and_lease(
    cluster: Cluster, parallel_map: ParallelMap, apply_set: ApplySet
) -> tuple[Manifest | None, Manifest | None]:
    """Read the parent and the lease.

    If the namespace does not exist yet, no Role can exist in it, and the server may respond with Forbidden.
    Therefore, the hint of this error contains the command that creates the namespace.
    """
    try:
        parent, lease = parallel_map(cluster.get, (apply_set.parent_key, apply_set.lease_key))
    except Forbidden as error:
        name = apply_set.namespace
        command = f"`kubectl create namespace {name}`"
        hint = f"{error.hint}; if the namespace `{name}` does not exist, an administrator must run {command}"
        raise Forbidden(error.what, where=error.where, hint=hint, status=error.status) from error
    return parent, lease


def _namespace_exists(cluster: Cluster, namespace: str) -> bool:
    """Return True if the namespace exists or cannot be read.

    If it cannot be read and does not exist, the first write fails.
    """
    try:
        return cluster.get(ObjectKey("Namespace", "", namespace)) is not None
    except Forbidden:
        return True
