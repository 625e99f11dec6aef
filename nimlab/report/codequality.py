"""Problems of files and errors of a plan -> GitLab's Code Quality report: marks on files.

In: what is wrong, and what a plan deletes. Out: JSON text, one entry for each mark. A mark's fingerprint
tells GitLab that it is the same as in another pipeline: it depends on neither line numbers nor the order nor
the machine. GitLab needs a file that is there: what belongs to none is marked on `lab.yaml`, which every lab
has.
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
from nimlab.plan.make_plan import Plan
from nimlab.report.deletions import Deletion, deletions_of
from nimlab.report.styled_text import escape, flat, named_list

_ANCHOR: Final = Location(path="lab.yaml")
_DELETION: Final = "deletion"
_KEYS: Final = 4
_PLACE: Final = re.compile(r"(?P<path>[^:]+)(:(?P<line>[0-9]{1,9}))?")
# What differs from run to run, or from machine to machine, in what is otherwise the same text.
_MOVING: Final = re.compile(r"0x[0-9a-f]+|[0-9]+|(?<!\w)/\S+")


class _Severity(Enum):
    """How loud a mark is, in GitLab's words."""

    BLOCKER = "blocker"  # nothing at all is done
    CRITICAL = "critical"  # a file can't be used, or an object can't be applied
    MAJOR = "major"  # something is deleted, or would be
    MINOR = "minor"  # a warning about a file that is used all the same


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mark:
    """One entry; `code`, path and `identity` make it what it is, the rest may change."""

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
    """Return the marks, deletions first, then by file and line.

    A problem may be given twice, alone and in a SpecError. `folder` is where the lab lies in its repository
    (`labs/one`), since GitLab counts paths from there; empty where it is the repository.
    """
    given = [*problems, *(p for e in errors if isinstance(e, SpecError) for p in e.problems)]
    marks = [_of_problem(problem) for problem in dict.fromkeys(given)]
    marks += [_of_error(error) for error in errors if not isinstance(error, SpecError)]
    if plan is not None:
        marks += _of_plan(plan)
        marks += _of_broken(plan, frozenset(mark.place.path for mark in marks))
    marks.sort(key=lambda mark: (mark.code != _DELETION, mark.place, mark.code, mark.identity, mark.what))
    seen: Counter[tuple[str, ...]] = Counter()
    return json.dumps([_entry(mark, folder, seen) for mark in marks], indent=2)


def _of_problem(problem: Problem) -> _Mark:
    return _Mark(
        code=problem.code,
        severity=_Severity.MINOR if problem.is_warning else _Severity.CRITICAL,
        place=problem.location,
        what=_sentence(problem.what, problem.hint),
        identity=f"{problem.pointer}\0{_MOVING.sub('0', problem.what)}",
    )


def _of_error(error: NimlabError) -> _Mark:
    """An error of the files that is no problem: a template's names its file, others name an object."""
    found = _PLACE.fullmatch(error.where or "") if isinstance(error, RenderError) else None
    place = Location(path=found["path"], line=int(found["line"] or 1)) if found else _ANCHOR
    about = "" if found or error.where is None else f"{error.where}: "
    return _Mark(
        code=error.code,
        severity=_Severity.CRITICAL,
        place=place,
        what=_sentence(about + error.what, error.hint),
        identity=_MOVING.sub("0", about + error.what),
    )


def _of_plan(plan: Plan) -> Iterator[_Mark]:
    for deletion in deletions_of(plan):
        yield _of_deletion(deletion)
    for stop in plan.stops:
        yield _Mark(
            code=f"nothing-pruned-{stop.code}",
            severity=_Severity.MAJOR,
            place=_ANCHOR,
            what=_sentence(f"nothing is pruned: {stop.what}", stop.hint),
            identity="",
        )
    if plan.refusal is not None:
        yield _Mark(
            code=plan.refusal.code,
            severity=_Severity.BLOCKER,
            place=_ANCHOR,
            what=_sentence(f"nothing is done: {plan.refusal.what}", plan.refusal.hint),
            identity="refusal",
        )
    for one in plan.experiments:
        if one.held:
            yield _Mark(
                code="held-back",
                severity=_Severity.MAJOR,
                place=_source(one.source),
                what=f"{one.name} is not created while prunes are withheld",
                identity=one.name,
            )
        for change in one.changes:
            if change.error is not None:
                yield _Mark(
                    code=change.error.code,
                    severity=_Severity.CRITICAL,
                    place=_source(one.source),
                    what=_sentence(f"{change.key}: {change.error.what}", change.error.hint),
                    identity=str(change.key),
                )


def _of_deletion(deletion: Deletion) -> _Mark:
    part = deletion.part
    keys = named_list([str(change.key) for change in part.changes], limit=_KEYS)
    return _Mark(
        code=_DELETION,
        severity=_Severity.MAJOR,
        place=_source(part.source),
        what=_sentence(f"{deletion.planned}: {keys}", part.changes[0].reason or None),
        identity=f"{part.name}\0{deletion.remade}",
    )


def _of_broken(plan: Plan, marked: frozenset[str]) -> Iterator[_Mark]:
    """Files that can't be used, and that no mark tells of yet."""
    for broken in plan.broken:
        if broken.source not in marked and broken.cause not in marked:
            yield _Mark(
                code="broken-file",
                severity=_Severity.CRITICAL,
                place=Location(path=broken.source),
                what="it can't be used: nothing of it is touched; `nimlab validate` shows what is wrong",
                identity=broken.name,
            )


def _source(path: str | None) -> Location:
    return _ANCHOR if path is None else Location(path=path)


def _sentence(what: str, hint: str | None) -> str:
    return flat(what) if hint is None else f"{flat(what)}; {flat(hint)}"


def _entry(mark: _Mark, folder: str, seen: Counter[tuple[str, ...]]) -> dict[str, Any]:
    """The mark as GitLab reads it; of several that are the same but for their lines, each is counted."""
    path = _in_repository(mark.place.path, folder)
    line = mark.place.line if path else 1
    path = path or _in_repository(_ANCHOR.path, folder) or _ANCHOR.path
    same = (mark.code, path, mark.identity)
    text = "\0".join((*same, str(seen[same])))
    seen[same] += 1
    return {
        "description": escape(mark.what),
        "check_name": mark.code,
        "fingerprint": hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
        "severity": mark.severity.value,
        "location": {"path": path, "lines": {"begin": max(line, 1)}},
    }


def _in_repository(path: str, folder: str) -> str | None:
    """The path from the repository's root; None where it leads out of it.

    A name that isn't text is shown as far as it is: GitLab drops all that follows an entry it can't read.
    """
    whole = posixpath.normpath(posixpath.join(folder, path))
    if whole.startswith(("/", "../")) or whole in (".", ".."):
        return None
    return whole.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
