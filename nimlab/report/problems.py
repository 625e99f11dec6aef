"""Problems and errors in compiler style: place, code, what, the line with a caret, a hint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from nimlab.errors import NimlabError, Problem, SpecError
from nimlab.report.ink import ink, plural, visible

_SHOWN: Final = 20
_LINE_WIDTH: Final = 100


def format_problems(problems: Sequence[Problem], *, files: int, paint: bool) -> str:
    """Return all problems, at most 20 in full, and how many there are in how many of the files."""
    parts = [_problem(problem, paint=paint) for problem in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        parts.append(f"… and {len(problems) - _SHOWN} more")
    wrong = len({problem.location.path for problem in problems})
    of = f" of {files}" if files > wrong else ""
    word = "file" if wrong == 1 and not of else "files"
    parts.append(f"{plural(len(problems), 'problem')} in {wrong}{of} {word}")
    return "\n".join(parts)


def format_error(error: NimlabError, *, paint: bool) -> str:
    """Return an error with its place and hint; of a SpecError every problem."""
    if isinstance(error, SpecError):
        files = len({problem.location.path for problem in error.problems})
        return format_problems(error.problems, files=files, paint=paint)
    place = "" if error.where is None else f"{error.where}: "
    head = ink(f"error[{error.code}]", "red", paint=paint)
    lines = [f"{place}{head}: {visible_lines(error.what)}"]
    if error.hint:
        lines.append(f"  {ink('hint', 'cyan', paint=paint)}: {visible_lines(error.hint)}")
    return "\n".join(lines)


def visible_lines(text: str) -> str:
    """Return a text of several lines with each made safe for a terminal."""
    return "\n".join(visible(line) for line in text.split("\n"))


def _problem(problem: Problem, *, paint: bool) -> str:
    head = ink(f"error[{problem.code}]", "red", paint=paint)
    lines = [f"{visible(str(problem.location))}: {head}: {visible(problem.what)}"]
    if problem.excerpt is not None and problem.excerpt.strip():
        lines += _excerpt(problem, problem.excerpt, paint=paint)
    if problem.hint:
        lines.append(f"  {ink('hint', 'cyan', paint=paint)}: {visible(problem.hint)}")
    return "\n".join(lines)


def _excerpt(problem: Problem, line: str, *, paint: bool) -> list[str]:
    """The source line, cut round the caret, and the caret line under it; tabs stay tabs in both."""
    start = max(0, problem.location.column - 1 - _LINE_WIDTH // 2) if len(line) > _LINE_WIDTH else 0
    cut = line[start : start + _LINE_WIDTH]
    before = cut[: problem.location.column - 1 - start]
    pad = "".join("\t" if c == "\t" else " " * len(visible(c)) for c in before)
    room = max(1, len(cut) - len(before))
    caret = ink("^" * max(1, min(problem.width, room)), "red", paint=paint)
    number = f"{problem.location.line:>4}"
    return [f"{number} | {visible(cut)}", f"     | {pad}{caret}"]
