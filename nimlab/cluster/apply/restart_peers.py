"""Restart all peers of a StatefulSet together, by deleting the pods of older revisions.

With the update strategy `OnDelete`, the StatefulSet controller does not replace pods by itself. If the pods
were replaced one by one, old and new peers would run side by side in the network for a long time.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from nimlab.cluster.apply.poll_object import poll
from nimlab.cluster.interface import Cluster, Propagation
from nimlab.errors import PreconditionFailed
from nimlab.objects.manifest import Manifest, ObjectKey, key_of, labels_of
from nimlab.plan.change import Change
from nimlab.plan.kstatus import peers_of
from nimlab.plan.pod_restarts import is_restarted_by_sync

_OBSERVED_TIMEOUT_S: Final = 60.0


def restart_peers(
    change: Change, applied: Manifest, cluster: Cluster, *, parallel: int, stop: threading.Event
) -> int:
    """Delete the peers of older revisions, all at once; return the number of deleted peers.

    The StatefulSet controller deletes surplus peers itself. If the StatefulSet was replaced and its
    peers were kept, they already belong to the new StatefulSet. Raises ClusterError.
    """
    if not (change.outdated_peers_after and is_restarted_by_sync(applied) and peers_of(applied).wanted):
        return 0
    current = _wait_until_observed(applied, change.key, cluster, stop)
    revision = current["status"]["updateRevision"]
    labels = current["spec"]["selector"]["matchLabels"]
    selector = ",".join(f"{name}={value}" for name, value in labels.items())
    uids: dict[ObjectKey, str] = {}
    for page in cluster.pages("Pod", namespace=change.key.namespace, labels=selector, metadata_only=True):
        outdated = (pod for pod in page.items if _is_outdated_peer(pod, current, revision))
        uids |= {key_of(pod): pod["metadata"]["uid"] for pod in outdated}
    with ThreadPoolExecutor(max_workers=parallel) as pool:
        for _ in pool.map(lambda key: _delete_peer(key, uids[key], cluster), uids):
            pass  # the iteration raises the errors of the deletions
    return len(uids)


def _wait_until_observed(
    applied: Manifest, key: ObjectKey, cluster: Cluster, stop: threading.Event
) -> Manifest:
    """Return the StatefulSet after its controller has observed the new template and set its revision."""
    latest: list[Manifest] = []

    def is_observed() -> bool:
        """Return True once the controller has observed the generation that the apply returned.

        The generation in `live` is not used, because a read may return an older object.
        """
        live = cluster.get(key)
        if live is None:
            raise PreconditionFailed("it was deleted while its peers were being restarted", where=key)
        observed = int((live.get("status") or {}).get("observedGeneration") or 0)
        latest[:] = [live]
        return observed >= int(applied["metadata"]["generation"])

    pending = f"the StatefulSet controller has not observed the last change of {key}"
    poll(is_observed, pending, _OBSERVED_TIMEOUT_S, stop)
    return latest[0]


def _is_outdated_peer(pod: Manifest, statefulset: Manifest, revision: str) -> bool:
    """Return True if the pod has another revision, is not surplus, and is not being deleted."""
    owners = pod["metadata"].get("ownerReferences") or ()
    first = int((statefulset["spec"].get("ordinals") or {}).get("start") or 0)
    ordinal = pod["metadata"]["name"].rpartition("-")[2]
    return (
        ordinal.isdecimal()
        and int(ordinal) < first + peers_of(statefulset).wanted
        and any(owner.get("uid") == statefulset["metadata"]["uid"] for owner in owners)
        and labels_of(pod).get("controller-revision-hash") != revision
        and not pod["metadata"].get("deletionTimestamp")
    )


def _delete_peer(key: ObjectKey, uid: str, cluster: Cluster) -> None:
    """Delete the peer with this uid. A pod with the same name and another uid is new, and is kept."""
    try:
        cluster.delete(key, uid=uid, resource_version=None, propagation=Propagation.BACKGROUND)
    except PreconditionFailed:
        return
