"""A plan -> its totals: how many objects a sync creates, updates, replaces and prunes.

In: a plan. Out: counts. All texts and reports take their counts from here, so they agree. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nimlab.plan.change import Action, Change
from nimlab.plan.make_plan import Plan
from nimlab.plan.resource_requests import Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanTotals:
    """The number of objects in each class; each object counts once.

    `blocked` objects would be created, updated or replaced, but the plan is refused, or they or another
    object of their experiment have an error. `withheld` objects would be pruned, but this sync prunes
    nothing. `held` objects would be created, but a new experiment is not created while prunes are
    withheld.
    """

    create: int
    update: int
    replace: int
    prune: int
    keep: int
    blocked: int
    withheld: int
    held: int


def blocked_experiments(plan: Plan) -> frozenset[str]:
    """Return the experiments that are not applied at all, because one of their objects has an error."""
    return frozenset(change.experiment for change in plan.changes if change.error is not None)


def withholds_prunes(plan: Plan) -> bool:
    """Return True if a sync of this plan prunes nothing, even if it contains prunes."""
    return bool(plan.stops or plan.refusal)


def totals_of(plan: Plan) -> PlanTotals:
    """Return the number of objects in each class."""
    blocked = blocked_experiments(plan)
    held = frozenset(plan.held)
    classes = [_class(change, plan, blocked, held) for change in plan.changes]
    names = ("create", "update", "replace", "prune", "keep", "blocked", "withheld", "held")
    return PlanTotals(**{name: classes.count(name) for name in names})


def _class(change: Change, plan: Plan, blocked: frozenset[str], held: frozenset[str]) -> str:
    if change.action is Action.PRUNE:
        return "withheld" if withholds_prunes(plan) else "prune"
    if change.error is not None:
        return "blocked"
    if change.action is not Action.KEEP and (plan.refusal or change.experiment in blocked):
        return "blocked"
    if change.experiment in held and change.action is Action.CREATE:
        return "held"
    return str(change.action.value)


def sum_resources(parts: Iterable[Resources]) -> Resources:
    """Return the sum of several resource requests."""
    pods = cpu_m = memory_bytes = 0
    for part in parts:
        pods += part.pods
        cpu_m += part.cpu_m
        memory_bytes += part.memory_bytes
    return Resources(pods=pods, cpu_m=cpu_m, memory_bytes=memory_bytes)
