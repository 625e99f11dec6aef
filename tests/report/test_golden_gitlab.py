"""Golden files of the GitLab reports: valid by schema, and read the same by another program.

A case is a folder in `golden/reports`. The function with the name of the case builds its contents.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

import jsonschema
import junitparser
import pytest

from nimlab import report
from nimlab.errors import (
    SpecError,
)
from nimlab.plan.change import Action
from nimlab.plan.sync_events import (
    Outcome,
)
from tests.golden_files import GOLDEN, assert_golden
from tests.live import REPOSITORY
from tests.support.gitlab_reports import (
    CODE_QUALITY,
    RED_PROBLEM,
    SETTLED,
    STALE,
    STUCK,
    TERRAFORM,
    events_of,
    every_plan,
    findings,
    junit_cases,
    replaced_plan,
    reports_of,
    withheld_plan,
)
from tests.support.plans import (
    all_objects,
    engineer_plan,
    experiment,
    plan,
    wrong_plan,
)

REPORTS = GOLDEN / "reports"


DOCUMENTATION = (REPOSITORY / "docs" / "gitlab-reports.md").read_text(encoding="utf-8")


def engineer() -> dict[str, str]:
    made = engineer_plan()
    return reports_of(made, [*events_of(made), SETTLED])


def unchanged() -> dict[str, str]:
    made = plan(experiment("purple", *all_objects(Action.KEEP, "purple")))
    return reports_of(made, [replace(SETTLED, after_s=0.0)])


def wrong() -> dict[str, str]:
    """Blocked, failed, not attempted, not ready, and prunes that don't happen for it."""
    made = wrong_plan()
    events = events_of(made, red=Outcome.FAILED, blue=Outcome.NOT_ATTEMPTED)
    return reports_of(made, [*events, replace(STUCK, experiment="green")])


def withheld() -> dict[str, str]:
    made = withheld_plan()
    return reports_of(made, events_of(made, blue=Outcome.NOT_ATTEMPTED), [SpecError((RED_PROBLEM,))])


def refused() -> dict[str, str]:
    return reports_of(replace(engineer_plan(), refusal=STALE), ())


def replaced() -> dict[str, str]:
    made = replaced_plan()
    return reports_of(made, events_of(made))


BUILDERS: Mapping[str, Callable[[], dict[str, str]]] = {
    "engineer": engineer, "refused": refused, "replaced": replaced, "unchanged": unchanged,
    "withheld": withheld, "wrong": wrong,
}  # fmt: skip


def golden_cases() -> list[str]:
    """The folders found, and the builders: one without the other is an error."""
    found = {path.name for path in REPORTS.iterdir() if path.is_dir()} if REPORTS.is_dir() else set()
    return sorted(found | set(BUILDERS))


@pytest.mark.parametrize("case", golden_cases())
def test_golden(case: str, *, update_golden: bool) -> None:
    folder = REPORTS / case
    folder.mkdir(parents=True, exist_ok=True)
    made = BUILDERS[case]()
    for name, text in made.items():
        assert_golden(folder / name, text + "\n", update=update_golden)
    assert {path.name for path in folder.iterdir()} == set(made)


@pytest.mark.parametrize("case", golden_cases())
def test_reports_fit_their_schemas(case: str) -> None:
    for name, text in BUILDERS[case]().items():
        if name.endswith(".xml"):
            assert junit_cases(text)
        else:
            jsonschema.validate(json.loads(text), TERRAFORM if name == "terraform.json" else CODE_QUALITY)


@pytest.mark.parametrize("case", golden_cases())
def test_junitparser_reads_the_same_cases(case: str) -> None:
    for name, text in BUILDERS[case]().items():
        if not name.endswith(".xml"):
            continue
        found = junitparser.JUnitXml.fromstring(text.encode())
        assert isinstance(found, junitparser.JUnitXml)
        (suite,) = list(found)
        kinds = Counter(type(result) for one in suite for result in one.result)
        said = (len(suite), *(kinds[kind] for kind in (junitparser.Failure, junitparser.Error)))
        assert (found.tests, found.failures, found.errors) == said
        assert (suite.tests, suite.failures, suite.errors) == said
        assert suite.skipped == kinds[junitparser.Skipped]
        assert found.time == suite.time == sum(one.time for one in suite)
        words = {junitparser.Failure: "failed", junitparser.Error: "error", junitparser.Skipped: "skipped"}
        read = [
            (one.classname, one.name, *next(((words[type(r)], r.text) for r in one.result), ("success", "")))
            for one in suite
        ]
        assert read == [(c.class_name, c.name, c.status, c.output) for c in junit_cases(text)]


def test_every_code_and_severity_is_documented() -> None:
    words = {finding["check_name"] for made in every_plan() for finding in findings(plan=made)}
    words |= {finding["severity"] for made in every_plan() for finding in findings(plan=made)}
    runs = [events_of(made, purple=Outcome.NOT_ATTEMPTED) for made in every_plan()]
    texts = [report.junit_xml(made, None, removed_in={}) for made in every_plan()]
    texts += [
        report.junit_xml(made, [*events, *extra], removed_in={})
        for made, events in zip(every_plan(), runs, strict=True)
        for extra in ((), (STUCK,))
    ]
    words |= {word for text in texts for word in re.findall(r' type="(nimlab\.[^"]*)"', text)}
    errors = {"field-conflict", "immutable-field", "plan"}  # in docs/problems.md
    stops = {f"{kind}{code}" for kind in ("nothing-pruned-", "nimlab.") for code in ("limit", "blocked")}
    known = errors | stops | {f"nimlab.{code}" for code in errors}
    assert {word for word in words - known if f"`{word}`" not in DOCUMENTATION} == set()
