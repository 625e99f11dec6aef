"""Reports for GitLab: valid by schema, read as GitLab reads them, stable from run to run, deletions first.

The schemas are written from GitLab's documentation and from what its parsers accept: they ask for more than
GitLab does. A golden case is a folder in `golden/reports`; the function of its name makes what is in it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jsonschema
import junitparser
import pytest
import xmlschema
from hypothesis import given
from hypothesis import strategies as st

from nimlab import report
from nimlab.errors import (
    GuardError,
    ImmutableField,
    Location,
    NimlabError,
    PlanError,
    Problem,
    Rejected,
    RenderError,
    SpecError,
)
from nimlab.files.spec import Broken, OnImmutableChange
from nimlab.objects.foreign_fields import Foreign
from nimlab.plan.change import Action, Change
from nimlab.plan.diff import diff_objects
from nimlab.plan.make_plan import Plan
from nimlab.plan.pod_trouble import Trouble
from nimlab.plan.prune_limits import PruneBlocked
from nimlab.plan.sync_events import (
    Event,
    ExperimentSettled,
    ExperimentStuck,
    ObjectDone,
    Outcome,
    PeersProgress,
)
from nimlab.report.totals import totals_of
from tests.golden_files import GOLDEN, assert_golden, cases, overlay_of
from tests.live import REPOSITORY
from tests.test_load import problems_of
from tests.test_report import (
    CONFLICT,
    LIMIT,
    SCALE,
    all_objects,
    change,
    engineer_plan,
    experiment,
    field,
    full,
    key,
    newcomer_plan,
    plan,
    problem,
    wrong_plan,
)

REPORTS = GOLDEN / "reports"
DOCUMENTATION = (REPOSITORY / "docs" / "gitlab-reports.md").read_text(encoding="utf-8")
GONE = {"blue": "91ab3d0"}

# docs.gitlab.com/user/infrastructure/iac/mr_integration and lib/gitlab/ci/parsers/terraform/tfplan.rb:
# these three keys, numbers, shown up to 999,999.
COUNT = {"type": "integer", "minimum": 0, "maximum": 999_999}
TERRAFORM = {
    "type": "object",
    "required": ["create", "update", "delete"],
    "properties": {"create": COUNT, "update": COUNT, "delete": COUNT},
    "additionalProperties": False,
}

# docs.gitlab.com/ci/testing/code_quality (report format) and app/validators/json_schemas/codeclimate.json.
MARK = {
    "type": "object",
    "required": ["description", "check_name", "fingerprint", "severity", "location"],
    "properties": {
        "description": {"type": "string", "minLength": 1},
        "check_name": {"type": "string", "pattern": "^[a-z][a-z-]*$"},
        "fingerprint": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
        "severity": {"enum": ["info", "minor", "major", "critical", "blocker"]},
        "location": {
            "type": "object",
            "required": ["path", "lines"],
            "properties": {
                "path": {"type": "string", "minLength": 1, "not": {"pattern": "^(\\./|\\.\\./|/)"}},
                "lines": {
                    "type": "object",
                    "required": ["begin"],
                    "properties": {"begin": {"type": "integer", "minimum": 1}},
                    "additionalProperties": False,
                },
            },
            "additionalProperties": False,
        },
    },
    "additionalProperties": False,
}
CODE_QUALITY = {"type": "array", "items": MARK, "uniqueItems": True}

# The structure that Ant, Surefire and Jenkins agree on, with the `file` of a case, which GitLab shows. What
# GitLab needs beyond it: no two cases of the same class and name, and content in what doesn't pass.
JUNIT = xmlschema.XMLSchema("""
<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">
  <xs:simpleType name="text"><xs:restriction base="xs:string"><xs:minLength value="1"/>
  </xs:restriction></xs:simpleType>
  <xs:simpleType name="seconds"><xs:restriction base="xs:decimal"><xs:minInclusive value="0"/>
    <xs:fractionDigits value="3"/></xs:restriction></xs:simpleType>
  <xs:complexType name="verdict"><xs:simpleContent><xs:extension base="text">
    <xs:attribute name="type" use="required"><xs:simpleType><xs:restriction base="xs:token">
      <xs:pattern value="nimlab\\.[a-z\\-]+"/></xs:restriction></xs:simpleType></xs:attribute>
    <xs:attribute name="message" type="text" use="required"/>
  </xs:extension></xs:simpleContent></xs:complexType>
  <xs:complexType name="testcase">
    <xs:choice minOccurs="0">
      <xs:element name="failure" type="verdict"/>
      <xs:element name="error" type="verdict"/>
      <xs:element name="skipped" type="verdict"/>
      <xs:element name="system-out" type="text"/>
    </xs:choice>
    <xs:attribute name="classname" type="text" use="required"/>
    <xs:attribute name="name" type="text" use="required"/>
    <xs:attribute name="file" type="text"/>
    <xs:attribute name="time" type="seconds" use="required"/>
  </xs:complexType>
  <xs:attributeGroup name="sums">
    <xs:attribute name="name" type="text" use="required"/>
    <xs:attribute name="tests" type="xs:nonNegativeInteger" use="required"/>
    <xs:attribute name="failures" type="xs:nonNegativeInteger" use="required"/>
    <xs:attribute name="errors" type="xs:nonNegativeInteger" use="required"/>
    <xs:attribute name="time" type="seconds" use="required"/>
  </xs:attributeGroup>
  <xs:element name="testsuites">
    <xs:complexType>
      <xs:sequence>
        <xs:element name="testsuite">
          <xs:complexType>
            <xs:sequence>
              <xs:element name="testcase" type="testcase" minOccurs="0" maxOccurs="unbounded"/>
            </xs:sequence>
            <xs:attributeGroup ref="sums"/>
            <xs:attribute name="skipped" type="xs:nonNegativeInteger" use="required"/>
          </xs:complexType>
        </xs:element>
      </xs:sequence>
      <xs:attributeGroup ref="sums"/>
    </xs:complexType>
    <xs:unique name="cases">
      <xs:selector xpath="testsuite/testcase"/><xs:field xpath="@classname"/><xs:field xpath="@name"/>
    </xs:unique>
  </xs:element>
