"""A write that a namespace on its way out refuses -> the same error with what keeps the namespace.

In: an error, the cluster. Out: an error. One read happens here, and only after such a refusal.
"""

from __future__ import annotations

from nimlab.cluster.port import Cluster
from nimlab.errors import ClusterError, Forbidden, NimlabError
from nimlab.objects.manifest import ObjectKey
from nimlab.plan.deletion_blockers import held_by, is_leaving

_BEING_TERMINATED = "because it is being terminated"  # the API server's words


def with_reason(error: NimlabError, cluster: Cluster, namespace: str) -> NimlabError:
    """Return the error; where its namespace is being deleted, one that says what keeps that namespace."""
    if not isinstance(error, ClusterError) or _BEING_TERMINATED not in error.whole:
        return error
    key = ObjectKey("Namespace", "", namespace)
    try:
        live = cluster.get(key)
    except ClusterError:
        return error
    why = held_by(live) if live is not None and is_leaving(live) else "it was being deleted"
    return Forbidden(
        f"nothing can be created in the namespace `{namespace}`: {why}",
        where=error.where or key,
        hint="wait until the namespace is gone, or remove what holds it, then sync again",
        status=error.status,
    )
