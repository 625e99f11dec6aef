"""Make a plan: the ordered changes that make the cluster equal to the files.

In: desired objects, the snapshot of the cluster, and the policy of the run. Out: a `Plan` with every change,
every withheld change, and the reasons. The same arguments give the same plan. Pure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from nimlab.did_you_mean import did_you_mean
from nimlab.errors import PlanError
from nimlab.files.git_history import Commit
from nimlab.files.spec import BrokenFile
from nimlab.objects.applyset import PROTECT, ApplySet
from nimlab.objects.applyset_parent import Parent, Scope
from nimlab.objects.manifest import Manifest, ObjectKey, annotations_of, apply_order, key_of
from nimlab.objects.prune_conditions import has_applied_label, missing_proofs
from nimlab.plan.change import Action, Change
from nimlab.plan.decide_change import decide_desired, decide_orphan
from nimlab.plan.prune_limits import PruneBlocked, prune_blockers
from nimlab.plan.resource_requests import Resources, resources_of
from nimlab.plan.snapshot import Desired, Former, Snapshot
from nimlab.plan.stale_commit import (
    parent_records,
    refuse_former_namespace,
    refuse_other_lab,
    refuse_stale_commit,
)
from nimlab.plan.sync_policy import PlanInputs

__all__ = ["Action", "Change", "ExperimentPlan", "Plan", "PruneBlocked", "Resources", "make_plan"]

_ByName: TypeAlias = Mapping[str, list[Change]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentPlan:
    """The changes of one experiment, in the order of execution, and the resources that they add.

    `source` is the experiment's file; it is None if the file was removed. `added` may be negative. `held` is
    True if the experiment is new but this run does not create it. This happens while a prune of peers is
    withheld: if the new experiment is a renamed one, its peers would run twice, under both names.
    """

    name: str
    source: str | None
    changes: tuple[Change, ...]
    added: Resources
    held: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that a sync will do.

    `experiments` are sorted by name. `stops` are the reasons to withhold the prunes; `refusal` is the reason
    to withhold every change. `broken` are the experiments that cannot be synced because of errors in their
    files. `file_errors` counts the errors in files, including files that belong to no experiment. `narrowed`
    is True if the run covers only some experiments. `create_namespace` is True if the lab's namespace does
    not exist. `before` is the record on the parent. `during` is the record that the run writes before its
    first change, and `after` is the record that it writes after its last change. `retired` are the lab's sets
    in former namespaces that will have no members after the run; the run deletes their parents last.
    `unchecked` are namespaces that may contain a former set of the lab but could not be read.
    """

    apply_set: ApplySet
    experiments: tuple[ExperimentPlan, ...]
    stops: tuple[PruneBlocked, ...]
    refusal: PlanError | None
    broken: tuple[BrokenFile, ...]
    file_errors: int
    narrowed: bool
    commit: Commit | None
    create_namespace: bool
    before: Parent
    during: Parent
    after: Parent
    retired: tuple[Former, ...] = ()
    unchecked: tuple[str, ...] = ()

    @property
    def recorded_commit(self) -> str | None:
        """The last completely synced commit; None if the parent does not record a commit."""
        return self.before.commit

    @property
    def changes(self) -> tuple[Change, ...]:
        """All changes, in the order of the experiments."""
        return tuple(change for experiment in self.experiments for change in experiment.changes)

    def count(self, action: Action) -> int:
        """Return the number of objects with this action."""
        return sum(change.action is action for change in self.changes)

    @property
    def held(self) -> tuple[str, ...]:
        """The names of the new experiments that this run does not create.

        While a prune is withheld, a new experiment may be a renamed one, whose peers would run twice.
        """
        return tuple(experiment.name for experiment in self.experiments if experiment.held)

    @property
    def is_empty(self) -> bool:
        """True if a sync would change nothing and report no error."""
        return (
            all(not c.is_pending and c.error is None for c in self.changes)
            and self.refusal is None
            and not self.retired
            and not self.broken
            and not self.file_errors
        )


def make_plan(desired: Sequence[Desired], snapshot: Snapshot, inputs: PlanInputs) -> Plan:
    """Return the plan of a sync. Pure. Never raises."""
    desired_keys = frozenset(key_of(manifest) for group in desired for manifest in group.manifests)
    by_name = _decide(desired, snapshot, inputs, desired_keys)
    retired = _retired(snapshot, [change for changes in by_name.values() for change in changes])
    experiments = _experiment_plans(desired, snapshot, desired_keys, by_name)
    changes = [change for experiment in experiments for change in experiment.changes]
    stops = prune_blockers(changes, desired, snapshot, inputs, desired_keys)
    known_names = {*by_name, *map(snapshot.apply_set.group_of, snapshot.live.values())}
    return _assemble(
        snapshot,
        inputs,
        experiments=_hold_back(experiments, stops),
        stops=stops,
        refusal=_refusal(snapshot, inputs, known_names, changes),
        retired=retired,
        scope=_scope(snapshot, desired_keys, changes, narrowed=inputs.policy.names is not None),
    )