</xs:schema>
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A test case as GitLab shows it: what tells it apart, its status, and the content as output."""

    suite: str
    class_name: str
    name: str
    file: str | None
    status: str
    output: str
    time_s: float


def junit_cases(text: str) -> list[Case]:
    """Validate the report, then read it as lib/gitlab/ci/parsers/test/junit.rb does."""
    assert text.isascii()
    JUNIT.validate(text)
    root = xmlschema.XMLResource(text).root
    found = []
    for suite in root.findall("testsuite"):
        for one in suite.findall("testcase"):
            status, output = "success", ""
            for element, means in (("failure", "failed"), ("error", "error"), ("skipped", "skipped")):
                inner = one.find(element)
                if inner is not None:
                    status, output = means, inner.text or ""
                    break
            found.append(
                Case(
                    suite=suite.attrib["name"],
                    class_name=one.attrib["classname"],
                    name=one.attrib["name"],
                    file=one.attrib.get("file"),
                    status=status,
                    output=output,
                    time_s=float(one.attrib["time"]),
                )
            )
    return found


def plan_cases(made: Plan, **more: Any) -> list[Case]:
    facts: dict[str, Any] = {"removed_in": {}, **more}
    return junit_cases(report.junit_xml(made, None, **facts))


def run_cases(made: Plan, events: Sequence[Event], **more: Any) -> list[Case]:
    facts: dict[str, Any] = {"removed_in": {}, **more}
    return junit_cases(report.junit_xml(made, events, **facts))


def marks(**more: Any) -> list[dict[str, Any]]:
    text = report.codequality_json(**more)
    assert text.isascii()
    found: list[dict[str, Any]] = json.loads(text)
    jsonschema.validate(found, CODE_QUALITY)
    prints = Counter(mark["fingerprint"] for mark in found)
    assert set(prints.values()) <= {1}, "GitLab shows marks with the same fingerprint as one"
    return found


def counts(made: Plan) -> dict[str, int]:
    found: dict[str, int] = json.loads(report.terraform_json(made))
    jsonschema.validate(found, TERRAFORM)
    return found


def places(found: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    return [(mark["location"]["path"], mark["location"]["lines"]["begin"]) for mark in found]


def told(made: Plan, **outcomes: Outcome) -> list[Event]:
    """An ObjectDone for each change that isn't kept; what fails without an error in the plan gets one."""
    past = {
        Action.CREATE: Outcome.CREATED, Action.UPDATE: Outcome.UPDATED,
        Action.REPLACE: Outcome.REPLACED, Action.PRUNE: Outcome.PRUNED,
    }  # fmt: skip
    found: list[Event] = []
    for one in made.changes:
        if one.action is Action.KEEP:
            continue
        outcome = Outcome.FAILED if one.error else outcomes.get(one.experiment, past[one.action])
        error = one.error or (QUOTA if outcome is Outcome.FAILED else None)
        found.append(ObjectDone(experiment=one.experiment, key=one.key, outcome=outcome, error=error))
    return found


QUOTA = Rejected("exceeded quota: pods\nused 9, limited 10", where=key("Pod", "x"), hint="raise it")
PULL = Trouble(pod="p-3", reason="ImagePullBackOff", message="no such image", since=None, fatal=True)
SETTLED = ExperimentSettled(experiment="purple", running=5, after_s=3.25)
HALFWAY = PeersProgress(experiment="purple", running=3, wanted=5, leaving=0)
STUCK = ExperimentStuck(
    experiment="purple", running=3, wanted=5, troubles=(PULL,), timed_out=False, waited_s=41.2
)
STALE = PlanError(
    "commit 3f2c1e7 is older than 91ab3d0, which was synced last",
    where=key("ConfigMap", "nimlab-experiments"),
    hint="check out the newest commit; to go back on purpose, say `--allow-older`",
)
RED = Broken(name="red", source="experiments/red.yaml")
RED_PROBLEM = problem(
    RED.source, 9, 3, "unknown-key", "unknown key `msgsize` in spec", pointer="spec.msgsize",
    excerpt="  msgsize: 1440", width=7, hint="did you mean `message`?",
)  # fmt: skip
POLICY = "spec.podManagementPolicy can't be changed in place"


