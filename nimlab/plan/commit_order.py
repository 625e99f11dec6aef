"""Decide from the record of earlier syncs whether this commit may be synced now.

In: the parent's record, the relation of the files' commit to each recorded commit, the identity of the lab,
and the pending changes. Out: a refusal, or the record to write. Pure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from nimlab.errors import PlanError
from nimlab.files.git import Relation
from nimlab.objects.applyset import ApplySet
from nimlab.objects.applyset_parent import LAB, AppliedCommit, Parent, Scope
from nimlab.objects.lab_identity import LabIdentity, LabRelation, lab_relation
from nimlab.plan.snapshot import Former
from nimlab.plan.sync_policy import PlanInputs

_KNOWN = frozenset({Relation.SAME, Relation.NEWER, Relation.OLDER, Relation.DIVERGED})


def lab_relation_of(own: LabIdentity, parent: Parent, relations: Mapping[str, Relation]) -> LabRelation:
    """Return whether the set that a parent records is this lab's own."""
    found = [relations.get(sha, Relation.UNKNOWN) in _KNOWN for sha in parent.commits]
    return lab_relation(own, parent.lab, knows_commit=any(found) if found else None)


def refuse_other_lab(
    before: Parent, apply_set: ApplySet, inputs: PlanInputs, pending: frozenset[str]
) -> PlanError | None:
    """Return why this run may not change the set because it is another lab's; None where it may.

    No flag overrides this: `--allow-older` goes back in one lab's history, and never takes another's set.
    """
    kin = lab_relation_of(inputs.lab, before, inputs.relations)
    if kin is LabRelation.OTHER:
        what = f"the set `{apply_set.name}` in namespace {apply_set.namespace} is another lab's"
        return PlanError(what, where=apply_set.parent_key, hint=_other_lab_hint(before, apply_set, inputs))
    is_recorded = bool(before.entries(None))
    if kin is LabRelation.UNKNOWN and is_recorded and pending and inputs.policy.allow_older:
        what = f"the set may be another lab's: this repository does not contain {_synced(before)}"
        sha = before.entries(None)[0].sha
        return PlanError(what, where=apply_set.parent_key, hint=_unknown_lab_hint(sha, apply_set, inputs))
    return None


def refuse_stale(
    before: Parent, apply_set: ApplySet, inputs: PlanInputs, pending: frozenset[str]
) -> PlanError | None:
    """Return why this commit may not be synced over the recorded ones; None where it may.

    A run never overwrites the work of a newer commit, and changes nothing where the order is unknown.
    `pending` are the experiments that the run would change.

    An experiment that was synced by name from a diverged branch counts as drift, like any manual change, so
    one team's branch does not block the others' commits.
    """
    if inputs.policy.allow_older:
        return None
    for entry in before.entries(inputs.policy.names):
        relation = inputs.relations.get(entry.sha, Relation.UNKNOWN)
        if relation is Relation.OLDER or (relation is Relation.DIVERGED and entry.experiment is None):
            head = inputs.commit.sha[:7] if inputs.commit else "this"
            how = "older than" if relation is Relation.OLDER else "not a descendant of"
            return PlanError(
                f"commit {head} is {how} {_described(entry, before)}",
                where=apply_set.parent_key,
                hint=f"{inputs.remedies.get(entry.sha, 'check out the newest commit')}; "
                "to go back on purpose, pass `--allow-older`",
            )
        is_touched = bool(pending) if entry.experiment is None else entry.experiment in pending
        if relation is Relation.UNKNOWN and is_touched:
            is_same = lab_relation_of(inputs.lab, before, inputs.relations) is LabRelation.SAME
            return PlanError(
                f"cannot determine whether this commit is newer than {_described(entry, before)}",
                where=apply_set.parent_key,
                hint=f"{_remedy(entry.sha, inputs)}; to change the cluster all the same, pass `--allow-older`"
                if is_same
                else _unknown_lab_hint(entry.sha, apply_set, inputs),
            )
    return None


