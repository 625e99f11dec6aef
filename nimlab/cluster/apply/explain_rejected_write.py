"""Explain why a namespace rejects writes: it is being deleted, and something blocks the deletion.

In: the error of a write, and the cluster. Out: an error that also names what blocks the deletion of the
namespace. The namespace is read only if the server has rejected the write for this reason.
"""

from __future__ import annotations

from nimlab.cluster.interface import Cluster
from nimlab.errors import ClusterError, Forbidden, NimlabError
from nimlab.objects.manifest import ObjectKey
from nimlab.plan.explain_stuck_deletion import describe_blockers, is_terminating

_REJECTION = "because it is being terminated"  # from the API server's error message


def explain_terminating_namespace(error: NimlabError, cluster: Cluster, namespace: str) -> NimlabError:
    """Return an error that names what blocks the deletion of the namespace; return other errors unchanged."""
    if not isinstance(error, ClusterError) or _REJECTION not in error.full_message:
        return error
    key = ObjectKey("Namespace", "", namespace)
    try:
        live = cluster.get(key)
    except ClusterError:
        return error
    reason = describe_blockers(live) if live is not None and is_terminating(live) else "it was being deleted"
    return Forbidden(
        f"nothing can be created in the namespace `{namespace}`: {reason}",
        where=error.where or key,
        hint="wait until the namespace is deleted, or remove what blocks its deletion, then sync again",
        status=error.status,
    )