def replacing(name: str, how: OnImmutableChange, **more: Any) -> Change:
    fields = (field("spec.podManagementPolicy", "Parallel", "OrderedReady"),)
    facts = {"reason": POLICY, "fields": fields, "replace_by": how, **more}
    return change(Action.REPLACE, "StatefulSet", name, **facts)


def replaced_plan() -> Plan:
    forbidden = ImmutableField(POLICY, where=key("StatefulSet", full("blue")), hint="allow it")
    return plan(
        experiment("blue", replacing("blue", OnImmutableChange.FAIL, error=forbidden)),
        experiment("purple", replacing("purple", OnImmutableChange.RECREATE, restarts=5)),
    )


def withheld_plan() -> Plan:
    blue = experiment("blue", *all_objects(Action.PRUNE, "blue"), pods=-4, gone=True)
    return plan(blue, experiment("purple", SCALE, pods=2), stops=(LIMIT,), broken=(RED,))


def reports_of(
    made: Plan, events: Sequence[Event] | None = None, errors: Sequence[NimlabError] = ()
) -> dict[str, str]:
    found = {
        "terraform.json": report.terraform_json(made),
        "plan.xml": report.junit_xml(made, None, errors=errors, removed_in=GONE),
        "codequality.json": report.codequality_json(errors=errors, plan=made),
    }
    if events is not None:
        found["run.xml"] = report.junit_xml(made, events, errors=errors, removed_in=GONE)
    return found


def engineer() -> dict[str, str]:
    made = engineer_plan()
    return reports_of(made, [*told(made), SETTLED])


def unchanged() -> dict[str, str]:
    made = plan(experiment("purple", *all_objects(Action.KEEP, "purple")))
    return reports_of(made, [replace(SETTLED, after_s=0.0)])


def wrong() -> dict[str, str]:
    """Blocked, failed, not attempted, not ready, and prunes that don't happen for it."""
    made = wrong_plan()
    events = told(made, red=Outcome.FAILED, blue=Outcome.NOT_ATTEMPTED)
    return reports_of(made, [*events, replace(STUCK, experiment="green")])


def withheld() -> dict[str, str]:
    made = withheld_plan()
    return reports_of(made, told(made, blue=Outcome.NOT_ATTEMPTED), [SpecError((RED_PROBLEM,))])


def refused() -> dict[str, str]:
    return reports_of(replace(engineer_plan(), refusal=STALE), ())


def replaced() -> dict[str, str]:
    made = replaced_plan()
    return reports_of(made, told(made))


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
def test_junit_reads_the_same_in_another_program(case: str) -> None:
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


def every_plan() -> list[Plan]:
    found = [newcomer_plan(), engineer_plan(), wrong_plan(), replaced_plan(), withheld_plan(), plan()]
    return found + [replace(made, refusal=STALE) for made in found]


def test_terraform_counts_what_is_done_and_a_replacement_twice() -> None:
    for made in every_plan():
        sums = totals_of(made)
        assert counts(made) == {
            "create": sums.create + sums.replace,
            "update": sums.update,
            "delete": sums.prune + sums.replace,
        }
    assert counts(newcomer_plan()) == {"create": 8, "update": 0, "delete": 0}
    assert counts(engineer_plan()) == {"create": 0, "update": 1, "delete": 4}
    assert counts(replaced_plan()) == {"create": 1, "update": 0, "delete": 1}


def test_terraform_leaves_out_what_is_not_done() -> None:
    assert counts(withheld_plan()) == {"create": 0, "update": 1, "delete": 0}
    assert counts(wrong_plan()) == {"create": 8, "update": 0, "delete": 0}
    assert counts(replace(engineer_plan(), refusal=STALE)) == {"create": 0, "update": 0, "delete": 0}


@pytest.mark.parametrize("name", ["blue", "m", "zz"])
def test_deletions_come_first_and_loud(name: str) -> None:
    gone = experiment(name, *all_objects(Action.PRUNE, name), gone=True)
    others = [experiment("a", SCALE), experiment("n", *all_objects(Action.KEEP, "n"))]
    made = plan(*sorted([gone, *others], key=lambda one: one.name))
    for found, said in (
        (plan_cases(made), f"{name}: WOULD DELETE 4 objects"),
        (run_cases(made, told(made)), f"{name}: DELETED 4 objects"),
    ):
        assert [case.name for case in found] == [said, "a", "n"]
    assert marks(plan=made)[0]["description"].startswith(f"{name}: WOULD DELETE 4 objects: StatefulSet/")


