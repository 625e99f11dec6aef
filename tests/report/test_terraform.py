"""The three counts in GitLab's Terraform report."""

from __future__ import annotations

from dataclasses import replace

from nimlab.report.totals import totals_of
from tests.support.gitlab_reports import (
    STALE,
    counts,
    every_plan,
    replaced_plan,
    withheld_plan,
)
from tests.support.plans import (
    engineer_plan,
    newcomer_plan,
    wrong_plan,
)


def test_replacement_counts_twice() -> None:
    for planned in every_plan():
        sums = totals_of(planned)
        assert counts(planned) == {
            "create": sums.create + sums.replace,
            "update": sums.update,
            "delete": sums.prune + sums.replace,
        }
    assert counts(newcomer_plan()) == {"create": 8, "update": 0, "delete": 0}
    assert counts(engineer_plan()) == {"create": 0, "update": 1, "delete": 4}
    assert counts(replaced_plan()) == {"create": 1, "update": 0, "delete": 1}


def test_blocked_and_withheld_objects_do_not_count() -> None:
    assert counts(withheld_plan()) == {"create": 0, "update": 1, "delete": 0}
    assert counts(wrong_plan()) == {"create": 8, "update": 0, "delete": 0}
    assert counts(replace(engineer_plan(), refusal=STALE)) == {"create": 0, "update": 0, "delete": 0}
