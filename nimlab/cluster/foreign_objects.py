"""Find foreign objects in a namespace, because a deletion of the namespace would delete them too.

In: the cluster and the known members of the lab. Out: the keys of the foreign objects.
`plan.foreign_in_namespace` decides which objects count; this module only reads.
"""

from __future__ import annotations

from collections.abc import Mapping

from nimlab.cluster.applyset_members import ParallelMap
from nimlab.cluster.interface import Cluster
from nimlab.errors import Forbidden, IncompleteDiscovery
from nimlab.objects.applyset import ApplySet
from nimlab.objects.manifest import Manifest, ObjectKey
from nimlab.plan.foreign_in_namespace import foreign_objects_among


def read_foreign_objects(
    cluster: Cluster,
    parallel_map: ParallelMap,
    apply_set: ApplySet,
    wanted: Mapping[ObjectKey, Manifest],
    live: Mapping[ObjectKey, Manifest],
) -> dict[str, tuple[ObjectKey, ...] | None]:
    """Return the foreign objects in each namespace that may be pruned, by the name of the namespace.

    A namespace may be pruned if it is a member and no file describes it any more. The value is None if the
    contents of the namespace cannot be read completely. Raises ClusterError.
    """
    own_uids = {item["metadata"]["uid"]: key for key, item in live.items()}

    def read(name: str) -> tuple[ObjectKey, ...] | None:
        try:
            return find_foreign_objects(cluster, name, apply_set, own_uids)
        except (Forbidden, IncompleteDiscovery):
            return None

    unneeded = [key.name for key in live if key.kind == "Namespace" and key not in wanted]
    return dict(zip(unneeded, parallel_map(read, unneeded), strict=True))


def find_foreign_objects(
    cluster: Cluster, namespace: str, apply_set: ApplySet, own_uids: Mapping[str, ObjectKey]
) -> tuple[ObjectKey, ...]:
    """Return the sorted keys of the foreign objects in a namespace.

    `own_uids` contains the uids of the lab's objects. Objects whose owners are objects of the lab are not
    foreign. Raises IncompleteDiscovery if the server cannot list all objects. Raises ClusterError if a
    request fails.
    """
    return foreign_objects_among(cluster.list_namespace_metadata(namespace), apply_set, own_uids)
