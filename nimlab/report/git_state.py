"""One experiment of a plan -> the word in the column GIT, such as `drifted`.

In: an experiment's plan and the whole plan. Out: a `GitState`. The plan has already compared the files with
the cluster; this module only classifies the result. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from nimlab.objects.managed_fields import own_entry
from nimlab.objects.manifest import Manifest
from nimlab.plan.change import Change
from nimlab.plan.drift_origin import checkout_has_changed, has_other_writer
from nimlab.plan.make_plan import ExperimentPlan, Plan


class GitState(Enum):
    """The result of comparing an experiment's file in Git with the cluster; pod health is ignored."""

    IN_SYNC = "in sync"
    DRIFTED = "drifted"  # the cluster was changed after the sync
    CHANGED = "changed"  # the checkout was changed after the sync
    BLOCKED = "blocked"  # a sync would fail
    NOT_SYNCED = "not synced"  # no object is in the cluster
    ORPHANED = "orphaned"  # objects are in the cluster, but there is no file
    BROKEN = "file broken"


def git_state_of(experiment: ExperimentPlan, plan: Plan) -> GitState:
    """Return the state of an experiment whose file is valid or removed."""
    changes = experiment.changes
    if experiment.source is None:
        return GitState.ORPHANED
    if any(change.error is not None for change in changes):
        return GitState.BLOCKED
    if all(change.live is None for change in changes):
        return GitState.NOT_SYNCED
    if any(change.foreign or change.reclaimed_fields or has_other_writer(change) for change in changes):
        return GitState.DRIFTED
    if not any(change.is_pending for change in changes):
        return GitState.IN_SYNC
    if (
        _is_other_file(changes)
        or any(map(checkout_has_changed, changes))
        or _is_other_commit(experiment, plan)
    ):
        return GitState.CHANGED
    return GitState.DRIFTED


def _is_other_commit(experiment: ExperimentPlan, plan: Plan) -> bool:
    """Return True if the checkout differs from the last synced commit.

    The result is False if an object of a synced kind is missing, because it was deleted in the cluster.
    """
    if plan.commit is None or plan.recorded_commit is None:
        return False
    is_missing = any(c.live is None and c.key.kind in plan.before.scope.kinds for c in experiment.changes)
    return not is_missing and (plan.commit.dirty or plan.commit.sha != plan.recorded_commit)


def _is_other_file(changes: Sequence[Change]) -> bool:
    """Return True if the file's hash differs from the hash that the last sync wrote to the ConfigMap."""
    for change in changes:
        if change.key.kind == "ConfigMap" and change.live and change.desired:
            synced, wanted = _recorded_digest(change.live), _recorded_digest(change.desired)
            if wanted and synced != wanted and _is_ours(change.live, "f:data", "f:sha256"):
                return True
    return False


def _is_ours(live: Manifest, *path: str) -> bool:
    """Return True if nimlab wrote the field last. Otherwise its value proves nothing about the last sync."""
    fields: Any = own_entry(live)
    for name in path:
        fields = fields.get(name) if isinstance(fields, Mapping) else None
    return fields is not None


def _recorded_digest(config: Manifest) -> str | None:
    return (config.get("data") or {}).get("sha256")
