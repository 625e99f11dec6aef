"""Read a session's cluster once, and make a plan from the snapshot."""

from __future__ import annotations

import functools
import hashlib
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from nimlab.cluster.observe import LabOrigin, observe
from nimlab.files import git_history as git
from nimlab.files.spec import SyncSettings
from nimlab.objects.applyset_parent import Parent
from nimlab.objects.lab_identity import LabIdentity
from nimlab.plan.make_plan import Plan, make_plan
from nimlab.plan.snapshot import Snapshot
from nimlab.plan.sync_policy import PlanInputs, PruneLimit, SyncPolicy
from nimlab.stopwatch import stage
from nimlab.workflow.session import LoadedLab, Session

_UNRELATED: Final = (git.Relation.DIVERGED, git.Relation.UNKNOWN)


def plan(session: Session, policy: SyncPolicy | None = None) -> Plan:
    """Read the cluster and return the plan of a sync, without writing anything.

    Without a policy, the plan covers all experiments for which the lab was read. Raises NimlabError. Raises
    Interrupted if `stop` is set during the reads.
    """
    return observe_and_plan(session, policy or SyncPolicy(names=session.lab.names))[1]


def observe_and_plan(session: Session, policy: SyncPolicy) -> tuple[Snapshot, Plan]:
    """Read the cluster and return the snapshot and its plan. Raises the errors of `plan`.

    Raises ValueError if the policy has other names than those for which the lab was read.
    """
    lab, desired = session.lab, session.lab.desired
    if policy.names != lab.names:
        raise ValueError(f"the lab was read for the names {lab.names}, not for {policy.names}")
    relation_of = functools.cache(lambda sha: git.relation_to(lab.root, lab.commit, sha))
    origin = LabOrigin(
        identity=_identity_of(lab),
        relation_of=relation_of,
        former_namespaces=lambda: git.former_values(lab.root, "lab.yaml", "namespace"),
    )
    with stage("look"):
        snapshot = observe(
            session.cluster,
            desired.desired,
            desired.apply_set,
            take_ownership=policy.take_ownership,
            remove_foreign=policy.remove_foreign,
            parallel=desired.files.lab.sync.parallel,
            origin=origin,
        )
    session.raise_if_stopped()
    relations: dict[str, git.Relation] = {}
    for parent in filter(None, (snapshot.parent, *(former.parent for former in snapshot.former))):
        relations |= _relations(parent, relation_of)
    with stage("plan"):
        return snapshot, make_plan(desired.desired, snapshot, _plan_inputs(lab, policy, relations, origin))


def _plan_inputs(
    lab: LoadedLab, policy: SyncPolicy, relations: Mapping[str, git.Relation], origin: LabOrigin
) -> PlanInputs:
    return PlanInputs(
        policy=replace(policy, names=lab.desired.names),
        limit=prune_limit_of(policy, lab.desired.files.lab.sync),
        broken=lab.desired.broken,
        file_errors=len(lab.desired.errors),
        commit=lab.commit,
        relations=relations,
        remedies={
            sha: git.remedy_for(lab.root, lab.commit, sha)
            for sha, relation in relations.items()
            if relation in _UNRELATED
        },
        lab=origin.identity,
    )


def prune_limit_of(policy: SyncPolicy, settings: SyncSettings) -> PruneLimit:
    """Return the limit on prunes from the policy; if the policy has none, return the limit from lab.yaml."""
    if policy.max_prune is not None:
        return PruneLimit.parse(policy.max_prune)
    return PruneLimit(
        objects=settings.max_prune_objects, percent=settings.max_prune_percent, spare_single=True
    )


def _relations(parent: Parent, relation_of: Callable[[str], git.Relation]) -> dict[str, git.Relation]:
    """Return, for each commit in a parent's record, whether the checked-out commit is newer or older.

    The keys are the recorded commits. For example, the value is `Relation.NEWER` if the checked-out commit is
    newer than the recorded commit. The first synced commit (`origin`) is compared only if all other relations
    are unknown, so that the usual sync starts no Git process for it.
    """
    relations = {entry.sha: relation_of(entry.sha) for entry in parent.entries(None)}
    is_unknown = all(relation is git.Relation.UNKNOWN for relation in relations.values())
    if parent.origin is not None and is_unknown:
        relations[parent.origin] = relation_of(parent.origin)
    return relations


def _identity_of(lab: LoadedLab) -> LabIdentity:
    """Return the identity of this lab: its id, its path in the repository, a digest of host and folder."""
    host_folder = f"{socket.gethostname()}:{lab.root}"
    return LabIdentity(
        id=lab.desired.files.lab.id,
        repository_folder=git.folder_in_repository(lab.root) if lab.commit else None,
        host_folder=hashlib.sha256(host_folder.encode()).hexdigest()[:32],
    )


def commits_of_removal(session: Session, plan: Plan) -> dict[str, str]:
    """Return, for each planned experiment without a file, the commit that removed its file."""
    removed = [experiment.name for experiment in plan.experiments if experiment.source is None]
    commits = {name: git.removed_in(session.lab.root, f"experiments/{name}.yaml") for name in removed}
    return {name: sha for name, sha in commits.items() if sha is not None}
