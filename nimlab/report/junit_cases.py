"""A plan, or the result of its sync -> GitLab's unit test report: one test case per experiment.

In: a plan and, after a sync, its events. Out: JUnit XML in ASCII. Deletions come first, as cases of their own
with names such as `blue: WOULD DELETE 4 objects`. The text of a case is the same as in the terminal. GitLab
identifies a case by suite, class and name, so the name of an experiment's case never changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from nimlab.errors import NimlabError, Problem, SpecError
from nimlab.objects.manifest import ObjectKey
from nimlab.plan.change import Action
from nimlab.plan.make_plan import ExperimentPlan, Plan
from nimlab.plan.sync_events import Event, ObjectDone, Outcome
from nimlab.report.change_lines import align_resources, experiment_lines, layout_of
from nimlab.report.deletions import Deletion, deletions_of, is_only_deleted
from nimlab.report.event_lines import done_lines, format_event
from nimlab.report.file_problems import error_about, format_error, format_problems
from nimlab.report.junit_xml import Element, JunitCase, Verdict, write_document
from nimlab.report.outcomes_by_object import SyncResult, result_of
from nimlab.report.styled_text import escape, flat, hint_line, join, line, shown_name
from nimlab.report.totals import withholds_prunes


def junit_xml(
    plan: Plan,
    events: Sequence[Event] | None,
    *,
    errors: Sequence[NimlabError] = (),
    removed_in: Mapping[str, str],
) -> str:
    """Return the report of a plan, or with `events` the report of the sync that carried it out.

    `errors` are the errors of files. `removed_in` contains, by experiment, the commit that removed its file.
    A blocked object or an experiment that is not ready is a failure. An invalid file or an object that could
    not be changed is an error. A change that was not attempted, or a planned deletion, is a skipped case.
    """
    result = None if events is None else result_of(plan, events)
    without_case = frozenset(e.name for e in plan.experiments if is_only_deleted(e))
    cases = [
        *(_deletion_case(d, plan, result, removed_in, without_case) for d in deletions_of(plan)),
        *_stop_cases(plan),
        *_refusal_case(plan),
        *_file_cases(plan, errors),
        *(
            _experiment_case(e, plan, result, removed_in)
            for e in plan.experiments
            if e.name not in without_case
        ),
    ]
    return write_document(f"nimlab.{plan.apply_set.name}", _with_unique_names(cases))


def _deletion_case(
    deletion: Deletion,
    plan: Plan,
    result: SyncResult | None,
    removed_in: Mapping[str, str],
    without_case: frozenset[str],
) -> JunitCase:
    """Return the case of a deletion.

    The case also shows the wait for the peers if the experiment has no other case.
    """
    part = deletion.part
    if result is None:
        reason = _why_withheld(plan) if deletion.withheld else deletion.planned
        code = "withheld" if deletion.withheld else "deletion"
        return JunitCase(
            name=deletion.planned,
            file=part.source,
            text=_plan_text(part, plan, removed_in),
            verdict=Verdict(element=Element.SKIPPED, code=code, reason=reason),
        )
    outcomes = (result.outcomes[change.key].outcome for change in part.changes)
    done = sum(outcome in (Outcome.PRUNED, Outcome.REPLACED) for outcome in outcomes)
    name, waits = deletion.carried_out(done), part.name in without_case
    return _result_case(name, part, plan, result, waits=waits)


def _stop_cases(plan: Plan) -> Iterator[JunitCase]:
    for stop in plan.stops:
        verdict = Verdict(element=Element.FAILURE, code=stop.code, reason=stop.what)
        text = join([line("nothing is pruned: ", flat(stop.what)), hint_line(stop.hint)], paint=False)
        yield JunitCase(name=f"NOTHING IS DELETED: {stop.code}", text=text, verdict=verdict)


def _refusal_case(plan: Plan) -> Iterator[JunitCase]:
    if plan.refusal is not None:
        verdict = Verdict(element=Element.ERROR, code=plan.refusal.code, reason=plan.refusal.what)
        yield JunitCase(name="NOTHING IS DONE", text=format_error(plan.refusal, paint=False), verdict=verdict)


def _file_cases(plan: Plan, errors: Sequence[NimlabError]) -> Iterator[JunitCase]:
    """Yield one case per broken file, and one case for all other problems and errors."""
    problems = [p for error in errors if isinstance(error, SpecError) for p in error.problems]
    for broken in plan.broken:
        reason = f"{broken}: its objects are not changed"
        text = _problems_text([p for p in problems if p.location.path == broken.source])
        yield JunitCase(
            name=shown_name(broken.name),
            file=broken.source,
            text="\n".join(filter(None, (escape(reason), text))),
            verdict=Verdict(element=Element.ERROR, code="broken-file", reason=reason),
        )
    sources = {broken.source for broken in plan.broken}
    other_problems = _problems_text([p for p in problems if p.location.path not in sources])
    other_errors = [format_error(e, paint=False) for e in errors if not isinstance(e, SpecError)]
    texts = [text for text in (other_problems, *other_errors) if text]
    if texts:
        verdict = Verdict(element=Element.ERROR, code="broken-file", reason=texts[0].splitlines()[0])
        yield JunitCase(name="(lab)", text="\n".join(texts), verdict=verdict)


def _problems_text(problems: Sequence[Problem]) -> str:
    files = len({problem.location.path for problem in problems})
    return format_problems(problems, files=files, paint=False) if problems else ""


def _experiment_case(
    experiment: ExperimentPlan, plan: Plan, result: SyncResult | None, removed_in: Mapping[str, str]
) -> JunitCase:
    name = shown_name(experiment.name)
    if result is not None:
        return _result_case(name, experiment, plan, result, waits=True)
    text = _plan_text(experiment, plan, removed_in)
    verdict = None
    blocked = next((change for change in experiment.changes if change.error is not None), None)
    if blocked is not None and blocked.error is not None:
        reason = _error_text(blocked.error, blocked.key)
        verdict = Verdict(element=Element.FAILURE, code=blocked.error.code, reason=reason)
    elif plan.refusal is not None and any(c.action is not Action.KEEP for c in experiment.changes):
        verdict = Verdict(element=Element.SKIPPED, code="not-attempted", reason=_why_withheld(plan))
    return JunitCase(name=name, file=experiment.source, text=text, verdict=verdict)


def _result_case(
    name: str, part: ExperimentPlan, plan: Plan, result: SyncResult, *, waits: bool
) -> JunitCase:
    """Return the case that shows the outcomes of objects and, if `waits` is set, the state of the peers."""
    outcomes = [result.outcomes[change.key] for change in part.changes]
    lines = [text for done in outcomes for text in done_lines(done, shown_name(part.name))]
    texts = [join(lines, paint=False)]
    verdict = _outcome_verdict(part, outcomes, plan)
    peers = result.peers.get(part.name) if waits else None
    if peers is not None:
        message = format_event(peers.event, paint=False) or ""
        texts.append(message)
        if not peers.settled and (verdict is None or verdict.element == Element.SKIPPED):
            verdict = Verdict(element=Element.FAILURE, code="not-ready", reason=message.splitlines()[0])
    return JunitCase(
        name=name,
        file=part.source,
        text="\n".join(text for text in texts if text),
        verdict=verdict,
        time_s=peers.waited_s if peers else 0.0,
    )


def _outcome_verdict(part: ExperimentPlan, outcomes: Sequence[ObjectDone], plan: Plan) -> Verdict | None:
    """Return the verdict of the worst change; None if all changes were made.

    The worst change is one that failed, then one that was blocked, then one that was not attempted.
    """
    blocked = {change.key for change in part.changes if change.error is not None}
    failed = [done for done in outcomes if done.outcome is Outcome.FAILED]
    failed.sort(key=lambda done: done.key in blocked)
    if failed:
        element = Element.FAILURE if failed[0].key in blocked else Element.ERROR
        return _object_verdict(failed[0], element)
    skipped = next((done for done in outcomes if done.outcome is Outcome.NOT_ATTEMPTED), None)
    if skipped is None:
        return None
    if skipped.error is None:
        return Verdict(element=Element.SKIPPED, code=skipped.outcome.value, reason=_why_withheld(plan))
    return replace(_object_verdict(skipped, Element.SKIPPED), code=skipped.outcome.value)


def _object_verdict(done: ObjectDone, element: Element) -> Verdict:
    if done.error is None:
        return Verdict(element=element, code=done.outcome.value, reason=f"{done.key}: {done.outcome.value}")
    return Verdict(element=element, code=done.error.code, reason=_error_text(done.error, done.key))


def _why_withheld(plan: Plan) -> str:
    if plan.refusal is not None:
        return f"nothing is done: {plan.refusal.what}"
    if plan.stops:
        return f"nothing is pruned: {plan.stops[0].what}"
    return "not attempted: another change failed, or the sync was stopped"


def _error_text(error: NimlabError, key: ObjectKey) -> str:
    label, what = error_about(error, key)
    return f"{key}: {label.text}{what}"


def _plan_text(experiment: ExperimentPlan, plan: Plan, removed_in: Mapping[str, str]) -> str:
    """Return the experiment's lines in the plan, with secrets hidden."""
    layout = layout_of(experiment.changes, verbose=False)
    entries = experiment_lines(
        experiment, layout, removed_in=removed_in.get(experiment.name), withheld=withholds_prunes(plan)
    )
    return join(align_resources(entries), paint=False)


def _with_unique_names(cases: Sequence[JunitCase]) -> list[JunitCase]:
    """Number cases with the same name, because GitLab drops all but one of them."""
    seen: Counter[str] = Counter()
    unique = []
    for case in cases:
        seen[case.name] += 1
        number = seen[case.name]
        unique.append(case if number == 1 else replace(case, name=f"{case.name} ({number})"))
    return unique