def test_planned_deletion_is_skipped_and_lists_its_objects() -> None:
    case, *others = plan_cases(engineer_plan(), removed_in=GONE)
    assert (case.name, case.status) == ("blue: WOULD DELETE 4 objects", "skipped")
    assert "experiments/blue.yaml is gone since 91ab3d0" in case.output
    assert all(str(c.key) in case.output for c in engineer_plan().changes if c.action is Action.PRUNE)
    assert [one.status for one in others] == ["success", "success"]


def test_replacement_is_a_deletion_too() -> None:
    first, blue, purple = plan_cases(replaced_plan())
    assert (first.name, first.status) == ("purple: WOULD DELETE AND REMAKE 1 object", "skipped")
    assert POLICY in first.output
    assert (blue.status, purple.status) == ("failed", "success")
    deletion, error = marks(plan=replaced_plan())
    assert (deletion["check_name"], deletion["severity"]) == ("deletion", "major")
    assert deletion["description"].startswith("purple: WOULD DELETE AND REMAKE 1 object: StatefulSet/")
    assert places([deletion, error]) == [("experiments/purple.yaml", 1), ("experiments/blue.yaml", 1)]


def test_blocked_replacement_deletes_nothing() -> None:
    both = (
        replacing("purple", OnImmutableChange.RECREATE),
        change(Action.UPDATE, "Service", "purple", error=CONFLICT),
    )
    made = plan(experiment("purple", *both))
    assert [(c.name, c.status) for c in plan_cases(made)] == [("purple", "failed")]
    assert [mark["check_name"] for mark in marks(plan=made)] == ["field-conflict"]
    refused_plan = replace(replaced_plan(), refusal=STALE)
    assert not any("WOULD" in case.name for case in plan_cases(refused_plan))


def test_experiment_that_loses_an_object_has_two_cases() -> None:
    made = plan(experiment("purple", SCALE, change(Action.PRUNE, "NetworkPolicy", "purple"), pods=2))
    assert [(c.name, c.status) for c in plan_cases(made)] == [
        ("purple: WOULD DELETE 1 object", "skipped"),
        ("purple", "success"),
    ]
    assert places(marks(plan=made)) == [("experiments/purple.yaml", 1)]


@pytest.mark.parametrize("left", [(), (change(Action.KEEP, "ConfigMap", "blue", desired=None),)])
def test_experiment_of_which_something_is_left_has_a_case_of_its_own(left: tuple[Change, ...]) -> None:
    """Its file is there and wants nothing that is pruned; or it is gone, but an object is left alone."""
    made = plan(experiment("blue", *left, *all_objects(Action.PRUNE, "blue"), gone=bool(left)))
    assert [case.name for case in plan_cases(made)] == ["blue: WOULD DELETE 4 objects", "blue"]


def test_withheld_deletions_say_why() -> None:
    deletion, stop, *_ = plan_cases(withheld_plan())
    assert (deletion.name, deletion.status) == ("blue: WOULD DELETE 4 objects, WITHHELD", "skipped")
    assert deletion.output.startswith(f"nothing is pruned: {LIMIT.what}\n")
    assert (stop.name, stop.status) == ("NOTHING IS DELETED: limit", "failed")
    assert LIMIT.hint in stop.output
    found = {mark["check_name"]: mark for mark in marks(plan=withheld_plan())}
    assert found["deletion"]["description"].startswith("blue: WOULD DELETE 4 objects, WITHHELD: ")
    assert LIMIT.hint in found["nothing-pruned-limit"]["description"]


def test_refusal_is_the_loudest() -> None:
    made = replace(engineer_plan(), refusal=STALE)
    for found in (plan_cases(made), run_cases(made, ())):
        by_name = {case.name: case for case in found}
        assert by_name["NOTHING IS DONE"].status == "error"
        assert STALE.what in by_name["NOTHING IS DONE"].output
        assert by_name["purple"].status == "skipped"
        assert f"nothing is done: {STALE.what}" in by_name["purple"].output
        assert by_name["red"].status == "success", "there was nothing to do for it"
    (mark,) = [mark for mark in marks(plan=made) if mark["severity"] == "blocker"]
    assert (mark["check_name"], places([mark])) == ("plan", [("lab.yaml", 1)])


CHANGING = plan(experiment("purple", SCALE, pods=2))
BLOCKED = plan(experiment("purple", replace(SCALE, error=CONFLICT)))
PRUNING = plan(experiment("purple", *all_objects(Action.PRUNE, "purple"), gone=True))


