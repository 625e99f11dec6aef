"""A plan -> the Terraform report, whose counts GitLab shows in the widget of the merge request.

In: a plan. Out: JSON text with three counts. A replacement counts as one create and one delete, as in the
report that GitLab makes from Terraform's own plan.
"""

from __future__ import annotations

import json

from nimlab.plan.make_plan import Plan
from nimlab.report.totals import totals_of


def terraform_json(plan: Plan) -> str:
    """Return how many objects a sync of this plan creates, updates and deletes.

    Blocked and withheld objects do not count, because the sync does not change them.
    """
    totals = totals_of(plan)
    return json.dumps(
        {
            "create": totals.create + totals.replace,
            "update": totals.update,
            "delete": totals.prune + totals.replace,
        }
    )
