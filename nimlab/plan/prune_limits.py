"""Reasons why a run prunes nothing, for example because it would exceed the limit on deletions.

In: the planned changes, the snapshot and the policy. Out: one `PruneBlocked` per reason. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from nimlab.objects.applyset_parent import Parent
from nimlab.objects.lab_identity import LabRelation
from nimlab.objects.manifest import ObjectKey
from nimlab.objects.prune_conditions import has_applied_label, missing_proofs
from nimlab.plan.change import Action, Change
from nimlab.plan.snapshot import Desired, Snapshot
from nimlab.plan.stale_commit import lab_relation_of
from nimlab.plan.sync_policy import PlanInputs


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneBlocked:
    """A reason to prune nothing in this run. The run may also hold back new experiments (`make_plan`).

    `code` identifies the kind of reason, `what` is a message, and `hint` describes how to allow the prune.
    """

    code: str
    what: str
    hint: str


def prune_blockers(
    changes: Sequence[Change],
    desired: Sequence[Desired],
    snapshot: Snapshot,
    inputs: PlanInputs,
    desired_keys: Collection[ObjectKey],
) -> tuple[PruneBlocked, ...]:
    """Return all reasons to withhold the planned prunes; empty if no prune is planned."""
    pruned = [change for change in changes if change.action is Action.PRUNE]
    if not pruned:
        return ()
    return (
        *_broken_files(inputs),
        *_failed_changes(changes),
        *_unknown_lab(snapshot, inputs),
        *_no_experiments(desired, inputs),
        *_over_limit(pruned, snapshot, inputs, desired_keys),
    )


def _broken_files(inputs: PlanInputs) -> Iterator[PruneBlocked]:
    if inputs.broken or inputs.file_errors:
        files = ", ".join(broken.source for broken in inputs.broken[:3])
        problem = f"{files} cannot be used" if files else "the files have errors"
        yield PruneBlocked(
            code="broken-files",
            what=f"a sync with errors never prunes: {problem}",
            hint="fix the files; `nimlab validate` lists the errors",
        )


def _failed_changes(changes: Sequence[Change]) -> Iterator[PruneBlocked]:
    failed = next((change for change in changes if change.error is not None), None)
    if failed is not None:
        yield PruneBlocked(
            code="blocked",
            what=f"a sync with errors never prunes: {failed.key} cannot be applied",
            hint="fix this error first",
        )


def _unknown_lab(snapshot: Snapshot, inputs: PlanInputs) -> Iterator[PruneBlocked]:
    """Yield a reason if the apply-set was synced from another folder that is not in a Git repository."""
    before = snapshot.parent or Parent.none()
    if before.lab.host_folder is None or before.entries(None):
        return
    if lab_relation_of(inputs.lab, before, inputs.relations) is not LabRelation.SAME:
        yield PruneBlocked(
            code="unknown-lab",
            what="the apply-set was synced from another folder without Git, and may belong to another lab",
            hint="put the lab into a Git repository, or give it an id (`metadata.id` in lab.yaml)",
        )


def _no_experiments(desired: Sequence[Desired], inputs: PlanInputs) -> Iterator[PruneBlocked]:
    if not desired and inputs.policy.names is None and not inputs.policy.allow_empty:
        yield PruneBlocked(
            code="empty",
            what="`experiments/` contains no experiment, so all experiments would be deleted",
            hint="if this is intended, pass `--allow-empty`",
        )


def _over_limit(
    pruned: Sequence[Change], snapshot: Snapshot, inputs: PlanInputs, desired_keys: Collection[ObjectKey]
) -> Iterator[PruneBlocked]:
    """Yield a reason if the prunes exceed the limit.

    All prunes count for the limit on the number of objects. Prunes in former namespaces do not count for the
    percentage, because the user requests with `--move` that all objects in them are deleted.
    """
    limit, count = inputs.limit, len(pruned)
    in_current_set = [change for change in pruned if change.former is None]
    members = max(_count_members(snapshot, desired_keys), len(in_current_set), 1)
    percent = 100 * len(in_current_set) / members
    is_single = len({change.experiment for change in in_current_set}) == 1 and all(
        has_applied_label(c.live, snapshot.apply_set.group_label) for c in in_current_set if c.live
    )
    if limit.objects is not None and count > limit.objects:
        what = f"{count} objects would be deleted, more than the limit of {limit.objects}"
    elif limit.percent is not None and percent > limit.percent and not (is_single and limit.spare_single):
        what = (
            f"{len(in_current_set)} of {members} objects ({percent:.0f}%) would be deleted, "
            f"more than the limit of {limit.percent:g}%"
        )
    else:
        return
    yield PruneBlocked(code="limit", what=what, hint=f"if this is intended, pass `--max-prune {count}`")


def _count_members(snapshot: Snapshot, desired_keys: Collection[ObjectKey]) -> int:
    """Count the live objects of the apply-set that are desired or have all proofs."""
    return sum(
        key in desired_keys or not missing_proofs(live, snapshot.apply_set)
        for key, live in snapshot.live.items()
    )
