"""Golden files of the GitLab reports: they match their schemas, and junitparser reads the same cases.

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
from tests.support.golden import GOLDEN, assert_golden
from tests.support.paths import REPOSITORY
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
    planned = engineer_plan()
    return reports_of(planned, [*events_of(planned), SETTLED])


def unchanged() -> dict[str, str]:
    planned = plan(experiment("purple", *all_objects(Action.KEEP, "purple")))
    return reports_of(planned, [replace(SETTLED, after_s=0.0)])


def wrong() -> dict[str, str]:
    """Return reports with each kind of failure, and with the prunes that the failures withhold."""
    planned = wrong_plan()
    events = events_of(planned, red=Outcome.FAILED, blue=Outcome.NOT_ATTEMPTED)
    return reports_of(planned, [*events, replace(STUCK, experiment="green")])


def withheld() -> dict[str, str]:
    planned = withheld_plan()
    return reports_of(planned, events_of(planned, blue=Outcome.NOT_ATTEMPTED), [SpecError((RED_PROBLEM,))])


def refused() -> dict[str, str]:
    return reports_of(replace(engineer_plan(), refusal=STALE), ())


def replaced() -> dict[str, str]:
    planned = replaced_plan()
    return reports_of(planned, events_of(planned))


BUILDERS: Mapping[str, Callable[[], dict[str, str]]] = {
    "engineer": engineer, "refused": refused, "replaced": replaced, "unchanged": unchanged,
    "withheld": withheld, "wrong": wrong,
}  # fmt: skip


def golden_cases() -> list[str]:
    """Return the names of all folders and builders; a test fails if a folder or a builder is missing."""
    folders = {path.name for path in REPORTS.iterdir() if path.is_dir()} if REPORTS.is_dir() else set()
    return sorted(folders | set(BUILDERS))


@pytest.mark.parametrize("case", golden_cases())
def test_golden(case: str, *, update_golden: bool) -> None:
    folder = REPORTS / case
    folder.mkdir(parents=True, exist_ok=True)
    planned = BUILDERS[case]()
    for name, text in planned.items():
        assert_golden(folder / name, text + "\n", update=update_golden)
    assert {path.name for path in folder.iterdir()} == set(planned)


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
        document = junitparser.JUnitXml.fromstring(text.encode())
        assert isinstance(document, junitparser.JUnitXml)
        (suite,) = list(document)
        kinds = Counter(type(result) for entry in suite for result in entry.result)
        expected = (len(suite), *(kinds[kind] for kind in (junitparser.Failure, junitparser.Error)))
        assert (document.tests, document.failures, document.errors) == expected
        assert (suite.tests, suite.failures, suite.errors) == expected
        assert suite.skipped == kinds[junitparser.Skipped]
        assert document.time == suite.time == sum(entry.time for entry in suite)
        words = {junitparser.Failure: "failed", junitparser.Error: "error", junitparser.Skipped: "skipped"}
        read = [
            (
                entry.classname,
                entry.name,
                *next(((words[type(r)], r.text) for r in entry.result), ("success", "")),
            )
            for entry in suite
        ]
        assert read == [(c.class_name, c.name, c.status, c.output) for c in junit_cases(text)]


def test_every_code_and_severity_is_documented() -> None:
    words = {finding["check_name"] for planned in every_plan() for finding in findings(plan=planned)}
    words |= {finding["severity"] for planned in every_plan() for finding in findings(plan=planned)}
    runs = [events_of(planned, purple=Outcome.NOT_ATTEMPTED) for planned in every_plan()]
    texts = [report.junit_xml(planned, None, removed_in={}) for planned in every_plan()]
    texts += [
        report.junit_xml(planned, [*events, *extra], removed_in={})
        for planned, events in zip(every_plan(), runs, strict=True)
        for extra in ((), (STUCK,))
    ]
    words |= {word for text in texts for word in re.findall(r' type="(nimlab\.[^"]*)"', text)}
    errors = {"field-conflict", "immutable-field", "plan"}  # described in docs/problems.md
    stops = {f"{kind}{code}" for kind in ("nothing-pruned-", "nimlab.") for code in ("limit", "blocked")}
    known = errors | stops | {f"nimlab.{code}" for code in errors}
    assert {word for word in words - known if f"`{word}`" not in DOCUMENTATION} == set()
