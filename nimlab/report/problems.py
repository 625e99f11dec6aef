"""Problems and errors -> text in the style of a compiler.

In: what is wrong. Out: where, what, the line itself with the place underlined, and how to mend it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from nimlab.errors import NimlabError, Problem, SpecError
from nimlab.objects.manifest import ObjectKey
from nimlab.report.styled_text import Line, Span, Style, count, escape, flat, hint_line, join, line

_LIMIT: Final = 20
_EXCERPT_COLUMNS: Final = 100  # of a longer line, the part round the problem
_BEFORE_COLUMNS: Final = 40


def format_problems(problems: Sequence[Problem], *, files: int, paint: bool) -> str:
    """Return the problems in their order, at most 20 of them, and how many there are in how many files.

    `files` is how many files were read.
    """
    lines = [part for problem in problems[:_LIMIT] for part in _problem(problem)]
    if len(problems) > _LIMIT:
        lines.append(line(f"… and {count(len(problems) - _LIMIT, 'more problem')}"))
    bad = len({problem.location.path for problem in problems})
    where = f"{bad} of {files} files" if bad < files else count(bad, "file")
    lines.append(line(Span(f"{count(len(problems), 'problem')} in {where}", Style.STRONG)))
    return join(lines, paint=paint)


def format_error(error: NimlabError, *, paint: bool) -> str:
    """Return one error: where, what and how to mend it; every problem of a SpecError."""
    if isinstance(error, SpecError):
        files = len({problem.location.path for problem in error.problems})
        return format_problems(error.problems, files=files, paint=paint)
    return join(error_lines(error), paint=paint)


def error_lines(error: NimlabError) -> list[Line]:
    """Return an error's lines: where and what, then how to mend it."""
    place = "" if error.where is None else f"{error.where}: "
    said = line(place, error_mark(error.code), f": {flat(error.what)}")
    return [said] if error.hint is None else [said, hint_line(error.hint)]


def error_about(error: NimlabError, key: ObjectKey) -> tuple[Span, str]:
    """Return code and text of an error that concerns an object which is named beside it."""
    elsewhere = error.where is not None and error.where != str(key)
    place = f" (at {error.where})" if elsewhere else ""
    return error_mark(error.code), f": {flat(error.what)}{place}"


def error_mark(code: str) -> Span:
    """Return `error[field-conflict]`, or `error` for one without a code of its own."""
    return Span("error" if code == NimlabError.code else f"error[{code}]", Style.BAD)


def format_warnings(warnings: Sequence[Problem], *, paint: bool) -> str:
    """Return what is probably a mistake, in its order, at most 20, and how many there are."""
    lines = [part for problem in warnings[:_LIMIT] for part in _problem(problem)]
    lines.append(line(Span(count(len(warnings), "warning"), Style.STRONG)))
    return join(lines, paint=paint)


def _problem(problem: Problem) -> Iterator[Line]:
    warning = Span(f"warning[{problem.code}]", Style.CHANGED)
    mark = warning if problem.is_warning else error_mark(problem.code)
    yield line(f"{problem.location}: ", mark, f": {flat(problem.what)}")
    if problem.excerpt is not None:
        yield from _excerpt(problem.excerpt, problem)
    if problem.hint is not None:
        yield hint_line(problem.hint)


def _excerpt(text: str, problem: Problem) -> Iterator[Line]:
    """The source line and a mark under the place; what is written out on the way moves the mark."""
    text = text.rstrip("\r\n")
    start = min(problem.location.column - 1, len(text))
    cut = start - _BEFORE_COLUMNS if len(text) > _EXCERPT_COLUMNS else 0
    cut = max(cut, 0)
    end = cut + _EXCERPT_COLUMNS
    lead = ("…" if cut else "") + escape(text[cut:start])
    marked = escape(text[start : min(start + problem.width, end)])
    rest = escape(text[start + problem.width : end]) + ("…" if end < len(text) else "")
    yield line(Span(f"{problem.location.line:>4} | ", Style.FAINT), lead + marked + rest)
    mark = " " * len(lead) + "^" * max(len(marked), 1)
    yield line(Span("     | ", Style.FAINT), Span(mark, Style.BAD))
