"""Desired + Snapshot -> the ordered changes that make the cluster equal to the files.

In: what each experiment should be, what the cluster is, and what this run may do. Out: a `Plan` that says
everything that will happen, and everything that is withheld and why. Nothing here reads or writes a cluster,
a file or a clock; the same arguments give the same plan.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nimlab.did_you_mean import did_you_mean
from nimlab.errors import PlanError
from nimlab.files.git import Commit
from nimlab.files.spec import Broken
from nimlab.objects.applyset import PROTECT, ApplySet
from nimlab.objects.applyset_parent import Parent, Scope
from nimlab.objects.manifest import Manifest, ObjectKey, annotations_of, apply_order, key_of
from nimlab.objects.prune_proofs import has_applied_label, missing_proofs
from nimlab.plan.change import Action, Change
from nimlab.plan.commit_order import records_of, refuse_other_lab, refuse_stale, refuse_unmoved
from nimlab.plan.decide import decide_desired, decide_orphan
from nimlab.plan.prune_limits import PruneBlocked, _stops
from nimlab.plan.snapshot import Desired, Former, Snapshot
from nimlab.plan.sync_policy import PlanInputs
from nimlab.plan.workload import Resources, resources_of

__all__ = ["Action", "Change", "ExperimentPlan", "Plan", "PruneBlocked", "Resources", "make_plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentPlan:
    """The changes of one experiment, in the order in which they are made, and what they cost.

    `source` is its file, None when there is none any more; `added` may be negative. With `held`, the
    experiment is new and is not created: its peers would run beside peers whose prune is withheld.
    """

    name: str
    source: str | None
    changes: tuple[Change, ...]
    added: Resources
    held: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that a sync will do.

    `stops` withhold the prunes; `refusal` withholds everything. `before` is what the parent records, `during`
    what it has to record before anything is written, `after` what it may once everything was done.
    `file_errors` counts errors of files, also of those that concern no experiment. `experiments` are sorted
    by name. `retired` are the lab's sets in former namespaces, which the run deletes last because nothing of
    them is left; `unchecked` are namespaces that may hold one and could not be read.
    """

    apply_set: ApplySet
    experiments: tuple[ExperimentPlan, ...]
    stops: tuple[PruneBlocked, ...]
    refusal: PlanError | None
    broken: tuple[Broken, ...]
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
        """The commit that was synced last, None where the parent names none."""
        return self.before.commit

    @property
    def changes(self) -> tuple[Change, ...]:
        """All changes, in the experiments' order."""
        return tuple(change for experiment in self.experiments for change in experiment.changes)

    def count(self, action: Action) -> int:
        """Return how many objects have this action."""
        return sum(change.action is action for change in self.changes)

    @property
    def held(self) -> tuple[str, ...]:
        """The new experiments that are not created while prunes are withheld."""
        return tuple(one.name for one in self.experiments if one.held)

    @property
    def is_empty(self) -> bool:
        """True when a sync would have nothing to do and nothing to complain of."""
        return (
            all(not c.is_pending and c.error is None for c in self.changes)
            and self.refusal is None
            and not self.retired
            and not self.broken
            and not self.file_errors
        )


