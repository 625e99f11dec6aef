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
    Broken,
)
from nimlab.objects.managed_fields import Foreign
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
    texts = [*reports_of(made, events_of(made)).values(), report.junit_xml(made, None, removed_in={})]
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
        *(replace(e, error=error) for e in events_of(made) if isinstance(e, ObjectDone)),
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
        assert all(finding["description"].isprintable() for finding in found)
        for finding in found:
            finding["location"]["path"].encode()  # no half characters: GitLab would drop what follows


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
def test_hostile_text_remains_text(evil: str) -> None:
    check_hostile(evil)


@given(st.text(alphabet=st.characters(codec=None), max_size=30))
def test_any_text_remains_text(evil: str) -> None:
    check_hostile(evil)