@pytest.mark.parametrize(
    ("made", "events", "status", "reason"),
    [
        (CHANGING, None, "success", ""),
        (BLOCKED, None, "failed", "spec.replicas is owned by `hpa-controller`"),
        (CHANGING, told(CHANGING), "success", ""),
        (CHANGING, [*told(CHANGING), SETTLED], "success", ""),
        (CHANGING, [*told(CHANGING), HALFWAY, SETTLED], "success", ""),
        (CHANGING, [*told(CHANGING), HALFWAY], "failed", "waiting: 3 of 5 peers running"),
        (CHANGING, [*told(CHANGING), STUCK], "failed", "pod p-3: ImagePullBackOff, no such image"),
        (CHANGING, told(CHANGING, purple=Outcome.FAILED), "error", "exceeded quota: pods used 9"),
        (CHANGING, [*told(CHANGING, purple=Outcome.FAILED), STUCK], "error", "exceeded quota"),
        (CHANGING, told(CHANGING, purple=Outcome.NOT_ATTEMPTED), "skipped", "it was not attempted"),
        (CHANGING, (), "skipped", "it was not attempted"),
        (CHANGING, [STUCK], "failed", "ImagePullBackOff"),
        (BLOCKED, told(BLOCKED), "failed", "spec.replicas is owned by `hpa-controller`"),
        (BLOCKED, (), "failed", "spec.replicas is owned by `hpa-controller`"),
        (PRUNING, told(PRUNING), "success", ""),
        (PRUNING, told(PRUNING, purple=Outcome.FAILED), "error", "exceeded quota"),
        (PRUNING, told(PRUNING, purple=Outcome.NOT_ATTEMPTED), "skipped", "it was not attempted"),
        (PRUNING, [*told(PRUNING), replace(HALFWAY, wanted=0, leaving=2)], "failed", "2 peers still to go"),
    ],
)
def test_status_of_a_case(made: Plan, events: Sequence[Event] | None, status: str, reason: str) -> None:
    (case,) = junit_cases(report.junit_xml(made, events, removed_in={}))
    assert case.status == status
    assert reason in case.output
    assert bool(case.output) == (status != "success")


def test_what_broke_comes_before_what_was_blocked() -> None:
    both = (replace(SCALE, error=CONFLICT), change(Action.UPDATE, "Service", "purple"))
    made = plan(experiment("purple", *both))
    (case,) = run_cases(made, told(made, purple=Outcome.FAILED))
    assert case.status == "error"
    assert QUOTA.what.split("\n")[0] in case.output
    assert CONFLICT.what in case.output


def test_not_attempted_for_an_error_tells_the_error() -> None:
    event = ObjectDone(experiment="purple", key=SCALE.key, outcome=Outcome.NOT_ATTEMPTED, error=QUOTA)
    (case,) = run_cases(CHANGING, [event])
    assert (case.status, "error[rejected]: exceeded quota" in case.output) == ("skipped", True)


def test_failure_without_a_reason_is_told_all_the_same() -> None:
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
def test_deletion_says_how_far_it_got(done: int, name: str, status: str) -> None:
    (case,) = run_cases(PRUNING, told(PRUNING)[:done])
    assert (case.name, case.status) == (name, status)


def test_failed_replacement_fails_its_experiment() -> None:
    made = plan(experiment("purple", replacing("purple", OnImmutableChange.RECREATE)))
    assert [(c.name, c.status) for c in run_cases(made, told(made))] == [
        ("purple: DELETED AND REMADE 1 object", "success"),
        ("purple", "success"),
    ]
    assert [(c.name, c.status) for c in run_cases(made, told(made, purple=Outcome.FAILED))] == [
        ("purple: NOT DELETED AND REMADE: 1 object", "error"),
        ("purple", "error"),
    ]


def test_case_takes_as_long_as_was_waited() -> None:
    settled, stuck = ([*told(CHANGING), event] for event in (SETTLED, STUCK))
    assert [run_cases(CHANGING, events)[0].time_s for events in (settled, stuck)] == [3.25, 41.2]
    assert plan_cases(CHANGING)[0].time_s == 0


def test_experiments_case_keeps_its_name_and_class() -> None:
    """GitLab compares the cases of two pipelines by suite, class and name."""
    keep = plan(experiment("purple", *all_objects(Action.KEEP, "purple")))
    renamed = plan(replace(CHANGING.experiments[0], source="experiments/other.yaml"))
    mixed = plan(experiment("a", *all_objects(Action.PRUNE, "a"), gone=True), *BLOCKED.experiments)
    broken = plan(broken=(Broken(name="purple", source="experiments/purple.yaml"),))
    identities = {
        (case.suite, case.class_name, case.name)
        for found in (
            *(plan_cases(made) for made in (keep, CHANGING, BLOCKED, renamed, mixed, broken)),
            *(run_cases(made, told(made)) for made in (keep, CHANGING, BLOCKED, mixed)),
        )
        for case in found
        if "purple" in case.name
    }
    assert identities == {("nimlab.experiments", "nimlab.experiments", "purple")}


def test_case_names_its_file() -> None:
    assert [case.file for case in plan_cases(engineer_plan())] == [
        None, "experiments/purple.yaml", "experiments/red.yaml",
    ]  # fmt: skip


def test_cases_of_the_same_name_are_told_apart() -> None:
    twice = tuple(Broken(name="red", source=f"experiments/{name}.yaml") for name in ("a", "b", "c"))
    found = plan_cases(plan(broken=twice))
    assert [case.name for case in found] == ["red", "red (2)", "red (3)"]
    assert [case.file for case in found] == [broken.source for broken in twice]


