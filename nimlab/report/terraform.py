"""A plan -> GitLab's Terraform report: the numbers that the merge request's widget shows.

In: a plan. Out: JSON text with three counts. A replacement counts twice, as it does where GitLab makes this
report from Terraform's own plan: once as created, once as deleted.
"""

from __future__ import annotations

import json

from nimlab.plan.make_plan import Plan
from nimlab.report.totals import totals_of


def terraform_json(plan: Plan) -> str:
    """Return how many objects a sync of this plan creates, updates and deletes.

    What is blocked or withheld isn't done and doesn't count.
    """
    sums = totals_of(plan)
    return json.dumps(
        {
            "create": sums.create + sums.replace,
            "update": sums.update,
            "delete": sums.prune + sums.replace,
        }
    )
