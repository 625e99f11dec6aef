"""A plan -> its deletions; each deletion has a headline such as `blue: WOULD DELETE 4 objects`.

In: a plan. Out: one `Deletion` per experiment that loses objects, and one `Deletion` per experiment whose
objects are recreated. The JUnit and Code Quality reports list the deletions first, under these headlines.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from nimlab.plan.change import Action
from nimlab.plan.make_plan import ExperimentPlan, Plan
from nimlab.plan.resource_requests import Resources
from nimlab.report.styled_text import count, shown_name
from nimlab.report.totals import blocked_experiments, withholds_prunes


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """Objects of one experiment that are deleted.

    `part` is the experiment's plan, reduced to these objects. If `recreated` is set, the sync creates them
    again. If `withheld` is set, the sync does not delete them.
    """

    part: ExperimentPlan
    recreated: bool
    withheld: bool

    @property
    def planned(self) -> str:
        """The headline for a plan: `blue: WOULD DELETE 4 objects`."""
        verb = "DELETE AND RECREATE" if self.recreated else "DELETE"
        withheld = ", WITHHELD" if self.withheld else ""
        return f"{self._name}: WOULD {verb} {count(len(self.part.changes), 'object')}{withheld}"

    def carried_out(self, done: int) -> str:
        """Return the headline after the sync: `blue: DELETED 4 objects`.

        `done` is the number of objects that the sync has deleted.
        """
        verb = "DELETED AND RECREATED" if self.recreated else "DELETED"
        objects = count(len(self.part.changes), "object")
        if not done:
            return f"{self._name}: NOT {verb}: {objects}"
        return f"{self._name}: {verb} {f'{done} of ' if done < len(self.part.changes) else ''}{objects}"

    @property
    def _name(self) -> str:
        return shown_name(self.part.name)


def deletions_of(plan: Plan) -> list[Deletion]:
    """Return the deletions of a plan, in the order of its experiments."""
    blocked = blocked_experiments(plan)
    deletions: list[Deletion] = []
    for experiment in plan.experiments:
        pruned = _part(experiment, Action.PRUNE)
        if pruned.changes:
            deletions.append(Deletion(part=pruned, recreated=False, withheld=withholds_prunes(plan)))
        replaced = _part(experiment, Action.REPLACE)
        if replaced.changes and plan.refusal is None and experiment.name not in blocked:
            deletions.append(Deletion(part=replaced, recreated=True, withheld=False))
    return deletions


def is_only_deleted(experiment: ExperimentPlan) -> bool:
    """Return True if the experiment has no file, and all its objects are pruned."""
    return experiment.source is None and all(c.action is Action.PRUNE for c in experiment.changes)


def _part(experiment: ExperimentPlan, action: Action) -> ExperimentPlan:
    """Return the experiment's plan with the changes of one action.

    `added` is kept only if the experiment has no other changes.
    """
    changes = tuple(change for change in experiment.changes if change.action is action)
    is_complete = len(changes) == len(experiment.changes)
    return replace(experiment, changes=changes, added=experiment.added if is_complete else Resources())
