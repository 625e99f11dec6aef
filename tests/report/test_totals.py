"""The totals of a plan."""

from __future__ import annotations

import json
from dataclasses import replace

from nimlab.errors import (
    PlanError,
)
from nimlab.plan.make_plan import Plan
from tests.support.plans import (
    engineer_plan,
    newcomer_plan,
    plan,
    plan_json,
    wrong_plan,
)


def every_plan() -> list[Plan]:
    return [newcomer_plan(), engineer_plan(), wrong_plan(), plan()]


def test_each_object_counts_once() -> None:
    for planned in every_plan():
        for refusal in (None, PlanError("no")):
            document = json.loads(plan_json(replace(planned, refusal=refusal)))
            assert sum(document["summary"].values()) == len(planned.changes)