def test_broken_file_tells_its_problems() -> None:
    lab = problem("lab.yaml", 3, 1, "limit", "too much")
    template = RenderError("`x` is undefined", where="templates/experiment/service.yaml.j2:7")
    errors = [SpecError((RED_PROBLEM, lab)), template]
    red, rest = plan_cases(plan(broken=(RED,)), errors=errors)
    assert (red.name, red.status, red.file) == ("red", "error", RED.source)
    assert red.output.startswith("experiments/red.yaml can't be used: nothing of it is touched\n")
    assert "experiments/red.yaml:9:3: error[unknown-key]: unknown key `msgsize` in spec" in red.output
    assert "too much" not in red.output
    assert (rest.name, rest.status, rest.file) == ("(lab)", "error", None)
    assert "lab.yaml:3:1: error[limit]: too much" in rest.output
    assert "service.yaml.j2:7: error[render]" in rest.output
    (bare,) = plan_cases(plan(broken=(RED,)))
    assert bare.output == "experiments/red.yaml can't be used: nothing of it is touched"


SECRET = "hunter2"  # noqa: S105 -- looked for where it must not be


def test_no_report_shows_a_secret() -> None:
    def workload(value: str) -> dict[str, Any]:
        env = [{"name": "API_TOKEN", "value": value}, {"name": "PEERS", "value": value[-1]}]
        template = {"spec": {"containers": [{"name": "nimp2p", "env": env}]}}
        return {"kind": "StatefulSet", "metadata": {"name": "x"}, "spec": {"template": template}}

    def secret(value: str) -> dict[str, Any]:
        return {"kind": "Secret", "metadata": {"name": "x"}, "data": {"a": value}}

    changes = [diff_objects(made(SECRET), made(f"{SECRET}1")) for made in (workload, secret)]
    foreign = Foreign(manager="argo", path=(), text="env[TOKEN]", value={"name": "TOKEN", "value": SECRET})
    made = plan(
        experiment(
            "purple",
            replace(SCALE, fields=changes[0], foreign=(foreign,)),
            change(Action.UPDATE, "Secret", "purple", fields=changes[1], error=CONFLICT),
        )
    )
    texts = [*reports_of(made, told(made)).values(), report.junit_xml(made, None, removed_in={})]
    assert "(hidden)" in texts[-1]
    assert "env[PEERS]" in texts[-1]
    assert not any(SECRET in text for text in texts)


def hostile_reports(evil: str) -> tuple[list[str], list[str]]:
    """JUnit reports and code-quality reports with the text wherever text comes from files or a cluster."""
    error = Rejected(evil, where=evil, hint=evil)
    bad = change(
        Action.UPDATE, "Service", "x", error=error, reason=evil, fields=(field(f"data[{evil}]", evil, 1),),
        foreign=(Foreign(manager=evil, path=(), text=evil, value=evil),),
    )  # fmt: skip
    named = replace(bad, key=replace(bad.key, name=evil), error=None)
    gone = replace(change(Action.PRUNE, "Service", "gone"), key=replace(bad.key, name=evil))
    found = Problem(
        code="x", what=evil, hint=evil, excerpt=evil, pointer=evil,
        location=Location(path=evil or "x", line=0, column=1),
    )  # fmt: skip
    broken = Broken(name=evil, source=evil or "x")
    made = plan(
        replace(experiment(evil, bad, named), source=evil or None),
        replace(experiment(evil + "2", gone), source=None),
        broken=(broken, broken),
        stops=(PruneBlocked(code="limit", what=evil, hint=evil),),
        refusal=PlanError(evil, where=evil, hint=evil),
    )
    made_without = replace(made, refusal=None, stops=())
    trouble = Trouble(pod=evil, reason=evil, message=evil, since=evil, fatal=True)
    events: list[Event] = [
        *(replace(e, error=error) for e in told(made) if isinstance(e, ObjectDone)),
        replace(STUCK, experiment=evil, troubles=(trouble,)),
    ]
    errors = [SpecError((found,)), RenderError(evil, where=evil, hint=evil), GuardError(evil, where=evil)]
    facts: dict[str, Any] = {"errors": errors, "removed_in": {evil + "2": evil}}
    junit = [
        report.junit_xml(one, told_of, **facts)
        for one in (made, made_without)
        for told_of in (None, events, ())
    ]
    quality = [
        report.codequality_json(problems=[found], errors=errors, plan=one, folder=folder)
        for one in (made, made_without)
        for folder in ("", "labs/one")
    ]
    return junit, quality


def check_hostile(evil: str) -> None:
    junit, quality = hostile_reports(evil)
    for text in junit:
        for case in junit_cases(text):
            assert (case.name + case.class_name).isprintable()
            assert all(line.isprintable() for line in case.output.split("\n"))
            assert (case.file or "").isprintable()
        assert "[[ATTACHMENT|" not in text
    for text in quality:
        assert text.isascii()
        found = json.loads(text)
        jsonschema.validate(found, CODE_QUALITY)
        assert all(mark["description"].isprintable() for mark in found)
        for mark in found:
            mark["location"]["path"].encode()  # no half characters: GitLab would drop what follows


