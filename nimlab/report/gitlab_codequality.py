"""Problems of files and errors of a plan -> GitLab's Code Quality report.

In: problems, errors, and the deletions of a plan. Out: JSON text with one entry per finding. GitLab
recognises a finding in another pipeline by its fingerprint, so the fingerprint must not depend on line
numbers, the order of the findings or the machine. GitLab requires that the file of a finding exists.
Therefore a finding without a file is reported for `lab.yaml`, which every lab has.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from nimlab.errors import Location, NimlabError, Problem, RenderError, SpecError
from nimlab.plan.make_plan import ExperimentPlan, Plan
from nimlab.report.deletions import Deletion, deletions_of
from nimlab.report.styled_text import escape, flat, named_list

_LAB_FILE: Final = Location(path="lab.yaml")
_DELETION: Final = "deletion"
_MAX_KEYS: Final = 4
_TEMPLATE_PLACE: Final = re.compile(r"(?P<path>[^:]+)(:(?P<line>[0-9]{1,9}))?")
# These parts of a text may differ between runs or machines: addresses, numbers, absolute paths.
_VARYING: Final = re.compile(r"0x[0-9a-f]+|[0-9]+|(?<!\w)/\S+")


class _Severity(Enum):
    """The severity of a finding, in GitLab's terms."""

    BLOCKER = "blocker"  # the plan is refused
    CRITICAL = "critical"  # a file is invalid, or an object cannot be applied
    MAJOR = "major"  # objects are or would be deleted
    MINOR = "minor"  # a warning about a valid file


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finding:
    """One entry of the report. Its `code`, path and `identity` identify it; the rest may change."""

    code: str
    severity: _Severity
    place: Location
    what: str
    identity: str


def codequality_json(
    *,
    problems: Sequence[Problem] = (),
    errors: Sequence[NimlabError] = (),
    plan: Plan | None = None,
    folder: str = "",
) -> str:
    """Return the report: first the deletions, then the other findings by file and line.

    A problem that is passed twice, alone and in a SpecError, is reported once. `folder` is the path of the
    lab in its repository (such as `labs/one`), because GitLab expects paths relative to the repository. It is
    empty if the lab is at the root of the repository.
    """
    in_errors = (p for error in errors if isinstance(error, SpecError) for p in error.problems)
    findings = [_of_problem(problem) for problem in dict.fromkeys([*problems, *in_errors])]
    findings += [_of_error(error) for error in errors if not isinstance(error, SpecError)]
    if plan is not None:
        findings += _of_plan(plan)
        findings += _of_broken(plan, frozenset(finding.place.path for finding in findings))
    findings.sort(key=_sort_key)
    seen: Counter[tuple[str, ...]] = Counter()
    return json.dumps([_entry(finding, folder, seen) for finding in findings], indent=2)


def _sort_key(finding: _Finding) -> tuple[bool, Location, str, str, str]:
    return (finding.code != _DELETION, finding.place, finding.code, finding.identity, finding.what)


def _of_problem(problem: Problem) -> _Finding:
    return _Finding(
        code=problem.code,
        severity=_Severity.MINOR if problem.is_warning else _Severity.CRITICAL,
        place=problem.location,
        what=_sentence(problem.what, problem.hint),
        identity=f"{problem.pointer}\0{_VARYING.sub('0', problem.what)}",
    )


def _of_error(error: NimlabError) -> _Finding:
    """Return the finding for an error. Its file is the template of a RenderError, otherwise `lab.yaml`."""
    place = _template_place(error) if isinstance(error, RenderError) else None
    prefix = "" if place or error.where is None else f"{error.where}: "
    return _Finding(
        code=error.code,
        severity=_Severity.CRITICAL,
        place=place or _LAB_FILE,
        what=_sentence(prefix + error.what, error.hint),
        identity=_VARYING.sub("0", prefix + error.what),
    )


