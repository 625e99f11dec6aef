"""GitLab's report formats as schemas, readers for them, and plans and events for their tests.

The schemas are derived from GitLab's documentation and parsers. They are stricter than GitLab.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jsonschema
import xmlschema

from nimlab import report
from nimlab.errors import (
    ImmutableField,
    NimlabError,
    PlanError,
    Rejected,
)
from nimlab.files.spec import (
    BrokenFile,
    OnImmutableChange,
)
from nimlab.plan.change import Action, Change
from nimlab.plan.make_plan import Plan
from nimlab.plan.pod_trouble import Trouble
from nimlab.plan.sync_events import (
    Event,
    ExperimentSettled,
    ExperimentStuck,
    Outcome,
    PeersProgress,
)
from tests.support.plans import (
    LIMIT,
    SCALE,
    all_objects,
    change,
    done_events,
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

GONE = {"blue": "91ab3d0"}


# docs.gitlab.com/user/infrastructure/iac/mr_integration and lib/gitlab/ci/parsers/terraform/tfplan.rb:
# the report has these three keys, and GitLab shows numbers up to 999,999.
COUNT = {"type": "integer", "minimum": 0, "maximum": 999_999}


TERRAFORM = {
    "type": "object",
    "required": ["create", "update", "delete"],
    "properties": {"create": COUNT, "update": COUNT, "delete": COUNT},
    "additionalProperties": False,
}


# docs.gitlab.com/ci/testing/code_quality (report format) and app/validators/json_schemas/codeclimate.json.
FINDING = {
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


CODE_QUALITY = {"type": "array", "items": FINDING, "uniqueItems": True}


# The schema contains what the formats of Ant, Surefire and Jenkins have in common, and the attribute `file`,
# which GitLab shows. GitLab also requires a unique class and name for each case, and content in each case
# that does not pass.
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
    """A test case as GitLab shows it: its identity, its status, and its content (the output)."""

    suite: str
    class_name: str
    name: str
    file: str | None
    status: str
    output: str
    time_s: float


def junit_cases(text: str) -> list[Case]:
    """Validate the report, and read it in the same way as lib/gitlab/ci/parsers/test/junit.rb."""
    assert text.isascii()
    JUNIT.validate(text)
    root = xmlschema.XMLResource(text).root
    cases = []
    for suite in root.findall("testsuite"):
        for case in suite.findall("testcase"):
            status, output = "success", ""
            for element, shown in (("failure", "failed"), ("error", "error"), ("skipped", "skipped")):
                inner = case.find(element)
                if inner is not None:
                    status, output = shown, inner.text or ""
                    break
            cases.append(
                Case(
                    suite=suite.attrib["name"],
                    class_name=case.attrib["classname"],
                    name=case.attrib["name"],
                    file=case.attrib.get("file"),
                    status=status,
                    output=output,
                    time_s=float(case.attrib["time"]),
                )
            )
    return cases


def plan_cases(planned: Plan, **more: Any) -> list[Case]:
    facts: dict[str, Any] = {"removed_in": {}, **more}
    return junit_cases(report.junit_xml(planned, None, **facts))


def run_cases(planned: Plan, events: Sequence[Event], **more: Any) -> list[Case]:
    facts: dict[str, Any] = {"removed_in": {}, **more}
    return junit_cases(report.junit_xml(planned, events, **facts))


def findings(**more: Any) -> list[dict[str, Any]]:
    text = report.codequality_json(**more)
    assert text.isascii()
    entries: list[dict[str, Any]] = json.loads(text)
    jsonschema.validate(entries, CODE_QUALITY)
    fingerprints = Counter(entry["fingerprint"] for entry in entries)
    assert set(fingerprints.values()) <= {1}, "GitLab shows findings with the same fingerprint as one"
    return entries


def counts(planned: Plan) -> dict[str, int]:
    document: dict[str, int] = json.loads(report.terraform_json(planned))
    jsonschema.validate(document, TERRAFORM)
    return document


def places(entries: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    return [(entry["location"]["path"], entry["location"]["lines"]["begin"]) for entry in entries]


def events_of(planned: Plan, **outcomes: Outcome) -> list[Event]:
    """Return the events of `done_events`. A failed change without an error in the plan gets `QUOTA`."""
    return done_events(planned, failure=QUOTA, **outcomes)


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
    hint="check out the newest commit; to go back intentionally, pass `--allow-older`",
)


RED = BrokenFile(name="red", source="experiments/red.yaml")


RED_PROBLEM = problem(
    RED.source, 9, 3, "unknown-key", "unknown key `msgsize` in spec", pointer="spec.msgsize",
    excerpt="  msgsize: 1440", width=7, hint="did you mean `message`?",
)  # fmt: skip


POLICY = "spec.podManagementPolicy cannot be changed in place"


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
    blue = experiment("blue", *all_objects(Action.PRUNE, "blue"), pods=-4, without_file=True)
    return plan(blue, experiment("purple", SCALE, pods=2), stops=(LIMIT,), broken=(RED,))


def reports_of(
    planned: Plan, events: Sequence[Event] | None = None, errors: Sequence[NimlabError] = ()
) -> dict[str, str]:
    texts = {
        "terraform.json": report.terraform_json(planned),
        "plan.xml": report.junit_xml(planned, None, errors=errors, removed_in=GONE),
        "codequality.json": report.codequality_json(errors=errors, plan=planned),
    }
    if events is not None:
        texts["run.xml"] = report.junit_xml(planned, events, errors=errors, removed_in=GONE)
    return texts


def every_plan() -> list[Plan]:
    plans = [newcomer_plan(), engineer_plan(), wrong_plan(), replaced_plan(), withheld_plan(), plan()]
    return plans + [replace(planned, refusal=STALE) for planned in plans]
