"""Decide whether this commit may be synced, from the record of earlier syncs; update the record.

In: the parent's record, the identity of the lab, and the pending changes. A further input states for each
recorded commit whether the checked-out commit is newer or older. Out: a refusal, or the records to write.
Pure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Final

from nimlab.errors import PlanError
from nimlab.files.git_history import Relation
from nimlab.objects.applyset import ApplySet
from nimlab.objects.applyset_parent import LAB, AppliedCommit, Parent, Scope
from nimlab.objects.lab_identity import LabIdentity, LabRelation, lab_relation
from nimlab.plan.snapshot import Former
from nimlab.plan.sync_policy import PlanInputs

_KNOWN_COMMIT: Final = frozenset({Relation.SAME, Relation.NEWER, Relation.OLDER, Relation.DIVERGED})


def lab_relation_of(own: LabIdentity, parent: Parent, relations: Mapping[str, Relation]) -> LabRelation:
    """Return whether the apply-set of this parent belongs to this lab."""
    known = [relations.get(sha, Relation.UNKNOWN) in _KNOWN_COMMIT for sha in parent.commits]
    return lab_relation(own, parent.lab, knows_commit=any(known) if known else None)


def refuse_other_lab(
    before: Parent, apply_set: ApplySet, inputs: PlanInputs, pending: frozenset[str]
) -> PlanError | None:
    """Return the refusal if the apply-set belongs, or may belong, to another lab; None otherwise.

    No flag overrides this refusal. `--allow-older` only allows an older commit of the same lab. If the
    apply-set may belong to another lab, this function refuses only a run with `--allow-older`. Without this
    flag, `refuse_stale_commit` refuses the run.
    """
    lab = lab_relation_of(inputs.lab, before, inputs.relations)
    if lab is LabRelation.OTHER:
        what = f"the apply-set `{apply_set.name}` in namespace {apply_set.namespace} belongs to another lab"
        return PlanError(what, where=apply_set.parent_key, hint=_other_lab_hint(before, apply_set, inputs))
    is_recorded = bool(before.entries(None))
    if lab is LabRelation.UNKNOWN and is_recorded and pending and inputs.policy.allow_older:
        what = f"the apply-set may belong to another lab: this repository does not contain {_synced(before)}"
        sha = before.entries(None)[0].sha
        return PlanError(what, where=apply_set.parent_key, hint=_unknown_lab_hint(sha, apply_set, inputs))
    return None


def refuse_stale_commit(
    before: Parent, apply_set: ApplySet, inputs: PlanInputs, pending: frozenset[str]
) -> PlanError | None:
    """Return the refusal if this commit is, or may be, older than a recorded commit; None otherwise.

    A run never overwrites the changes of a newer commit. It changes nothing if it is unknown which commit is
    newer. `pending` are the experiments that the run would change.

    An experiment may have been synced by name from a diverged branch. This is not a reason for a refusal: the
    differences count as drift, like manual changes. If it were a reason, the branch of one team would block
    the commits of all other teams.
    """
    if inputs.policy.allow_older:
        return None
    for entry in before.entries(inputs.policy.names):
        relation = inputs.relations.get(entry.sha, Relation.UNKNOWN)
        if relation is Relation.OLDER or (relation is Relation.DIVERGED and entry.experiment is None):
            head = inputs.commit.sha[:7] if inputs.commit else "this"
            order = "older than" if relation is Relation.OLDER else "not a descendant of"
            return PlanError(
                f"commit {head} is {order} {_described(entry, before)}",
                where=apply_set.parent_key,
                hint=f"{inputs.remedies.get(entry.sha, 'check out the newest commit')}; "
                "to sync the older commit anyway, pass `--allow-older`",
            )
        is_touched = bool(pending) if entry.experiment is None else entry.experiment in pending
        if relation is Relation.UNKNOWN and is_touched:
            is_same = lab_relation_of(inputs.lab, before, inputs.relations) is LabRelation.SAME
            return PlanError(
                f"cannot determine whether this commit is newer than {_described(entry, before)}",
                where=apply_set.parent_key,
                hint=f"{_remedy(entry.sha, inputs)}; to change the cluster anyway, pass `--allow-older`"
                if is_same
                else _unknown_lab_hint(entry.sha, apply_set, inputs),
            )
    return None


def refuse_former_namespace(
    former: Iterable[Former], apply_set: ApplySet, inputs: PlanInputs
) -> PlanError | None:
    """Return the refusal that results from the lab's former namespaces; None if there is no refusal.

    A run is refused if this commit is, or may be, older than a commit recorded in a former namespace. It is
    also refused if a former namespace still contains objects of this lab and `--move` is not set.
    """
    for former_set in former:
        old_set = former_set.apply_set
        groups = frozenset(old_set.group_of(live) for live in former_set.live.values())
        stale = refuse_stale_commit(former_set.parent, old_set, inputs, groups)
        if stale is not None:
            return stale
        if former_set.live and not inputs.policy.move:
            old, new = old_set.namespace, apply_set.namespace
            return PlanError(
                f"this lab was synced to namespace {old}; {len(former_set.live)} of its objects still exist"
                " there",
                where=old_set.parent_key,
                hint=f"to move the lab, pass `--move`: it applies the objects in {new}, then deletes those"
                f" in {old}; to stay, set `namespace: {old}` in lab.yaml; to keep two labs, set a different"
                " `metadata.id` in the lab.yaml of each and sync the other one first",
            )
    return None


def _remedy(sha: str, inputs: PlanInputs) -> str:
    default = "fetch it with `git fetch`" if inputs.commit else "sync from a clone of the lab's repository"
    return inputs.remedies.get(sha, default)


def _unknown_lab_hint(sha: str, apply_set: ApplySet, inputs: PlanInputs) -> str:
    """Return the hint for a recorded commit that this repository does not contain."""
    return (
        f"{_remedy(sha, inputs)}; if the apply-set belongs to another lab, choose another `spec.namespace` in"
        f" lab.yaml; if it belongs to this lab and the commit no longer exists, {_claim(apply_set, inputs)}"
    )


def _other_lab_hint(before: Parent, apply_set: ApplySet, inputs: PlanInputs) -> str:
    recorded, own = before.lab, inputs.lab
    if recorded.id is not None and own.id is not None:
        difference = f"its `metadata.id` is `{recorded.id}`, and this lab's is `{own.id}`"
    else:
        difference = f"its folder in the repository is `{recorded.repository_folder or '.'}`"
        difference += f", and this lab's is `{own.repository_folder or '.'}`"
    return (
        f"{difference}; choose another `spec.namespace` in lab.yaml;"
        f" if it belongs to this lab, {_claim(apply_set, inputs)}"
    )


def _claim(apply_set: ApplySet, inputs: PlanInputs) -> str:
    """Return the steps that assign the apply-set to this lab: set an id in lab.yaml, annotate the parent."""
    parent = apply_set.parent_key
    name = inputs.lab.id or "NAME"
    step = "" if inputs.lab.id else f"set `metadata: {{id: {name}}}` in lab.yaml and "
    return (
        f"{step}run `kubectl annotate --overwrite configmap {parent.name} -n {parent.namespace} {LAB}={name}`"
    )


def _synced(before: Parent) -> str:
    shas = dict.fromkeys(entry.sha[:7] for entry in before.entries(None))
    return (
        f"{'commit' if len(shas) == 1 else 'any of the commits'} {', '.join(shas)}, from which it was synced"
    )


def _described(entry: AppliedCommit, before: Parent) -> str:
    if entry.experiment is not None:
        return f"{entry.sha[:7]}, from which {entry.experiment} was synced later"
    state = (
        "which was synced last" if entry.sha == before.commit else "which a later, incomplete sync applied"
    )
    return f"{entry.sha[:7]}, {state}"


def parent_records(
    before: Parent,
    scope: Scope,
    changing: frozenset[str],
    inputs: PlanInputs,
    *,
    failing: bool,
    former: frozenset[str],
    moved: frozenset[str],
) -> tuple[Parent, Parent]:
    """Return two records: one to write before the run's first change, and one to write after its last change.

    `changing` are the experiments that the run changes. The commit is recorded as synced only after a
    complete sync of the whole lab, and only if it is known to be newer than the recorded commits or if
    `--allow-older` is set. `former` are the other namespaces with objects of this lab. `moved` are the former
    namespaces in which no members remain after the run.
    """
    sha = inputs.commit.sha if inputs.commit else None
    names = None if inputs.policy.names is None else changing
    lab = inputs.lab.recorded_over(before.lab)
    origin = before.origin or before.commit or sha
    during = before.begin(scope, sha if changing else None, names)
    if changing:
        during = dataclasses.replace(during, lab=lab, origin=origin)
    during = dataclasses.replace(during, former=during.former | former)
    is_order_known = inputs.policy.allow_older or Relation.UNKNOWN not in (
        inputs.relations.get(entry.sha, Relation.UNKNOWN)
        for entry in before.entries(inputs.policy.names)
        if entry.experiment is None
    )
    is_complete = inputs.policy.names is None and is_order_known and not failing
    after = during.end(scope, sha if is_complete else None)
    if is_complete:
        after = dataclasses.replace(after, lab=lab, origin=origin, former=former - moved)
    return during, after