def _template_place(error: RenderError) -> Location | None:
    match = _TEMPLATE_PLACE.fullmatch(error.where or "")
    return Location(path=match["path"], line=int(match["line"] or 1)) if match else None


def _of_plan(plan: Plan) -> Iterator[_Finding]:
    yield from (_of_deletion(deletion) for deletion in deletions_of(plan))
    for stop in plan.stops:
        yield _Finding(
            code=f"nothing-pruned-{stop.code}",
            severity=_Severity.MAJOR,
            place=_LAB_FILE,
            what=_sentence(f"nothing is pruned: {stop.what}", stop.hint),
            identity="",
        )
    if plan.refusal is not None:
        yield _Finding(
            code=plan.refusal.code,
            severity=_Severity.BLOCKER,
            place=_LAB_FILE,
            what=_sentence(f"nothing is done: {plan.refusal.what}", plan.refusal.hint),
            identity="refusal",
        )
    for experiment in plan.experiments:
        yield from _of_experiment(experiment)


def _of_experiment(experiment: ExperimentPlan) -> Iterator[_Finding]:
    if experiment.held:
        yield _Finding(
            code="held-back",
            severity=_Severity.MAJOR,
            place=_source(experiment.source),
            what=f"{experiment.name} is not created while prunes are withheld",
            identity=experiment.name,
        )
    for change in experiment.changes:
        if change.error is not None:
            yield _Finding(
                code=change.error.code,
                severity=_Severity.CRITICAL,
                place=_source(experiment.source),
                what=_sentence(f"{change.key}: {change.error.what}", change.error.hint),
                identity=str(change.key),
            )


def _of_deletion(deletion: Deletion) -> _Finding:
    part = deletion.part
    keys = named_list([str(change.key) for change in part.changes], limit=_MAX_KEYS)
    return _Finding(
        code=_DELETION,
        severity=_Severity.MAJOR,
        place=_source(part.source),
        what=_sentence(f"{deletion.planned}: {keys}", part.changes[0].reason or None),
        identity=f"{part.name}\0{deletion.recreated}",
    )


def _of_broken(plan: Plan, reported: frozenset[str]) -> Iterator[_Finding]:
    """Yield a finding for each broken file that has no finding yet."""
    for broken in plan.broken:
        if broken.source not in reported and broken.cause not in reported:
            yield _Finding(
                code="broken-file",
                severity=_Severity.CRITICAL,
                place=Location(path=broken.source),
                what="the file is invalid, so its objects are not changed; run `nimlab validate`",
                identity=broken.name,
            )


def _source(path: str | None) -> Location:
    return _LAB_FILE if path is None else Location(path=path)


def _sentence(what: str, hint: str | None) -> str:
    return flat(what) if hint is None else f"{flat(what)}; {flat(hint)}"


def _entry(finding: _Finding, folder: str, seen: Counter[tuple[str, ...]]) -> dict[str, Any]:
    """Return a finding as GitLab expects it; a number in the fingerprint distinguishes equal findings."""
    path = _in_repository(finding.place.path, folder)
    line = finding.place.line if path else 1
    path = path or _in_repository(_LAB_FILE.path, folder) or _LAB_FILE.path
    same = (finding.code, path, finding.identity)
    identity = "\0".join((*same, str(seen[same])))
    seen[same] += 1
    return {
        "description": escape(finding.what),
        "check_name": finding.code,
        "fingerprint": hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest(),
        "severity": finding.severity.value,
        "location": {"path": path, "lines": {"begin": max(line, 1)}},
    }


def _in_repository(path: str, folder: str) -> str | None:
    """Return the path relative to the repository's root; None if it is outside of the repository.

    Bytes that are not UTF-8 are replaced, because GitLab ignores all entries after an unreadable entry.
    """
    joined = posixpath.normpath(posixpath.join(folder, path))
    if joined.startswith(("/", "../")) or joined in (".", ".."):
        return None
    return joined.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