def refuse_unmoved(former: Iterable[Former], apply_set: ApplySet, inputs: PlanInputs) -> PlanError | None:
    """Return why nothing is done while this lab has objects in another namespace; None where it has none."""
    for one in former:
        groups = frozenset(one.apply_set.group_of(live) for live in one.live.values())
        stale = refuse_stale(one.parent, one.apply_set, inputs, groups)
        if stale is not None:
            return stale
        if one.live and not inputs.policy.move:
            there, here = one.apply_set.namespace, apply_set.namespace
            return PlanError(
                f"this lab was synced to namespace {there}; {len(one.live)} of its objects are still there",
                where=one.apply_set.parent_key,
                hint=f"to move the lab, pass `--move`: it applies the objects in {here}, then deletes those"
                f" in {there}; to stay, write `namespace: {there}` in lab.yaml; to keep two labs, give each"
                " an id of its own (`metadata.id` in lab.yaml) and sync the other one first",
            )
    return None


def _remedy(sha: str, inputs: PlanInputs) -> str:
    usual = "fetch it with `git fetch`" if inputs.commit else "sync from a clone of the lab's repository"
    return inputs.remedies.get(sha, usual)


def _unknown_lab_hint(sha: str, apply_set: ApplySet, inputs: PlanInputs) -> str:
    """Hint for a set whose commits are not known here: they are not fetched, or it is another lab's."""
    return (
        f"{_remedy(sha, inputs)}; if the set is another lab's, choose another `spec.namespace` in lab.yaml;"
        f" if it is this lab's and the commit no longer exists, {_claim(apply_set, inputs)}"
    )


def _other_lab_hint(before: Parent, apply_set: ApplySet, inputs: PlanInputs) -> str:
    recorded, own = before.lab, inputs.lab
    if recorded.id is not None and own.id is not None:
        so = f"its id is `{recorded.id}`, this lab's `metadata.id` is `{own.id}`"
    else:
        so = f"its folder in the repository is `{recorded.repository_folder or '.'}`"
        so += f", this lab's is `{own.repository_folder or '.'}`"
    return (
        f"{so}; choose another `spec.namespace` in lab.yaml; if it is this lab, {_claim(apply_set, inputs)}"
    )


def _claim(apply_set: ApplySet, inputs: PlanInputs) -> str:
    """Return the two steps that declare a set to be this lab's: one in Git, one in the cluster."""
    parent = apply_set.parent_key
    name = inputs.lab.id or "NAME"
    step = "" if inputs.lab.id else f"write `metadata: {{id: {name}}}` in lab.yaml and "
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
        return f"{entry.sha[:7]}, from which {entry.experiment} was synced since"
    how = "which was synced last" if entry.sha == before.commit else "a sync of which was begun since"
    return f"{entry.sha[:7]}, {how}"


def records_of(
    before: Parent,
    scope: Scope,
    changing: frozenset[str],
    inputs: PlanInputs,
    *,
    failing: bool,
    former: frozenset[str],
    moved: frozenset[str],
) -> tuple[Parent, Parent]:
    """Return the record to write before experiments are `changing`, and the record once all is done.

    Only a sync of the whole lab records a commit as synced, and only if its order is known. `former` are the
    namespaces with objects of this lab, `moved` those that the run empties.
    """
    sha = inputs.commit.sha if inputs.commit else None
    names = None if inputs.policy.names is None else changing
    lab = inputs.lab.recorded_over(before.lab)
    origin = before.origin or before.commit or sha
    during = before.begin(scope, sha if changing else None, names)
    if changing:
        during = dataclasses.replace(during, lab=lab, origin=origin)
    during = dataclasses.replace(during, former=during.former | former)
    known = inputs.policy.allow_older or Relation.UNKNOWN not in (
        inputs.relations.get(entry.sha, Relation.UNKNOWN)
        for entry in before.entries(inputs.policy.names)
        if entry.experiment is None
    )
    whole = inputs.policy.names is None and known and not failing
    after = during.end(scope, sha if whole else None)
    if whole:
        after = dataclasses.replace(after, lab=lab, origin=origin, former=former - moved)
    return during, after
