"""A plan, or what became of it -> GitLab's unit test report: one test case for each experiment.

In: a plan and, after a sync, its events. Out: JUnit XML in ASCII. Deletions come first, as cases of their
own with loud names; the text of a case is the text that people read elsewhere. GitLab shows an element's
content, not its `message`, and tells cases apart by suite, class and name: what isn't a deletion keeps its
name whatever happens to it.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from nimlab.errors import NimlabError, Problem, SpecError
from nimlab.objects.manifest import ObjectKey
from nimlab.plan.change import Action
from nimlab.plan.make_plan import ExperimentPlan, Plan
from nimlab.plan.sync_events import (
    Event,
    ExperimentSettled,
    ExperimentStuck,
    ObjectDone,
    Outcome,
    PeersProgress,
)
from nimlab.report.change_lines import experiment_entries, layout_of, set_right
from nimlab.report.deletions import Deletion, deletions_of, is_gone
from nimlab.report.event_lines import done_lines, format_event
from nimlab.report.problems import error_about, format_error, format_problems
from nimlab.report.styled_text import escape, flat, hint_line, join, line
from nimlab.report.totals import Peers, outcomes_of, peers_by_experiment

_HEAD: Final = '<?xml version="1.0" encoding="UTF-8"?>\n'
_CLASS: Final = "nimlab"
_FAILURE, _ERROR, _SKIPPED = "failure", "error", "skipped"
_ATTACHMENT: Final = (
    "[[ATTACHMENT|",
    "[ [ATTACHMENT|",
)  # GitLab would link what follows to a file of the job


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    """Why a case doesn't pass: the element, a word for programs, and the reason on one line."""

    element: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    name: str
    text: str = ""
    file: str | None = None
    verdict: _Verdict | None = None
    time_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """What the events tell of a sync."""

    outcomes: Mapping[ObjectKey, ObjectDone]
    peers: Mapping[str, Peers]
    heard: Mapping[str, Event]


def junit_xml(
    plan: Plan,
    events: Sequence[Event] | None,
    *,
    errors: Sequence[NimlabError] = (),
    removed_in: Mapping[str, str],
) -> str:
    """Return the cases of a plan, or with `events` of a sync that carried it out.

    `errors` say what is wrong with the files that can't be used; `removed_in` names the commits that removed
    files, by experiment. A failure is what can't be or isn't as its file says, an error what broke on the
    way, skipped what was not attempted; what a plan would delete is skipped too.
    """
    run = None if events is None else _run(plan, events)
    gone = frozenset(one.name for one in plan.experiments if is_gone(one))
    cases = [
        *(_deletion_case(found, plan, run, removed_in, gone) for found in deletions_of(plan)),
        *_stop_cases(plan),
        *_refusal_case(plan),
        *_file_cases(plan, errors),
        *(_experiment_case(one, plan, run, removed_in) for one in plan.experiments if one.name not in gone),
    ]
    return _document(f"{_CLASS}.{plan.apply_set.name}", _unique(cases))


def _run(plan: Plan, events: Sequence[Event]) -> _Run:
    waiting = (ExperimentSettled, ExperimentStuck, PeersProgress)
    return _Run(
        outcomes=outcomes_of(plan, events),
        peers=peers_by_experiment(events),
        heard={event.experiment: event for event in events if isinstance(event, waiting)},
    )


def _deletion_case(
    found: Deletion, plan: Plan, run: _Run | None, removed_in: Mapping[str, str], gone: frozenset[str]
) -> _Case:
    """A deletion; of an experiment that is gone, no other case tells."""
    part = found.part
    if run is None:
        text = _plan_text(part, plan, removed_in)
        reason = _why_withheld(plan) if found.withheld else found.planned
        verdict = _Verdict(element=_SKIPPED, code="withheld" if found.withheld else "deletion", reason=reason)
        return _Case(name=found.planned, file=part.source, text=text, verdict=verdict)
    done = sum(
        run.outcomes[change.key].outcome in (Outcome.PRUNED, Outcome.REPLACED) for change in part.changes
    )
    return _run_case(found.carried_out(done), part, plan, run, wait=part.name in gone)


