"""Which commits were synced before, and may this one go on from there.

In: what the parent records, how the files' commit stands to it, and what a run would change. Out: a refusal,
or what the parent is to record. Pure.
"""

from __future__ import annotations

from nimlab.errors import PlanError
from nimlab.git import Relation
from nimlab.owned import ApplySet
from nimlab.parent import Entry, Parent, Scope
from nimlab.snapshot import Policy


def refuse_stale(
    before: Parent, apply_set: ApplySet, policy: Policy, pending: frozenset[str]
) -> PlanError | None:
    """Return why this run may not go on from what was synced before, None when it may.

    What a newer commit has made isn't overwritten; where that can't be told, nothing of it is changed.
    `pending` are the experiments that the run would change.

    What was synced by name from a commit beside this one's history is drift, as anything done by hand: a team
    that tries an experiment on a branch doesn't keep the others' commits from being synced.
    """
    if policy.allow_older:
        return None
    for entry in before.entries(policy.names):
        relation = policy.relations.get(entry.sha, Relation.UNKNOWN)
        if relation is Relation.OLDER or (relation is Relation.DIVERGED and entry.experiment is None):
            head = policy.commit.sha[:7] if policy.commit else "this"
            how = "older than" if relation is Relation.OLDER else "not a descendant of"
            return PlanError(
                f"commit {head} is {how} {_told(entry, before)}",
                where=apply_set.parent_key,
                hint=f"{policy.remedies.get(entry.sha, 'check out the newest commit')}; "
                "to go back on purpose, say `--allow-older`",
            )
        is_touched = bool(pending) if entry.experiment is None else entry.experiment in pending
        if relation is Relation.UNKNOWN and is_touched:
            fetch = "fetch it (`git fetch`, in a shallow clone `git fetch --unshallow`)"
            usual = fetch if policy.commit else "sync from a clone of the lab's repository"
            remedy = policy.remedies.get(entry.sha, usual)
            return PlanError(
                f"it can't be told whether this is newer than {_told(entry, before)}",
                where=apply_set.parent_key,
                hint=f"{remedy}; to change the cluster all the same, say `--allow-older`",
            )
    return None


def _told(entry: Entry, before: Parent) -> str:
    if entry.experiment is not None:
        return f"{entry.sha[:7]}, from which {entry.experiment} was synced since"
    how = "which was synced last" if entry.sha == before.commit else "a sync of which was begun since"
    return f"{entry.sha[:7]}, {how}"


def records_of(
    before: Parent, scope: Scope, changing: frozenset[str], policy: Policy, *, failing: bool
) -> tuple[Parent, Parent]:
    """Return what the parent has to record while experiments are `changing`, and once all is done.

    Only a sync of everything may say that a commit was synced, and none whose age can't be told.
    """
    sha = policy.commit.sha if policy.commit else None
    names = None if policy.names is None else changing
    during = before.begin(scope, sha if changing else None, names)
    known = policy.allow_older or Relation.UNKNOWN not in (
        policy.relations.get(entry.sha, Relation.UNKNOWN)
        for entry in before.entries(policy.names)
        if entry.experiment is None
    )
    whole = policy.names is None and known and not failing
    return during, during.end(scope, sha if whole else None)
