"""Create a saved plan, read a saved plan from its file, and reject a saved plan that is no longer valid."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Final

from nimlab import __version__
from nimlab.cluster.kube import KubeCluster
from nimlab.errors import Forbidden, PlanError
from nimlab.objects.manifest import ObjectKey
from nimlab.plan.make_plan import Plan
from nimlab.plan.saved_plan import ClusterIdentity, SavedPlan, differences_since, saved_plan_of
from nimlab.plan.sync_policy import SyncPolicy

_SHOWN: Final = 5


def read_saved_plan(path: Path) -> SavedPlan:
    """Return the saved plan in a file. Raises PlanError if the file does not contain a saved plan."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PlanError(
            f"the saved plan cannot be read: {error}",
            where=path,
            hint="create one with `nimlab sync --dry-run --out FILE`",
        ) from error
    return SavedPlan.from_json(document, str(path))


def identity_of(
    cluster: KubeCluster, namespace: str, *, like: ClusterIdentity | None = None
) -> ClusterIdentity:
    """Return the identity of this cluster; with `like`, an identity that can be compared with `like`.

    The identity is the uid of an object. Every namespace contains the ConfigMap `kube-root-ca.crt`, which
    both accounts of a pipeline can read. If the lab's namespace does not exist yet, the namespace
    `kube-system` is used. If neither object can be read, the server's address is the identity. It is the last
    choice, because one cluster may have several addresses.
    """
    candidates = (
        ObjectKey("ConfigMap", namespace, "kube-root-ca.crt"),
        ObjectKey("Namespace", "", "kube-system"),
    )
    for key in (key for key in candidates if like is None or like.object == str(key)):
        try:
            live = cluster.get(key)
        except Forbidden:
            continue
        if live is not None:
            return ClusterIdentity(object=str(key), id=live["metadata"]["uid"])
    return ClusterIdentity(object=None, id=cluster.host)


def make_saved_plan(
    plan: Plan, policy: SyncPolicy, cluster: KubeCluster, saved: SavedPlan | None = None
) -> SavedPlan:
    """Return a plan as a saved plan; with `saved`, a saved plan that can be compared with `saved`.

    Raises ClusterError.
    """
    return saved_plan_of(
        plan,
        policy,
        f"nimlab/{__version__}",
        cluster=identity_of(cluster, plan.apply_set.namespace, like=saved.cluster if saved else None),
        salt=saved.salt if saved else secrets.token_hex(16),
    )


def reject_changed_plan(saved: SavedPlan, plan: Plan, policy: SyncPolicy, cluster: KubeCluster) -> None:
    """Raise PlanError unless the plan is equal to the saved plan. Raises ClusterError if a read fails."""
    differences = differences_since(saved, make_saved_plan(plan, policy, cluster, saved))
    if differences:
        more = f", and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
        raise PlanError(
            f"the saved plan is no longer valid: {'; '.join(differences[:_SHOWN])}{more}",
            where=saved.source,
            hint="nothing was changed; make a new plan with `nimlab sync --dry-run --out FILE`",
        )
