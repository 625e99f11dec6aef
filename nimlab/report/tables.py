"""Rows -> the tables of `list` and of `sandbox status`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from nimlab.report.format_value import age_text
from nimlab.report.list_rows import Row
from nimlab.report.styled_text import flat, join, line, table

ROW_HEAD: Final = ("EXPERIMENT", "FULLNAME", "SCALE", "RUNNING", "STARTED AT", "AGE", "GIT", "HEALTH")
ROW_DROP: Final = ("FULLNAME", "STARTED AT", "AGE", "SCALE")  # the least important column first


def format_rows(rows: Sequence[Row], *, columns: int | None = None) -> str:
    """Return the table of `list`, at most `columns` wide if possible."""
    if not rows:
        return "no experiments in the files or in the cluster"
    return join(
        table([ROW_HEAD, *(row_cells(row) for row in rows)], columns=columns, drop=ROW_DROP), paint=False
    )


def row_cells(row: Row) -> tuple[str, ...]:
    """Return the cells of a row; an unknown value is `-`."""
    return (
        row.experiment,
        row.full_name or "-",
        "-" if row.scale is None else str(row.scale),
        "-" if row.running is None else str(row.running),
        row.started_at or "-",
        age_text(row.age_s),
        row.state.value,
        flat(row.verdict.text),
    )


def format_sandbox(
    *,
    running: bool,
    server: str | None,
    nodes: int,
    parts: Sequence[tuple[str, int | None, bool, str]],
    columns: int | None = None,
) -> str:
    """Return the state of the sandbox: one line, then a table of its parts (name, pid, alive, log).

    A shortened path of a log would be useless, so the column of the logs is removed if it does not fit.
    """
    if not parts:
        return "sandbox  not created; `nimlab sandbox up` starts it"
    rows = [("PART", "PID", "STATE", "LOG")]
    rows += [
        (name, "-" if pid is None else str(pid), "running" if alive else "not running", log)
        for name, pid, alive, log in parts
    ]
    if running:
        head = line(f"sandbox  up: {server or 'no server'}, {nodes} simulated nodes")
    else:
        head = line("sandbox  some parts are not running; `nimlab sandbox up` repairs it")
    return join([head, (), *table(rows, columns=columns, drop=("LOG", "PID"))], paint=False)