def _decide(
    desired: Sequence[Desired], snapshot: Snapshot, inputs: PlanInputs, desired_keys: frozenset[ObjectKey]
) -> _ByName:
    """Return the changes of all desired objects and orphans, grouped by experiment."""
    by_name: dict[str, list[Change]] = {group.name: [] for group in desired}
    for group in desired:
        by_name[group.name] += [decide_desired(m, group, snapshot, inputs) for m in group.manifests]
    for live in _orphans(snapshot, inputs, desired_keys):
        name = snapshot.apply_set.group_of(live)
        by_name.setdefault(name, []).append(decide_orphan(live, snapshot, inputs))
    return by_name


def _refusal(
    snapshot: Snapshot, inputs: PlanInputs, known_names: set[str], changes: Sequence[Change]
) -> PlanError | None:
    """Return the reason why this run must not change anything; None if there is no such reason."""
    before, apply_set = snapshot.parent or Parent.none(), snapshot.apply_set
    pending = frozenset(change.experiment for change in changes if change.action is not Action.KEEP)
    return (
        _unknown_name(known_names, inputs)
        or refuse_other_lab(before, apply_set, inputs, pending)
        or refuse_stale_commit(before, apply_set, inputs, pending)
        or refuse_former_namespace(snapshot.former, apply_set, inputs)
    )


def _assemble(
    snapshot: Snapshot,
    inputs: PlanInputs,
    *,
    experiments: tuple[ExperimentPlan, ...],
    stops: tuple[PruneBlocked, ...],
    refusal: PlanError | None,
    retired: tuple[Former, ...],
    scope: Scope,
) -> Plan:
    """Return the plan, including the records that the run writes to the parent."""
    before = snapshot.parent or Parent.none()
    broken = tuple(b for b in inputs.broken if inputs.policy.names is None or b.name in inputs.policy.names)
    file_errors = inputs.file_errors if inputs.policy.names is None else 0
    has_failed_change = any(change.error for experiment in experiments for change in experiment.changes)
    during, after = parent_records(
        before,
        scope,
        _changing(experiments, stops),
        inputs,
        failing=bool(refusal or broken or file_errors or has_failed_change),
        former=frozenset(former.apply_set.namespace for former in snapshot.former),
        moved=frozenset(former.apply_set.namespace for former in retired),
    )
    return Plan(
        apply_set=snapshot.apply_set,
        experiments=experiments,
        stops=stops,
        refusal=refusal,
        broken=broken,
        file_errors=file_errors,
        narrowed=inputs.policy.names is not None,
        commit=inputs.commit,
        create_namespace=not snapshot.namespace_exists,
        before=before,
        during=during,
        after=after,
        retired=retired,
        unchecked=snapshot.unchecked,
    )


def _changing(experiments: Iterable[ExperimentPlan], stops: Sequence[PruneBlocked]) -> frozenset[str]:
    """Return the experiments that the run changes."""
    withheld = {Action.KEEP, Action.PRUNE} if stops else {Action.KEEP}
    return frozenset(
        experiment.name
        for experiment in experiments
        if not experiment.held
        and any(change.error is None and change.action not in withheld for change in experiment.changes)
    )


def _hold_back(
    experiments: tuple[ExperimentPlan, ...], stops: Sequence[PruneBlocked]
) -> tuple[ExperimentPlan, ...]:
    """Mark new experiments as held while a prune of peers is withheld.

    A renamed experiment causes a prune under the old name and a create under the new name. Without the prune,
    its peers would run twice. An experiment that already exists is not held back, because an update does not
    add a second copy of its peers.
    """
    pruned = [change for plan in experiments for change in plan.changes if change.action is Action.PRUNE]
    if not stops or not any(resources_of(change.live).pods for change in pruned):
        return experiments
    return tuple(dataclasses.replace(experiment, held=_is_new(experiment)) for experiment in experiments)


def _is_new(experiment: ExperimentPlan) -> bool:
    """Return True if the experiment would add peers, and none of its objects exists yet."""
    desired = [change for change in experiment.changes if change.desired is not None]
    adds_peers = any(resources_of(change.desired).pods for change in desired)
    return adds_peers and all(change.action is Action.CREATE for change in desired)


def _orphans(snapshot: Snapshot, inputs: PlanInputs, desired_keys: frozenset[ObjectKey]) -> list[Manifest]:
    """Return the members of this run's experiments that no file specifies, in all namespaces of the lab.

    An object whose file is unreadable is not an orphan, because the file may still specify the object.
    """
    unreadable = {broken.name for broken in inputs.broken}
    in_former_sets = (item for former in snapshot.former for item in former.live.items())
    return [
        live
        for key, live in (*snapshot.live.items(), *in_former_sets)
        if key not in desired_keys and _is_in_run(live, snapshot.apply_set, unreadable, inputs.policy.names)
    ]


