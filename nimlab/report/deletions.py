"""A plan -> what it deletes, in words that nobody overlooks.

In: a plan. Out: a value for each experiment that loses objects, and one for each that gets some anew. The
reports for GitLab put these first, and all of them say it alike.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from nimlab.plan.change import Action
from nimlab.plan.make_plan import ExperimentPlan, Plan
from nimlab.plan.workload import Resources
from nimlab.report.styled_text import count
from nimlab.report.totals import blocked_experiments


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """Objects of one experiment that are deleted.

    `part` is the experiment's plan with nothing else in it. `remade` says that they are made anew, `withheld`
    that this sync leaves them where they are.
    """

    part: ExperimentPlan
    remade: bool
    withheld: bool

    @property
    def planned(self) -> str:
        """What a sync would do: `blue: WOULD DELETE 4 objects`."""
        verb = "DELETE AND REMAKE" if self.remade else "DELETE"
        withheld = ", WITHHELD" if self.withheld else ""
        return f"{self._name}: WOULD {verb} {count(len(self.part.changes), 'object')}{withheld}"

    def carried_out(self, done: int) -> str:
        """What a sync has done: `blue: DELETED 4 objects`."""
        verb = "DELETED AND REMADE" if self.remade else "DELETED"
        objects = count(len(self.part.changes), "object")
        if not done:
            return f"{self._name}: NOT {verb}: {objects}"
        return f"{self._name}: {verb} {f'{done} of ' if done < len(self.part.changes) else ''}{objects}"

    @property
    def _name(self) -> str:
        return self.part.name or "(none)"


def deletions_of(plan: Plan) -> list[Deletion]:
    """Return what is deleted, in the experiments' order."""
    blocked = blocked_experiments(plan)
    found: list[Deletion] = []
    for one in plan.experiments:
        pruned = _part(one, Action.PRUNE)
        if pruned.changes:
            found.append(Deletion(part=pruned, remade=False, withheld=bool(plan.stops or plan.refusal)))
        remade = _part(one, Action.REPLACE)
        if remade.changes and plan.refusal is None and one.name not in blocked:
            found.append(Deletion(part=remade, remade=True, withheld=False))
    return found


def is_gone(one: ExperimentPlan) -> bool:
    """Return True for an experiment of which a sync leaves nothing: there is no more to say of it."""
    return one.source is None and all(change.action is Action.PRUNE for change in one.changes)


def _part(one: ExperimentPlan, action: Action) -> ExperimentPlan:
    """What the plan does so; what it costs belongs to the whole."""
    changes = tuple(change for change in one.changes if change.action is action)
    return replace(one, changes=changes, added=one.added if len(changes) == len(one.changes) else Resources())