@pytest.mark.parametrize(
    "evil",
    [
        "a\x1b[31mb\u202ec\u2066\nd\x07\ud800",
        "]]></failure></testcase><testcase name='x'/>",
        '"><!DOCTYPE x [<!ENTITY e "e">]>&e;<x y="',
        "\x00\x0b\x0c\x85\u2028\ufffe\uffff\U0001ffff",
        "&#0;&#x1b;&amp;",
        "[[ATTACHMENT|../../secret.txt]]",
        "../../../etc/passwd",
        "/etc/passwd",
        "section_start:0:x\r\x1b[0K",
        "",
        " ",
    ],
)
def test_hostile_text_stays_text(evil: str) -> None:
    check_hostile(evil)


@given(st.text(alphabet=st.characters(codec=None), max_size=30))
def test_any_text_stays_text(evil: str) -> None:
    check_hostile(evil)


def test_word_for_programs_is_no_type_of_a_value() -> None:
    """GitLab reads JUnit with ActiveSupport, which reads content by `type`: "file", or refuses it: "yaml"."""
    text = report.junit_xml(plan(broken=(RED,)), None, removed_in={})
    assert re.findall(r' type="([^"]*)"', text) == ["nimlab.broken-file"]


@pytest.mark.parametrize("case", cases("errors"), ids=lambda case: case.name)
def test_mark_is_on_the_very_line(case: Path) -> None:
    overlay = overlay_of(case)
    found = problems_of(overlay)
    shown = marks(problems=found)
    assert sorted(places(shown)) == sorted((p.location.path, p.location.line) for p in found)
    for mark in shown:
        path, line = places([mark])[0]
        text = overlay.get(path)
        if text is None:
            text = (REPOSITORY / path).read_text(encoding="utf-8")
        assert line <= max(len(text.splitlines()), 1)
        assert mark["severity"] == "critical"
    assert Counter(mark["check_name"] for mark in shown) == Counter(p.code for p in found)


MOVABLE = [
    case for case in cases("errors") if case.name != "file-empty"
]  # a comment alone says something else


@pytest.mark.parametrize("case", MOVABLE, ids=lambda case: case.name)
def test_fingerprint_does_not_follow_the_line(case: Path) -> None:
    overlay = overlay_of(case)
    moved = {path: text and "# moved\n# by two lines\n" + text for path, text in overlay.items()}
    before, after = (marks(problems=problems_of(files)) for files in (overlay, moved))
    assert [mark["fingerprint"] for mark in after] == [mark["fingerprint"] for mark in before]
    here = [(path, line + 2) if path in overlay else (path, line) for path, line in places(before)]
    assert places(after) == here


PROBLEM = st.builds(
    problem,
    st.sampled_from(["experiments/a.yaml", "lab.yaml"]),
    st.integers(1, 50),
    st.integers(1, 9),
    st.sampled_from(["limit", "bad-unit"]),
    st.sampled_from(["`16` has no unit", "`x` has no unit", "more than 5", "more than 6"]),
    pointer=st.sampled_from(["", "spec.peers"]),
)


def test_fingerprints_at_the_same_place_know_no_order() -> None:
    pair = [problem("a.yaml", 1, 1, "limit", "too much", pointer=pointer) for pointer in ("x", "y")]
    assert marks(problems=pair) == marks(problems=pair[::-1])


@given(problems=st.lists(PROBLEM, max_size=8), data=st.data(), shift=st.integers(0, 1000))
def test_fingerprints_know_neither_order_nor_line(problems: list[Problem], data: Any, shift: int) -> None:
    def moved(one: Problem) -> Problem:
        place = replace(one.location, line=one.location.line + shift)
        return replace(one, location=place, hint="said otherwise", excerpt="anything")

    shuffled = data.draw(st.permutations(problems))
    assert marks(problems=shuffled) == marks(problems=problems)
    assert marks(errors=[SpecError(tuple(shuffled))], problems=problems) == marks(problems=problems)
    prints = [mark["fingerprint"] for mark in marks(problems=problems)]
    assert [mark["fingerprint"] for mark in marks(problems=[moved(one) for one in shuffled])] == prints


def test_fingerprints_tell_different_problems_apart() -> None:
    one = problem("a.yaml", 1, 1, "bad-unit", "`x` has no unit", pointer="spec.a")
    others = [
        replace(one, code="limit"),
        replace(one, pointer="spec.b"),
        replace(one, what="`y` has no unit"),
        replace(one, location=Location(path="b.yaml")),
        replace(one, location=Location(path="a.yaml", line=7)),
    ]
    assert len({mark["fingerprint"] for mark in marks(problems=[one, *others])}) == 6


