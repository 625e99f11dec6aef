"""Tables fit the terminal: columns are removed or shortened, and the names stay complete."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimlab.report.styled_text import join, table
from nimlab.report.tables import ROW_DROP, ROW_HEAD, format_sandbox

NAMES = ["a" * 41, "a" * 40 + "b", "red"]


def text_of(rows: Sequence[Sequence[str]], columns: int | None, drop: Sequence[str] = ()) -> str:
    """Return the table as it is printed."""
    return join(table(rows, columns=columns, drop=drop), paint=False)


def listed(columns: int | None) -> str:
    """Return the table of `list` with names of the maximum length."""
    cells = {"SCALE": "1000", "RUNNING": "1000", "AGE": "3d4h", "STARTED AT": "2026-01-02T03:04:05Z"}
    rows = [
        [
            name
            if head == "EXPERIMENT"
            else f"nimp2p-exp-{name}"
            if head == "FULLNAME"
            else cells.get(head, "in sync")
            for head in ROW_HEAD
        ]
        for name in NAMES
    ]
    return text_of([ROW_HEAD, *rows], columns, ROW_DROP)


@pytest.mark.parametrize("columns", [80, 100, 140])
def test_list_fits_the_terminal_and_keeps_the_names(columns: int) -> None:
    lines = listed(columns).splitlines()
    assert max(map(len, lines)) <= columns
    assert [text.split()[0] for text in lines[1:]] == NAMES


def test_name_is_complete_if_nothing_fits() -> None:
    assert [text.split()[0] for text in listed(20).splitlines()[1:]] == NAMES


def test_table_is_complete_without_a_terminal() -> None:
    assert listed(None).split("\n")[0].split("  ")[0] == ROW_HEAD[0]
    assert all(head in listed(None) for head in ROW_HEAD)


def test_least_important_column_is_removed_first() -> None:
    wide = max(map(len, listed(None).splitlines()))
    assert listed(wide) == listed(None)
    assert ROW_DROP[0] not in listed(wide - 1)
    assert ROW_DROP[1] in listed(wide - 1)


def test_messages_are_cut_at_their_end() -> None:
    rows = [("AGE", "MESSAGE"), ("3s", "x" * 100)]
    assert text_of(rows, 40).splitlines()[1] == "3s   " + "x" * 34 + "…"


def test_path_of_a_log_is_complete_or_removed() -> None:
    parts = [("kube-controller-manager", 123456, True, "/home/user/lab/.nimlab/sandbox/kcm.log")]
    narrow = format_sandbox(running=True, server="https://x", nodes=3, parts=parts, columns=60)
    assert "LOG" not in narrow
    assert "kcm.log" in format_sandbox(running=True, server="https://x", nodes=3, parts=parts)


@given(
    st.lists(st.lists(st.text(min_size=1, max_size=30), min_size=3, max_size=3), min_size=1, max_size=5),
    st.integers(min_value=60, max_value=120),
)
def test_table_is_never_wider_than_the_terminal(rows: list[list[str]], columns: int) -> None:
    named = [["NAME", "B", "C"], *([f"n{i}", *row[1:]] for i, row in enumerate(rows))]
    for text in text_of(named, columns, ("B",)).splitlines():
        assert len(text) <= columns
