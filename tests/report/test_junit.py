"""GitLab's unit test report: names, statuses and contents of its cases."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import pytest

from nimlab import report
from nimlab.errors import (
    RenderError,
    SpecError,
)
from nimlab.files.spec import (
    BrokenFile,
    OnImmutableChange,
)
from nimlab.plan.change import Action
from nimlab.plan.make_plan import Plan
from nimlab.plan.sync_events import (
    Event,
    ObjectDone,
    Outcome,
)
from tests.support.gitlab_reports import (
    HALFWAY,
    QUOTA,
    RED,
    RED_PROBLEM,
    SETTLED,
    STALE,
    STUCK,
    events_of,
    findings,
    junit_cases,
    places,
    plan_cases,
    replacing,
    run_cases,
)
from tests.support.plans import (
    CONFLICT,
    SCALE,
    all_objects,
    change,
    engineer_plan,
    experiment,
    plan,
    problem,
)


def test_refusal_has_the_highest_severity() -> None:
    planned = replace(engineer_plan(), refusal=STALE)
    for found_cases in (plan_cases(planned), run_cases(planned, ())):
        by_name = {case.name: case for case in found_cases}
        assert by_name["NOTHING IS DONE"].status == "error"
        assert STALE.what in by_name["NOTHING IS DONE"].output
        assert by_name["purple"].status == "skipped"
        assert f"nothing is done: {STALE.what}" in by_name["purple"].output
        assert by_name["red"].status == "success", "it has no changes"
    (finding,) = [finding for finding in findings(plan=planned) if finding["severity"] == "blocker"]
    assert (finding["check_name"], places([finding])) == ("plan", [("lab.yaml", 1)])


CHANGING = plan(experiment("purple", SCALE, pods=2))


BLOCKED = plan(experiment("purple", replace(SCALE, error=CONFLICT)))


PRUNING = plan(experiment("purple", *all_objects(Action.PRUNE, "purple"), without_file=True))


@pytest.mark.parametrize(
    ("planned", "events", "status", "reason"),
    [
        (CHANGING, None, "success", ""),
        (BLOCKED, None, "failed", "spec.replicas is owned by `hpa-controller`"),
        (CHANGING, events_of(CHANGING), "success", ""),
        (CHANGING, [*events_of(CHANGING), SETTLED], "success", ""),
        (CHANGING, [*events_of(CHANGING), HALFWAY, SETTLED], "success", ""),
        (CHANGING, [*events_of(CHANGING), HALFWAY], "failed", "waiting: 3 of 5 peers running"),
        (CHANGING, [*events_of(CHANGING), STUCK], "failed", "pod p-3: ImagePullBackOff, no such image"),
        (CHANGING, events_of(CHANGING, purple=Outcome.FAILED), "error", "exceeded quota: pods used 9"),
        (CHANGING, [*events_of(CHANGING, purple=Outcome.FAILED), STUCK], "error", "exceeded quota"),
        (CHANGING, events_of(CHANGING, purple=Outcome.NOT_ATTEMPTED), "skipped", "not attempted"),
        (CHANGING, (), "skipped", "not attempted"),
        (CHANGING, [STUCK], "failed", "ImagePullBackOff"),
        (BLOCKED, events_of(BLOCKED), "failed", "spec.replicas is owned by `hpa-controller`"),
        (BLOCKED, (), "failed", "spec.replicas is owned by `hpa-controller`"),
        (PRUNING, events_of(PRUNING), "success", ""),
        (PRUNING, events_of(PRUNING, purple=Outcome.FAILED), "error", "exceeded quota"),
        (PRUNING, events_of(PRUNING, purple=Outcome.NOT_ATTEMPTED), "skipped", "not attempted"),
        (
            PRUNING,
            [*events_of(PRUNING), replace(HALFWAY, wanted=0, leaving=2)],
            "failed",
            "2 peers left to delete",
        ),
    ],
)
def test_each_result_has_its_status_and_reason(
    planned: Plan, events: Sequence[Event] | None, status: str, reason: str
) -> None:
    (case,) = junit_cases(report.junit_xml(planned, events, removed_in={}))
    assert case.status == status
    assert reason in case.output
    assert bool(case.output) == (status != "success")


def test_failed_change_takes_precedence_over_a_blocked_one() -> None:
    both = (replace(SCALE, error=CONFLICT), change(Action.UPDATE, "Service", "purple"))
    planned = plan(experiment("purple", *both))
    (case,) = run_cases(planned, events_of(planned, purple=Outcome.FAILED))
    assert case.status == "error"
    assert QUOTA.what.split("\n")[0] in case.output
    assert CONFLICT.what in case.output


def test_change_not_attempted_because_of_an_error_shows_the_error() -> None:
    event = ObjectDone(experiment="purple", key=SCALE.key, outcome=Outcome.NOT_ATTEMPTED, error=QUOTA)
    (case,) = run_cases(CHANGING, [event])
    assert (case.status, "error[rejected]: exceeded quota" in case.output) == ("skipped", True)


def test_failure_without_an_error_is_reported() -> None:
    event = ObjectDone(experiment="purple", key=SCALE.key, outcome=Outcome.FAILED)
    (case,) = run_cases(CHANGING, [event])
    assert (case.status, case.output.splitlines()[0]) == ("error", f"{SCALE.key}: failed")


@pytest.mark.parametrize(
    ("done", "name", "status"),
    [
        (4, "purple: DELETED 4 objects", "success"),
        (1, "purple: DELETED 1 of 4 objects", "skipped"),
        (0, "purple: NOT DELETED: 4 objects", "skipped"),
    ],
)
def test_case_of_a_deletion_contains_the_number_of_deleted_objects(done: int, name: str, status: str) -> None:
    (case,) = run_cases(PRUNING, events_of(PRUNING)[:done])
    assert (case.name, case.status) == (name, status)


def test_failed_replacement_fails_its_experiment() -> None:
    planned = plan(experiment("purple", replacing("purple", OnImmutableChange.RECREATE)))
    assert [(c.name, c.status) for c in run_cases(planned, events_of(planned))] == [
        ("purple: DELETED AND RECREATED 1 object", "success"),
        ("purple", "success"),
    ]
    assert [(c.name, c.status) for c in run_cases(planned, events_of(planned, purple=Outcome.FAILED))] == [
        ("purple: NOT DELETED AND RECREATED: 1 object", "error"),
        ("purple", "error"),
    ]


def test_time_of_a_case_is_the_waiting_time() -> None:
    settled, stuck = ([*events_of(CHANGING), event] for event in (SETTLED, STUCK))
    assert [run_cases(CHANGING, events)[0].time_s for events in (settled, stuck)] == [3.25, 41.2]
    assert plan_cases(CHANGING)[0].time_s == 0


def test_case_of_an_experiment_keeps_its_name_and_class() -> None:
    """GitLab compares the cases of two pipelines by suite, class and name."""
    keep = plan(experiment("purple", *all_objects(Action.KEEP, "purple")))
    renamed = plan(replace(CHANGING.experiments[0], source="experiments/other.yaml"))
    mixed = plan(experiment("a", *all_objects(Action.PRUNE, "a"), without_file=True), *BLOCKED.experiments)
    broken = plan(broken=(BrokenFile(name="purple", source="experiments/purple.yaml"),))
    identities = {
        (case.suite, case.class_name, case.name)
        for found_cases in (
            *(plan_cases(planned) for planned in (keep, CHANGING, BLOCKED, renamed, mixed, broken)),
            *(run_cases(planned, events_of(planned)) for planned in (keep, CHANGING, BLOCKED, mixed)),
        )
        for case in found_cases
        if "purple" in case.name
    }
    assert identities == {("nimlab.experiments", "nimlab.experiments", "purple")}


def test_case_names_its_file() -> None:
    assert [case.file for case in plan_cases(engineer_plan())] == [
        None, "experiments/purple.yaml", "experiments/red.yaml",
    ]  # fmt: skip


def test_cases_with_the_same_name_are_numbered() -> None:
    twice = tuple(BrokenFile(name="red", source=f"experiments/{name}.yaml") for name in ("a", "b", "c"))
    found_cases = plan_cases(plan(broken=twice))
    assert [case.name for case in found_cases] == ["red", "red (2)", "red (3)"]
    assert [case.file for case in found_cases] == [broken.source for broken in twice]


def test_case_of_a_broken_file_contains_its_problems() -> None:
    lab = problem("lab.yaml", 3, 1, "limit", "too much")
    template = RenderError("`x` is undefined", where="templates/experiment/service.yaml.j2:7")
    errors = [SpecError((RED_PROBLEM, lab)), template]
    red, rest = plan_cases(plan(broken=(RED,)), errors=errors)
    assert (red.name, red.status, red.file) == ("red", "error", RED.source)
    assert red.output.startswith(f"{RED}: its objects are not changed\n")
    assert "experiments/red.yaml:9:3: error[unknown-key]: unknown key `msgsize` in spec" in red.output
    assert "too much" not in red.output
    assert (rest.name, rest.status, rest.file) == ("(lab)", "error", None)
    assert "lab.yaml:3:1: error[limit]: too much" in rest.output
    assert "service.yaml.j2:7: error[render]" in rest.output
    (bare,) = plan_cases(plan(broken=(RED,)))
    assert bare.output == f"{RED}: its objects are not changed"


def test_type_of_a_verdict_is_not_a_type_of_activesupport() -> None:
    """ActiveSupport, with which GitLab reads JUnit, parses the content by types such as "file" or "yaml"."""
    text = report.junit_xml(plan(broken=(RED,)), None, removed_in={})
    assert re.findall(r' type="([^"]*)"', text) == ["nimlab.broken-file"]
