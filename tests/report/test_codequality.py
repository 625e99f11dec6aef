"""GitLab's Code Quality report: places, severities and stable fingerprints."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimlab import report
from nimlab.errors import (
    GuardError,
    Location,
    NimlabError,
    Problem,
    Rejected,
    RenderError,
    SpecError,
)
from nimlab.plan.change import Action
from tests.files.test_load import problems_of
from tests.support.gitlab_reports import (
    RED,
    RED_PROBLEM,
    STALE,
    findings,
    places,
    withheld_plan,
)
from tests.support.golden import cases, overlay_of
from tests.support.paths import SAMPLE_LAB
from tests.support.plans import (
    CONFLICT,
    LIMIT,
    all_objects,
    change,
    experiment,
    full,
    key,
    newcomer_plan,
    plan,
    problem,
)


@pytest.mark.parametrize("case", cases("errors"), ids=lambda case: case.name)
def test_finding_is_on_the_line_of_its_problem(case: Path) -> None:
    overlay = overlay_of(case)
    problems = problems_of(overlay)
    entries = findings(problems=problems)
    assert sorted(places(entries)) == sorted((p.location.path, p.location.line) for p in problems)
    for finding in entries:
        path, line = places([finding])[0]
        text = overlay.get(path)
        if text is None:
            text = (SAMPLE_LAB / path).read_text(encoding="utf-8")
        assert line <= max(len(text.splitlines()), 1)
        assert finding["severity"] == "critical"
    assert Counter(finding["check_name"] for finding in entries) == Counter(p.code for p in problems)


# A comment in an empty file changes the problem.
MOVABLE = [case for case in cases("errors") if case.name != "file-empty"]


@pytest.mark.parametrize("case", MOVABLE, ids=lambda case: case.name)
def test_fingerprint_does_not_depend_on_the_line(case: Path) -> None:
    overlay = overlay_of(case)
    moved = {path: text and "# moved\n# by two lines\n" + text for path, text in overlay.items()}
    before, after = (findings(problems=problems_of(files)) for files in (overlay, moved))
    assert [finding["fingerprint"] for finding in after] == [finding["fingerprint"] for finding in before]
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


def test_order_of_problems_at_one_place_does_not_matter() -> None:
    pair = [problem("a.yaml", 1, 1, "limit", "too much", pointer=pointer) for pointer in ("x", "y")]
    assert findings(problems=pair) == findings(problems=pair[::-1])


@given(problems=st.lists(PROBLEM, max_size=8), data=st.data(), shift=st.integers(0, 1000))
def test_fingerprints_depend_neither_on_order_nor_on_line(
    problems: list[Problem], data: Any, shift: int
) -> None:
    def moved(entry: Problem) -> Problem:
        place = replace(entry.location, line=entry.location.line + shift)
        return replace(entry, location=place, hint="another hint", excerpt="anything")

    shuffled = data.draw(st.permutations(problems))
    assert findings(problems=shuffled) == findings(problems=problems)
    assert findings(errors=[SpecError(tuple(shuffled))], problems=problems) == findings(problems=problems)
    before = [finding["fingerprint"] for finding in findings(problems=problems)]
    after = [finding["fingerprint"] for finding in findings(problems=[moved(entry) for entry in shuffled])]
    assert after == before


def test_different_problems_have_different_fingerprints() -> None:
    first = problem("a.yaml", 1, 1, "bad-unit", "`x` has no unit", pointer="spec.a")
    others = [
        replace(first, code="limit"),
        replace(first, pointer="spec.b"),
        replace(first, what="`y` has no unit"),
        replace(first, location=Location(path="b.yaml")),
        replace(first, location=Location(path="a.yaml", line=7)),
    ]
    assert len({finding["fingerprint"] for finding in findings(problems=[first, *others])}) == 6


def test_fingerprint_of_an_error_is_the_same_on_another_machine() -> None:
    def fingerprint(folder: str, address: str) -> str:
        what = f"a template cannot be read: [Errno 2] No such file: '{folder}/x.j2' <x at {address}>"
        (finding,) = findings(errors=[RenderError(what, where="templates/experiment")])
        return str(finding["fingerprint"])

    assert fingerprint("/builds/a/lab", "0x7f3cab") == fingerprint("/home/me/lab", "0x10")


def test_fingerprint_of_a_deletion_does_not_depend_on_its_size() -> None:
    four = plan(experiment("blue", *all_objects(Action.PRUNE, "blue"), without_file=True))
    smaller = plan(
        experiment("blue", change(Action.PRUNE, "Service", "blue"), without_file=True), stops=(LIMIT,)
    )
    first, second = (findings(plan=planned)[0] for planned in (four, smaller))
    assert first["description"] != second["description"]
    assert first["fingerprint"] == second["fingerprint"]
    other = plan(experiment("red", *all_objects(Action.PRUNE, "red"), without_file=True))
    assert findings(plan=other)[0]["fingerprint"] != first["fingerprint"]


def test_fingerprint_of_an_object_does_not_depend_on_the_servers_message() -> None:
    def fingerprint(error: NimlabError, kind: str = "Service") -> str:
        (finding,) = findings(plan=plan(experiment("x", change(Action.UPDATE, kind, "x", error=error))))
        return str(finding["fingerprint"])

    assert fingerprint(Rejected("quota: 3 of 2")) == fingerprint(Rejected("quota: 4 of 2 at 10.0.0.1"))
    assert fingerprint(Rejected("no")) != fingerprint(CONFLICT)
    assert fingerprint(Rejected("no")) != fingerprint(Rejected("no"), kind="ConfigMap")


def test_finding_without_a_file_is_reported_for_lab_yaml() -> None:
    planned = replace(withheld_plan(), refusal=STALE, broken=())
    guard = GuardError("hostNetwork is not allowed", where=key("StatefulSet", full("purple")))
    entries = findings(plan=planned, errors=[guard])
    assert set(places(entries)) == {("lab.yaml", 1)}
    assert (SAMPLE_LAB / "lab.yaml").is_file()
    assert sorted(finding["check_name"] for finding in entries) == [
        "deletion", "guard", "nothing-pruned-limit", "plan",
    ]  # fmt: skip
    (text,) = [finding["description"] for finding in entries if finding["check_name"] == "guard"]
    assert text == "StatefulSet/dst-lab/nimp2p-exp-purple: hostNetwork is not allowed"


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
def test_template_error_is_reported_at_its_line(where: str | None, place: tuple[str, int]) -> None:
    assert places(findings(errors=[RenderError("`x` is undefined", where=where)])) == [place]


def test_paths_are_relative_to_the_repository() -> None:
    entries = findings(problems=[RED_PROBLEM], plan=withheld_plan(), folder="labs/./one/")
    assert {path for path, _ in places(entries)} == {"labs/one/experiments/red.yaml", "labs/one/lab.yaml"}
    dotted = replace(RED_PROBLEM, location=Location(path="./experiments/red.yaml", line=3))
    assert places(findings(problems=[dotted])) == [("experiments/red.yaml", 3)]


def test_broken_file_is_reported_once() -> None:
    planned = plan(broken=(RED,))
    assert [finding["check_name"] for finding in findings(plan=planned)] == ["broken-file"]
    assert places(findings(plan=planned)) == [(RED.source, 1)]
    assert [finding["check_name"] for finding in findings(plan=planned, problems=[RED_PROBLEM])] == [
        "unknown-key"
    ]


def test_hint_is_part_of_the_description() -> None:
    (finding,) = findings(problems=[RED_PROBLEM])
    assert finding["description"] == "unknown key `msgsize` in spec; did you mean `message`?"


def test_report_without_findings_is_empty() -> None:
    assert report.codequality_json() == "[]"
    assert findings(plan=newcomer_plan()) == []


def test_long_lists_of_deleted_objects_end_in_a_count() -> None:
    many = tuple(
        replace(pruned, key=replace(pruned.key, name=f"x{number}"))
        for number, pruned in enumerate(all_objects(Action.PRUNE, "blue") * 3)
    )
    (finding,) = findings(plan=plan(experiment("blue", *many, without_file=True)))
    assert finding["description"].endswith(" and 8 more")
