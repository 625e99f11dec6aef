"""Problems and errors -> text in the style of a compiler.

In: problems and errors. Out: text with the position, the problem, the underlined source line and a hint.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from nimlab.errors import NimlabError, Problem, SpecError, truncate
from nimlab.objects.manifest import ObjectKey
from nimlab.report.cut_text import cut_start
from nimlab.report.styled_text import Line, Span, Style, count, escape, flat, hint_line, join, line

_LIMIT: Final = 20
_EXCERPT_COLUMNS: Final = 100  # if a source line is longer, only the part around the problem is shown
_BEFORE_COLUMNS: Final = 40


def format_problems(problems: Sequence[Problem], *, files: int, paint: bool) -> str:
    """Return the first 20 problems in the given order, then the number of problems and affected files.

    `files` is the number of files that were read.
    """
    lines = [text for problem in problems[:_LIMIT] for text in _problem_lines(problem)]
    if len(problems) > _LIMIT:
        lines.append(line(f"… and {count(len(problems) - _LIMIT, 'more problem')}"))
    bad_files = len({problem.location.path for problem in problems})
    where = f"{bad_files} of {files} files" if bad_files < files else count(bad_files, "file")
    lines.append(line(Span(f"{count(len(problems), 'problem')} in {where}", Style.STRONG)))
    return join(lines, paint=paint)


def format_error(error: NimlabError, *, paint: bool) -> str:
    """Return the text of an error: its place, what is wrong, the hint. A SpecError may have many problems."""
    if isinstance(error, SpecError):
        files = len({problem.location.path for problem in error.problems})
        return format_problems(error.problems, files=files, paint=paint)
    return join(error_lines(error), paint=paint)


def error_lines(error: NimlabError) -> list[Line]:
    """Return the lines of an error: first where it occurred and what is wrong, then the hint."""
    place = "" if error.where is None else f"{error.where}: "
    message = line(place, error_label(error.code), f": {flat(error.what)}")
    return [message] if error.hint is None else [message, hint_line(error.hint)]


def error_about(error: NimlabError, key: ObjectKey) -> tuple[Span, str]:
    """Return the label and the text of an error, for a line that already contains the object's key."""
    elsewhere = error.where is not None and error.where != str(key)
    place = f" (at {error.where})" if elsewhere else ""
    return error_label(error.code), f": {flat(error.what)}{place}"


def error_label(code: str) -> Span:
    """Return `error[field-conflict]`, or `error` for an error without a code of its own."""
    return Span("error" if code == NimlabError.code else f"error[{code}]", Style.BAD)


def format_warnings(warnings: Sequence[Problem], *, paint: bool) -> str:
    """Return the first 20 warnings in the given order, then the number of all warnings."""
    lines = [text for warning in warnings[:_LIMIT] for text in _problem_lines(warning)]
    lines.append(line(Span(count(len(warnings), "warning"), Style.STRONG)))
    return join(lines, paint=paint)


def _problem_lines(problem: Problem) -> Iterator[Line]:
    warning = Span(f"warning[{problem.code}]", Style.CHANGED)
    label = warning if problem.is_warning else error_label(problem.code)
    yield line(f"{problem.location}: ", label, f": {flat(problem.what)}")
    if problem.excerpt is not None:
        yield from _excerpt_lines(problem.excerpt, problem)
    if problem.hint is not None:
        yield hint_line(problem.hint)


def _excerpt_lines(text: str, problem: Problem) -> Iterator[Line]:
    """Yield the source line, then a line that underlines the problem.

    The text before, in and after the marked part is escaped separately, because escaping changes the widths.
    """
    text = text.rstrip("\r\n")
    start = min(problem.location.column - 1, len(text))
    first = max(start - _BEFORE_COLUMNS, 0) if len(text) > _EXCERPT_COLUMNS else 0
    end = min(start + problem.width, first + _EXCERPT_COLUMNS)
    lead = escape(cut_start(text[:start], first))
    marked = escape(text[start:end])
    rest = escape(truncate(text[end:], first + _EXCERPT_COLUMNS - end + 1))
    yield line(Span(f"{problem.location.line:>4} | ", Style.FAINT), lead + marked + rest)
    underline = " " * len(lead) + "^" * max(len(marked), 1)
    yield line(Span("     | ", Style.FAINT), Span(underline, Style.BAD))