def test_fingerprint_of_an_error_is_the_same_on_another_machine() -> None:
    def printed(folder: str, address: str) -> str:
        what = f"a template can't be read: [Errno 2] No such file: '{folder}/x.j2' <x at {address}>"
        (mark,) = marks(errors=[RenderError(what, where="templates/experiment")])
        return str(mark["fingerprint"])

    assert printed("/builds/a/lab", "0x7f3cab") == printed("/home/me/lab", "0x10")


def test_fingerprint_of_a_deletion_does_not_follow_its_size() -> None:
    four = plan(experiment("blue", *all_objects(Action.PRUNE, "blue"), gone=True))
    one = plan(experiment("blue", change(Action.PRUNE, "Service", "blue"), gone=True), stops=(LIMIT,))
    first, second = (marks(plan=made)[0] for made in (four, one))
    assert first["description"] != second["description"]
    assert first["fingerprint"] == second["fingerprint"]
    other = plan(experiment("red", *all_objects(Action.PRUNE, "red"), gone=True))
    assert marks(plan=other)[0]["fingerprint"] != first["fingerprint"]


def test_fingerprint_of_an_object_does_not_follow_what_the_server_says() -> None:
    def printed(error: NimlabError, kind: str = "Service") -> str:
        (mark,) = marks(plan=plan(experiment("x", change(Action.UPDATE, kind, "x", error=error))))
        return str(mark["fingerprint"])

    assert printed(Rejected("quota: 3 of 2")) == printed(Rejected("quota: 4 of 2 at 10.0.0.1"))
    assert printed(Rejected("no")) != printed(CONFLICT)
    assert printed(Rejected("no")) != printed(Rejected("no"), kind="ConfigMap")


def test_what_has_no_file_is_marked_on_one_that_is_there() -> None:
    made = replace(withheld_plan(), refusal=STALE, broken=())
    guard = GuardError("hostNetwork is not allowed", where=key("StatefulSet", full("purple")))
    found = marks(plan=made, errors=[guard])
    assert set(places(found)) == {("lab.yaml", 1)}
    assert (REPOSITORY / "lab.yaml").is_file()
    assert sorted(mark["check_name"] for mark in found) == [
        "deletion", "guard", "nothing-pruned-limit", "plan",
    ]  # fmt: skip
    (said,) = [mark["description"] for mark in found if mark["check_name"] == "guard"]
    assert said == "StatefulSet/dst-lab/nimp2p-exp-purple: hostNetwork is not allowed"


@pytest.mark.parametrize(
    ("where", "place"),
    [
        ("templates/experiment/service.yaml.j2:7", ("templates/experiment/service.yaml.j2", 7)),
        ("templates/experiment/service.yaml.j2", ("templates/experiment/service.yaml.j2", 1)),
        ("/builds/lab/templates/x.j2:7", ("lab.yaml", 1)),
        ("../x.j2:7", ("lab.yaml", 1)),
        (None, ("lab.yaml", 1)),
    ],
)
def test_template_is_marked_at_its_line(where: str | None, place: tuple[str, int]) -> None:
    assert places(marks(errors=[RenderError("`x` is undefined", where=where)])) == [place]


def test_paths_begin_at_the_repository() -> None:
    found = marks(problems=[RED_PROBLEM], plan=withheld_plan(), folder="labs/./one/")
    assert {path for path, _ in places(found)} == {"labs/one/experiments/red.yaml", "labs/one/lab.yaml"}
    dotted = replace(RED_PROBLEM, location=Location(path="./experiments/red.yaml", line=3))
    assert places(marks(problems=[dotted])) == [("experiments/red.yaml", 3)]


def test_broken_file_is_marked_once() -> None:
    made = plan(broken=(RED,))
    assert [mark["check_name"] for mark in marks(plan=made)] == ["broken-file"]
    assert places(marks(plan=made)) == [(RED.source, 1)]
    assert [mark["check_name"] for mark in marks(plan=made, problems=[RED_PROBLEM])] == ["unknown-key"]


def test_hint_is_part_of_the_description() -> None:
    (mark,) = marks(problems=[RED_PROBLEM])
    assert mark["description"] == "unknown key `msgsize` in spec; did you mean `message`?"


def test_nothing_wrong_is_an_empty_report() -> None:
    assert report.codequality_json() == "[]"
    assert marks(plan=newcomer_plan()) == []


def test_long_lists_of_deleted_objects_end_in_a_count() -> None:
    many = tuple(
        replace(one, key=replace(one.key, name=f"x{n}"))
        for n, one in enumerate(all_objects(Action.PRUNE, "blue") * 3)
    )
    (mark,) = marks(plan=plan(experiment("blue", *many, gone=True)))
    assert mark["description"].endswith(" and 8 more")


def test_every_word_is_documented() -> None:
    words = {mark["check_name"] for made in every_plan() for mark in marks(plan=made)}
    words |= {mark["severity"] for made in every_plan() for mark in marks(plan=made)}
    runs = [told(made, purple=Outcome.NOT_ATTEMPTED) for made in every_plan()]
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
