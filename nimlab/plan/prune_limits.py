"""Stops: reasons for which a run prunes nothing.

In: the planned changes, the snapshot and the policy. Out: `Stop`s. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nimlab.objects.applyset_parent import Parent
from nimlab.objects.lab_identity import LabRelation
from nimlab.objects.manifest import ObjectKey
from nimlab.objects.prune_proofs import has_applied_label, missing_proofs
from nimlab.plan.change import Action, Change
from nimlab.plan.commit_order import lab_relation_of
from nimlab.plan.snapshot import Desired, Snapshot
from nimlab.plan.sync_policy import PlanInputs


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneBlocked:
    """Why nothing is pruned in this run, though something could be, and so no new experiment is created."""

    code: str
    what: str
    hint: str


def _stops(
    changes: Sequence[Change],
    desired: Sequence[Desired],
    snapshot: Snapshot,
    inputs: PlanInputs,
    wanted: set[ObjectKey],
) -> tuple[PruneBlocked, ...]:
    """Every reason why the planned prunes are withheld; none when there is nothing to prune."""
    pruned = [change for change in changes if change.action is Action.PRUNE]
    if not pruned:
        return ()
    found: list[PruneBlocked] = []
    if inputs.broken or inputs.file_errors:
        files = ", ".join(broken.source for broken in inputs.broken[:3])
        wrong = f"{files} can't be used" if files else "there are problems in the files"
        found.append(
            PruneBlocked(
                code="broken-files",
                what=f"a sync with errors never prunes: {wrong}",
                hint="mend the files; `nimlab validate` shows what is wrong",
            )
        )
    blocked = [change for change in changes if change.error is not None]
    if blocked:
        found.append(
            PruneBlocked(
                code="blocked",
                what=f"a sync with errors never prunes: {blocked[0].key} can't be applied",
                hint="mend that first",
            )
        )
    before = snapshot.parent or Parent.none()
    if before.lab.host_folder is not None and not before.entries(None):
        kin = lab_relation_of(inputs.lab, before, inputs.relations)
        if kin is not LabRelation.SAME:
            found.append(
                PruneBlocked(
                    code="unknown-lab",
                    what="the set was synced from another folder without Git, and may be another lab's",
                    hint="put the lab into a Git repository, or give it an id (`metadata.id` in lab.yaml)",
                )
            )
    if not desired and inputs.policy.names is None and not inputs.policy.allow_empty:
        found.append(
            PruneBlocked(
                code="empty",
                what="no experiment is left in `experiments/`: everything would be deleted",
                hint="if that is meant, say `--allow-empty`",
            )
        )
    return (*found, *_over_limit(pruned, snapshot, inputs, wanted))


def _over_limit(
    pruned: Sequence[Change], snapshot: Snapshot, inputs: PlanInputs, wanted: set[ObjectKey]
) -> tuple[PruneBlocked, ...]:
    """Return the stop if the prunes exceed the limit.

    A move deletes everything in the former namespace, and `--move` asks for just that, so the percentage is
    of the current set. The number of objects counts both.
    """
    limit, count = inputs.limit, len(pruned)
    here = [change for change in pruned if change.former is None]
    members = max(_count_members(snapshot, wanted), len(here), 1)
    percent = 100 * len(here) / members
    single = len({change.experiment for change in here}) == 1 and all(
        has_applied_label(c.live, snapshot.apply_set.group_label) for c in here if c.live
    )
    if limit.objects is not None and count > limit.objects:
        what = f"{count} objects would be deleted, more than the limit of {limit.objects}"
    elif limit.percent is not None and percent > limit.percent and not (single and limit.spare_single):
        what = (
            f"{len(here)} of {members} objects ({percent:.0f}%) would be deleted, "
            f"more than the limit of {limit.percent:g}%"
        )
    else:
        return ()
    return (PruneBlocked(code="limit", what=what, hint=f"if that is meant, add `--max-prune {count}`"),)


def _count_members(snapshot: Snapshot, wanted: set[ObjectKey]) -> int:
    """Return how many objects the set has; foreign objects with its label don't count."""
    return sum(
        key in wanted or not missing_proofs(live, snapshot.apply_set) for key, live in snapshot.live.items()
    )