def _stop_cases(plan: Plan) -> Iterator[_Case]:
    for stop in plan.stops:
        verdict = _Verdict(element=_FAILURE, code=stop.code, reason=stop.what)
        text = join([line("nothing is pruned: ", flat(stop.what)), hint_line(stop.hint)], paint=False)
        yield _Case(name=f"NOTHING IS DELETED: {stop.code}", text=text, verdict=verdict)


def _refusal_case(plan: Plan) -> Iterator[_Case]:
    if plan.refusal is not None:
        verdict = _Verdict(element=_ERROR, code=plan.refusal.code, reason=plan.refusal.what)
        yield _Case(name="NOTHING IS DONE", text=format_error(plan.refusal, paint=False), verdict=verdict)


def _file_cases(plan: Plan, errors: Sequence[NimlabError]) -> Iterator[_Case]:
    """The files that can't be used, each with its problems; what concerns none of them, together."""
    problems = [p for error in errors if isinstance(error, SpecError) for p in error.problems]
    for broken in plan.broken:
        reason = f"{broken}: nothing of it is touched"
        text = _problems_text([p for p in problems if p.location.path == broken.source])
        yield _Case(
            name=broken.name or "(none)",
            file=broken.source,
            text="\n".join(filter(None, (escape(reason), text))),
            verdict=_Verdict(element=_ERROR, code="broken-file", reason=reason),
        )
    sources = {broken.source for broken in plan.broken}
    left = _problems_text([p for p in problems if p.location.path not in sources])
    others = [format_error(error, paint=False) for error in errors if not isinstance(error, SpecError)]
    texts = [text for text in (left, *others) if text]
    if texts:
        reason = texts[0].splitlines()[0]
        verdict = _Verdict(element=_ERROR, code="broken-file", reason=reason)
        yield _Case(name="(lab)", text="\n".join(texts), verdict=verdict)


def _problems_text(problems: Sequence[Problem]) -> str:
    files = len({problem.location.path for problem in problems})
    return format_problems(problems, files=files, paint=False) if problems else ""


def _experiment_case(
    one: ExperimentPlan, plan: Plan, run: _Run | None, removed_in: Mapping[str, str]
) -> _Case:
    name = one.name or "(none)"
    if run is not None:
        return _run_case(name, one, plan, run, wait=True)
    text = _plan_text(one, plan, removed_in)
    verdict = None
    blocked = next((change for change in one.changes if change.error is not None), None)
    if blocked is not None and blocked.error is not None:
        reason = _error_text(blocked.error, blocked.key)
        verdict = _Verdict(element=_FAILURE, code=blocked.error.code, reason=reason)
    elif plan.refusal is not None and any(change.action is not Action.KEEP for change in one.changes):
        verdict = _Verdict(element=_SKIPPED, code="not-attempted", reason=_why_withheld(plan))
    return _Case(name=name, file=one.source, text=text, verdict=verdict)


def _run_case(name: str, part: ExperimentPlan, plan: Plan, run: _Run, *, wait: bool) -> _Case:
    """What became of these objects and, with `wait`, of the experiment's peers."""
    outcomes = [run.outcomes[change.key] for change in part.changes]
    peers, heard = run.peers.get(part.name), run.heard.get(part.name)
    lines = [text for done in outcomes for text in done_lines(done, part.name or "(none)")]
    texts = [join(lines, paint=False)]
    verdict = _done_verdict(part, outcomes, plan)
    if wait and peers is not None and heard is not None:
        told = format_event(heard, paint=False) or ""
        texts.append(told)
        if not peers.settled and (verdict is None or verdict.element == _SKIPPED):
            verdict = _Verdict(element=_FAILURE, code="not-ready", reason=told.splitlines()[0])
    return _Case(
        name=name,
        file=part.source,
        text="\n".join(text for text in texts if text),
        verdict=verdict,
        time_s=peers.waited_s if wait and peers else 0.0,
    )