def make_plan(desired: Sequence[Desired], snapshot: Snapshot, inputs: PlanInputs) -> Plan:
    """Return what a sync will do. Pure; raises nothing."""
    wanted = {key_of(m) for group in desired for m in group.manifests}
    by_name: dict[str, list[Change]] = {group.name: [] for group in desired}
    for group in desired:
        by_name[group.name] += [decide_desired(m, group, snapshot, inputs) for m in group.manifests]
    for live in _orphans(snapshot, inputs, wanted):
        by_name.setdefault(snapshot.apply_set.group_of(live), []).append(
            decide_orphan(live, snapshot, inputs)
        )
    retired = _retired(snapshot, [change for changes in by_name.values() for change in changes])
    sources = {group.name: group.source for group in desired}
    staying = _staying(snapshot, wanted, (c for changes in by_name.values() for c in changes))
    experiments = tuple(
        _experiment_plan(name, sources.get(name), _spare_namespaces(changes, staying))
        for name, changes in sorted(by_name.items())
    )
    changes = [change for one in experiments for change in one.changes]
    known = {*by_name, *map(snapshot.apply_set.group_of, snapshot.live.values())}
    before = snapshot.parent or Parent.none()
    pending = frozenset(change.experiment for change in changes if change.action is not Action.KEEP)
    refusal = (
        _unknown_name(known, inputs)
        or refuse_other_lab(before, snapshot.apply_set, inputs, pending)
        or refuse_stale(before, snapshot.apply_set, inputs, pending)
        or refuse_unmoved(snapshot.former, snapshot.apply_set, inputs)
    )
    scope = _scope(snapshot, wanted, changes, narrowed=inputs.policy.names is not None)
    broken = tuple(b for b in inputs.broken if inputs.policy.names is None or b.name in inputs.policy.names)
    file_errors = inputs.file_errors if inputs.policy.names is None else 0
    failing = bool(refusal or broken or file_errors or any(change.error for change in changes))
    stops = _stops(changes, desired, snapshot, inputs, wanted)
    experiments = _hold_back(experiments, stops)
    changing = frozenset(
        one.name
        for one in experiments
        for c in one.changes
        if c.error is None and c.action is not Action.KEEP and not (stops and c.action is Action.PRUNE)
        if not one.held
    )
    during, after = records_of(
        before,
        scope,
        changing,
        inputs,
        failing=failing,
        former=frozenset(one.apply_set.namespace for one in snapshot.former),
        moved=frozenset(one.apply_set.namespace for one in retired),
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


def _hold_back(
    experiments: tuple[ExperimentPlan, ...], stops: tuple[PruneBlocked, ...]
) -> tuple[ExperimentPlan, ...]:
    """Mark the new experiments whose peers would run beside peers whose prune is withheld.

    A renamed experiment is a prune and a create: without its prune, the same peers would run twice. A changed
    experiment isn't held back, since its file is the only one that describes its peers.
    """
    pruned = [c for one in experiments for c in one.changes if c.action is Action.PRUNE]
    if not stops or not any(resources_of(change.live).pods for change in pruned):
        return experiments
    return tuple(dataclasses.replace(one, held=_is_new(one)) for one in experiments)


def _is_new(one: ExperimentPlan) -> bool:
    """True if nothing of the experiment exists yet and it would add peers."""
    wanted = [change for change in one.changes if change.desired is not None]
    adds_peers = any(resources_of(change.desired).pods for change in wanted)
    return adds_peers and all(change.action is Action.CREATE for change in wanted)


def _orphans(snapshot: Snapshot, inputs: PlanInputs, wanted: set[ObjectKey]) -> list[Manifest]:
    """Return members that no file asks for, of the experiments in this run, in former namespaces as well.

    An object of a file that can't be read is no orphan: the file may ask for it.
    """
    unreadable = {broken.name for broken in inputs.broken}
    former = (item for one in snapshot.former for item in one.live.items())
    return [
        live
        for key, live in (*snapshot.live.items(), *former)
        if key not in wanted and _is_meant(live, snapshot.apply_set, unreadable, inputs.policy.names)
    ]


def _is_meant(
    live: Manifest, apply_set: ApplySet, unreadable: set[str], names: frozenset[str] | None
) -> bool:
    """True when this run is about the object's experiment.

    Where that matters the label has to be our own word: anybody may change it.
    """
    if not unreadable and names is None:
        return True
    name = apply_set.group_of(live)
    is_sure = has_applied_label(live, apply_set.group_label)
    return is_sure and name not in unreadable and (names is None or name in names)


def _experiment_plan(name: str, source: str | None, changes: list[Change]) -> ExperimentPlan:
    """Order the changes: applied in apply order, then pruned in the reverse."""
    pruned = [c for c in changes if c.action is Action.PRUNE]
    applied = [c for c in changes if c.action is not Action.PRUNE]
    applied.sort(key=lambda c: apply_order(c.key))
    pruned.sort(key=lambda c: apply_order(c.key), reverse=True)
    added = Resources()
    for change in changes:
        if change.action is not Action.KEEP and change.error is None:
            added = added.plus(resources_of(change.desired).minus(resources_of(_standing(change))))
    return ExperimentPlan(name=name, source=source, changes=(*applied, *pruned), added=added)


def _standing(change: Change) -> Manifest | None:
    """What already takes resources; an object on its way out is as good as gone."""
    return None if change.action is Action.CREATE else change.live


def _staying(snapshot: Snapshot, wanted: set[ObjectKey], changes: Iterable[Change]) -> frozenset[str]:
    """Namespaces in which something stays, whichever experiment it is of, and be this run about it or not."""
    pruned = {change.key for change in changes if change.action is Action.PRUNE}
    former = {key for one in snapshot.former for key in one.live}
    return frozenset(key.namespace for key in wanted | ((snapshot.live.keys() | former) - pruned))


def _retired(snapshot: Snapshot, changes: Sequence[Change]) -> tuple[Former, ...]:
    """Return the former sets that have no member left after this run.

    A protected member stays, and its set's parent with it, so that no later run forgets the object.
    """
    pruned = {change.key for change in changes if change.action is Action.PRUNE}
    adopted = {change.key for change in changes if change.desired is not None}
    return tuple(
        one
        for one in snapshot.former
        if not any(
            key not in pruned | adopted and _stays_ours(live, one.apply_set) for key, live in one.live.items()
        )
    )


def _stays_ours(live: Manifest, apply_set: ApplySet) -> bool:
    """Return True for a member with all proofs, whatever its annotation for protection says."""
    annotations = {k: v for k, v in annotations_of(live).items() if k != PROTECT}
    bare = {**live, "metadata": {**live["metadata"], "annotations": annotations}}
    return not missing_proofs(bare, apply_set)


def _spare_namespaces(changes: list[Change], staying: frozenset[str]) -> list[Change]:
    """Keep a namespace in which something stays."""
    return [
        dataclasses.replace(change, action=Action.KEEP, reason="left alone: something in it is not pruned")
        if change.action is Action.PRUNE and change.key.kind == "Namespace" and change.key.name in staying
        else change
        for change in changes
    ]


def _unknown_name(known: set[str], inputs: PlanInputs) -> PlanError | None:
    if inputs.policy.names is None:
        return None
    names = known | {broken.name for broken in inputs.broken}
    missing = sorted(inputs.policy.names - names)
    if not missing:
        return None
    hint = did_you_mean(missing[0], names, "`nimlab list` shows what there is")
    return PlanError(f"no experiment is called `{missing[0]}`, in the files or in the cluster", hint=hint)


def _scope(snapshot: Snapshot, wanted: set[ObjectKey], changes: Sequence[Change], *, narrowed: bool) -> Scope:
    """Kinds and namespaces of every member that will be there after the run."""
    pruned = {change.key for change in changes if change.action is Action.PRUNE}
    keys = wanted | {key for key in snapshot.live if key not in pruned}
    home = Scope(kinds=frozenset(), namespaces=frozenset({snapshot.apply_set.namespace}))
    scope = Scope.of(keys).union(home)
    return scope.union(snapshot.parent.scope) if narrowed and snapshot.parent else scope
