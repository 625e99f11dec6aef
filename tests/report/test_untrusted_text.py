"""Text from files and the cluster cannot break GitLab's formats, and secrets do not appear."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimlab import report
from nimlab.errors import (
    GuardError,
    Location,
    PlanError,
    Problem,
    Rejected,
    RenderError,
    SpecError,
)
from nimlab.files.spec import (
    BrokenFile,
)
from nimlab.objects.foreign_fields import ForeignField
from nimlab.plan.change import Action
from nimlab.plan.diff import diff_objects
from nimlab.plan.pod_trouble import Trouble
from nimlab.plan.prune_limits import PruneBlocked
from nimlab.plan.sync_events import (
    Event,
    ObjectDone,
)
from tests.support.gitlab_reports import (
    CODE_QUALITY,
    STUCK,
    events_of,
    junit_cases,
    reports_of,
)
from tests.support.plans import (
    CONFLICT,
    SCALE,
    change,
    experiment,
    field,
    plan,
)

SECRET = "hunter2"  # noqa: S105 -- must not appear in any report


def test_no_report_shows_a_secret() -> None:
    def workload(value: str) -> dict[str, Any]:
        env = [{"name": "API_TOKEN", "value": value}, {"name": "PEERS", "value": value[-1]}]
        template = {"spec": {"containers": [{"name": "nimp2p", "env": env}]}}
        return {"kind": "StatefulSet", "metadata": {"name": "x"}, "spec": {"template": template}}

    def secret(value: str) -> dict[str, Any]:
        return {"kind": "Secret", "metadata": {"name": "x"}, "data": {"a": value}}

    changes = [diff_objects(planned(SECRET), planned(f"{SECRET}1")) for planned in (workload, secret)]
    foreign = ForeignField(
        manager="argo", path=(), text="env[TOKEN]", value={"name": "TOKEN", "value": SECRET}
    )
    planned = plan(
        experiment(
            "purple",
            replace(SCALE, fields=changes[0], foreign=(foreign,)),
            change(Action.UPDATE, "Secret", "purple", fields=changes[1], error=CONFLICT),
        )
    )
    texts = [
        *reports_of(planned, events_of(planned)).values(),
        report.junit_xml(planned, None, removed_in={}),
    ]
    assert "(hidden)" in texts[-1]
    assert "env[PEERS]" in texts[-1]
    assert not any(SECRET in text for text in texts)


def hostile_reports(evil: str) -> tuple[list[str], list[str]]:
    """Return JUnit and Code Quality reports with `evil` in every field that users or servers can set."""
    error = Rejected(evil, where=evil, hint=evil)
    bad = change(
        Action.UPDATE, "Service", "x", error=error, reason=evil, fields=(field(f"data[{evil}]", evil, 1),),
        foreign=(ForeignField(manager=evil, path=(), text=evil, value=evil),),
    )  # fmt: skip
    named = replace(bad, key=replace(bad.key, name=evil), error=None)
    gone = replace(change(Action.PRUNE, "Service", "gone"), key=replace(bad.key, name=evil))
    wrong = Problem(
        code="x", what=evil, hint=evil, excerpt=evil, pointer=evil,
        location=Location(path=evil or "x", line=0, column=1),
    )  # fmt: skip
    broken = BrokenFile(name=evil, source=evil or "x")
    planned = plan(
        replace(experiment(evil, bad, named), source=evil or None),
        replace(experiment(evil + "2", gone), source=None),
        broken=(broken, broken),
        stops=(PruneBlocked(code="limit", what=evil, hint=evil),),
        refusal=PlanError(evil, where=evil, hint=evil),
    )
    planned_without = replace(planned, refusal=None, stops=())
    trouble = Trouble(pod=evil, reason=evil, message=evil, since=evil, fatal=True)
    events: list[Event] = [
        *(replace(e, error=error) for e in events_of(planned) if isinstance(e, ObjectDone)),
        replace(STUCK, experiment=evil, troubles=(trouble,)),
    ]
    errors = [SpecError((wrong,)), RenderError(evil, where=evil, hint=evil), GuardError(evil, where=evil)]
    facts: dict[str, Any] = {"errors": errors, "removed_in": {evil + "2": evil}}
    junit = [
        report.junit_xml(each_plan, sent, **facts)
        for each_plan in (planned, planned_without)
        for sent in (None, events, ())
    ]
    quality = [
        report.codequality_json(problems=[wrong], errors=errors, plan=each_plan, folder=folder)
        for each_plan in (planned, planned_without)
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
        entries = json.loads(text)
        jsonschema.validate(entries, CODE_QUALITY)
        assert all(entry["description"].isprintable() for entry in entries)
        for entry in entries:
            entry["location"]["path"].encode()  # GitLab ignores all entries after an entry that is not UTF-8


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
def test_hostile_text_does_not_change_the_structure(evil: str) -> None:
    check_hostile(evil)


@given(st.text(alphabet=st.characters(codec=None), max_size=30))
def test_no_text_changes_the_structure(evil: str) -> None:
    check_hostile(evil)