def _done_verdict(part: ExperimentPlan, outcomes: Sequence[ObjectDone], plan: Plan) -> _Verdict | None:
    """What broke comes before what was blocked, and that before what was not attempted."""
    blocked = {change.key for change in part.changes if change.error is not None}
    failed = [done for done in outcomes if done.outcome is Outcome.FAILED]
    failed.sort(key=lambda done: done.key in blocked)
    if failed:
        element = _FAILURE if failed[0].key in blocked else _ERROR
        return _not_done(failed[0], element, Outcome.FAILED.value)
    left = next((done for done in outcomes if done.outcome is Outcome.NOT_ATTEMPTED), None)
    if left is None:
        return None
    if left.error is None:
        return _Verdict(element=_SKIPPED, code=left.outcome.value, reason=_why_withheld(plan))
    return replace(_not_done(left, _SKIPPED, ""), code=left.outcome.value)


def _not_done(done: ObjectDone, element: str, otherwise: str) -> _Verdict:
    if done.error is None:
        return _Verdict(element=element, code=otherwise, reason=f"{done.key}: {done.outcome.value}")
    return _Verdict(element=element, code=done.error.code, reason=_error_text(done.error, done.key))


def _why_withheld(plan: Plan) -> str:
    if plan.refusal is not None:
        return f"nothing is done: {plan.refusal.what}"
    if plan.stops:
        return f"nothing is pruned: {plan.stops[0].what}"
    return "it was not attempted, since something else went wrong or the sync was stopped"


def _error_text(error: NimlabError, key: ObjectKey) -> str:
    mark, what = error_about(error, key)
    return f"{key}: {mark.text}{what}"


def _plan_text(one: ExperimentPlan, plan: Plan, removed_in: Mapping[str, str]) -> str:
    """The experiment's lines of the plan, with their masks."""
    layout = layout_of(one.changes, verbose=False)
    withheld = bool(plan.stops or plan.refusal)
    entries = experiment_entries(one, layout, removed_in=removed_in.get(one.name), withheld=withheld)
    return join(set_right(entries), paint=False)


def _unique(cases: Sequence[_Case]) -> list[_Case]:
    """GitLab drops a case whose name another has: the second gets a number."""
    seen: Counter[str] = Counter()
    found = []
    for case in cases:
        seen[case.name] += 1
        number = seen[case.name]
        found.append(case if number == 1 else replace(case, name=f"{case.name} ({number})"))
    return found


def _document(name: str, cases: Sequence[_Case]) -> str:
    elements = Counter(case.verdict.element for case in cases if case.verdict)
    sums = {
        "tests": str(len(cases)),
        "failures": str(elements[_FAILURE]),
        "errors": str(elements[_ERROR]),
    }
    time = {"time": f"{sum(case.time_s for case in cases):.3f}"}
    shown = "".join(f"\n{_case_element(case, name)}" for case in cases)
    suite = {"name": name, **sums, "skipped": str(elements[_SKIPPED]), **time}
    inner = _element("testsuite", suite, f"{shown}\n  ", indent=2)
    text = _HEAD + _element("testsuites", {"name": _CLASS, **sums, **time}, f"\n{inner}\n")
    return text.replace(*_ATTACHMENT).encode("ascii", "xmlcharrefreplace").decode("ascii")


def _case_element(case: _Case, class_name: str) -> str:
    attributes = {"classname": class_name, "name": case.name}
    attributes |= {"file": case.file} if case.file is not None else {}
    attributes["time"] = f"{case.time_s:.3f}"
    inner = ""
    if case.verdict is not None:
        reason = escape(flat(case.verdict.reason)) or case.verdict.code
        # prefixed, since GitLab's reader takes a bare `file` or `symbol` for the type of the content
        marks = {"type": f"{_CLASS}.{case.verdict.code}", "message": reason}
        text = case.text if reason in case.text else f"{reason}\n{case.text}".rstrip()
        inner = _element(case.verdict.element, marks, html.escape(text, quote=False), 6)
    elif case.text:
        inner = _element("system-out", {}, html.escape(case.text, quote=False), 6)
    return _element("testcase", attributes, f"\n{inner}\n    " if inner else "", 4)


def _element(name: str, attributes: Mapping[str, str], content: str, indent: int = 0) -> str:
    """An element with content that is XML already; attributes can hold anything."""
    head = "".join(f' {key}="{html.escape(escape(value))}"' for key, value in attributes.items())
    return f"{' ' * indent}<{name}{head}>{content}</{name}>"
