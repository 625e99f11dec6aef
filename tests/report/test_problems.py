"""The text of problems and errors."""

from __future__ import annotations

import pytest

from nimlab import report
from nimlab.errors import (
    Rejected,
)
from tests.support.plans import (
    problem,
)


def test_twenty_problems_are_shown_and_all_are_counted() -> None:
    many = [problem("a.yaml", n, 1, "x", f"problem {n}") for n in range(1, 23)]
    lines = report.format_problems(many, files=1, paint=False).splitlines()
    assert len(lines) == 22
    assert lines[-2:] == ["… and 2 more problems", "22 problems in 1 file"]


@pytest.mark.parametrize(
    ("column", "width", "excerpt", "marked"),
    [
        (1, 3, "abc: 1", "abc"),
        (3, 1, "\t\tx", "x"),
        (4, 1, "\x1b\u202eax", "x"),
        (1, 99, "short", "short"),
        (9, 1, "short", ""),
        (61, 5, "y" * 60 + "MARK!" + "z" * 90, "MARK!"),
        (2, 300, "x" + "y" * 200, "y" * 99),
    ],
)
def test_problem_is_underlined(column: int, width: int, excerpt: str, marked: str) -> None:
    marked_problem = problem("a.yaml", 1, column, "x", "y", excerpt=excerpt, width=width)
    _, shown, underline, _ = report.format_problems([marked_problem], files=1, paint=False).splitlines()
    start, end = underline.index("^"), underline.rindex("^") + 1
    assert shown[start:end] == marked
    assert len(shown) <= 7 + 102


def test_message_with_several_lines_becomes_one_line() -> None:
    error = Rejected("one\n  two", hint="three\nfour")
    assert report.format_error(error, paint=False) == "error[rejected]: one two\n  hint: three four"