def _is_in_run(
    live: Manifest, apply_set: ApplySet, unreadable: set[str], names: frozenset[str] | None
) -> bool:
    """Return True if this run covers the object's experiment.

    If the run does not cover all experiments, or if a file is unreadable, nimlab must own the label that
    contains the experiment's name, because any user can change a label.
    """
    if not unreadable and names is None:
        return True
    name = apply_set.group_of(live)
    is_proven = has_applied_label(live, apply_set.group_label)
    return is_proven and name not in unreadable and (names is None or name in names)


def _experiment_plans(
    desired: Sequence[Desired], snapshot: Snapshot, desired_keys: frozenset[ObjectKey], by_name: _ByName
) -> tuple[ExperimentPlan, ...]:
    sources = {group.name: group.source for group in desired}
    occupied = _occupied_namespaces(
        snapshot, desired_keys, (c for changes in by_name.values() for c in changes)
    )
    return tuple(
        _experiment_plan(name, sources.get(name), _keep_namespaces(changes, occupied))
        for name, changes in sorted(by_name.items())
    )


def _experiment_plan(name: str, source: str | None, changes: list[Change]) -> ExperimentPlan:
    """Return the plan of one experiment, with its changes in the order of execution.

    Prunes come last, in the reverse of the apply order. All other changes come first, in apply order.
    """
    pruned = [c for c in changes if c.action is Action.PRUNE]
    applied = [c for c in changes if c.action is not Action.PRUNE]
    applied.sort(key=lambda c: apply_order(c.key))
    pruned.sort(key=lambda c: apply_order(c.key), reverse=True)
    added = Resources()
    for change in changes:
        if change.action is not Action.KEEP and change.error is None:
            added = added.plus(resources_of(change.desired).minus(resources_of(_occupant(change))))
    return ExperimentPlan(name=name, source=source, changes=(*applied, *pruned), added=added)


def _occupant(change: Change) -> Manifest | None:
    """Return the live object whose resources the change frees. A create frees no resources: None."""
    return None if change.action is Action.CREATE else change.live


def _occupied_namespaces(
    snapshot: Snapshot, desired_keys: frozenset[ObjectKey], changes: Iterable[Change]
) -> frozenset[str]:
    """Return the namespaces that will not be empty after the run.

    Objects of experiments that this run does not cover count too.
    """
    pruned = {change.key for change in changes if change.action is Action.PRUNE}
    in_former_sets = {key for former in snapshot.former for key in former.live}
    return frozenset(
        key.namespace for key in desired_keys | ((snapshot.live.keys() | in_former_sets) - pruned)
    )


def _keep_namespaces(changes: list[Change], occupied: frozenset[str]) -> list[Change]:
    """Replace the prune of each occupied namespace by the action KEEP."""
    reason = "left alone: it contains objects that are not pruned"
    return [
        dataclasses.replace(change, action=Action.KEEP, reason=reason)
        if change.action is Action.PRUNE and change.key.kind == "Namespace" and change.key.name in occupied
        else change
        for change in changes
    ]


def _retired(snapshot: Snapshot, changes: Sequence[Change]) -> tuple[Former, ...]:
    """Return the former sets that will have no members after this run.

    A set with a protected member is not returned, so the run does not delete its parent. Without the parent,
    later runs would not find the protected member.
    """
    pruned = {change.key for change in changes if change.action is Action.PRUNE}
    adopted = {change.key for change in changes if change.desired is not None}
    removed = pruned | adopted
    return tuple(
        former
        for former in snapshot.former
        if not any(
            key not in removed and _is_member(live, former.apply_set) for key, live in former.live.items()
        )
    )


def _is_member(live: Manifest, apply_set: ApplySet) -> bool:
    """Return True if the object has all proofs. An annotation that protects the object is ignored here."""
    annotations = {k: v for k, v in annotations_of(live).items() if k != PROTECT}
    unprotected = {**live, "metadata": {**live["metadata"], "annotations": annotations}}
    return not missing_proofs(unprotected, apply_set)


def _unknown_name(known_names: set[str], inputs: PlanInputs) -> PlanError | None:
    """Return the error for a requested experiment that is neither in the files nor in the cluster."""
    if inputs.policy.names is None:
        return None
    names = known_names | {broken.name for broken in inputs.broken}
    unknown = sorted(inputs.policy.names - names)
    if not unknown:
        return None
    hint = did_you_mean(unknown[0], names, "`nimlab list` lists all experiments")
    return PlanError(f"there is no experiment `{unknown[0]}` in the files or in the cluster", hint=hint)


def _scope(
    snapshot: Snapshot, desired_keys: frozenset[ObjectKey], changes: Sequence[Change], *, narrowed: bool
) -> Scope:
    """Return the kinds and namespaces that the set's members will have after the run."""
    pruned = {change.key for change in changes if change.action is Action.PRUNE}
    keys = desired_keys | {key for key in snapshot.live if key not in pruned}
    lab_namespace = Scope(kinds=frozenset(), namespaces=frozenset({snapshot.apply_set.namespace}))
    scope = Scope.of(keys).union(lab_namespace)
    return scope.union(snapshot.parent.scope) if narrowed and snapshot.parent else scope
