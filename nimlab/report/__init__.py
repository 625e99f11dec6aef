"""Plans, problems, rows and events -> text for people, JSON for programs.

In: values. Out: strings. Nothing is printed here and no terminal is known; `paint` says whether colour is
wanted, and the text reads the same without. Rooms: `problems` for errors, `plan` for what will be done,
`outcome` for what was done, `tables` for lists, `data` for JSON.
"""

from __future__ import annotations

from nimlab.report.data import (
    detail_json,
    plan_json,
    problems_json,
    rows_json,
    run_json,
    sandbox_json,
)
from nimlab.report.outcome import exit_code_of, format_event, format_outcome
from nimlab.report.plan import format_header, format_plan
from nimlab.report.problems import format_error, format_problems
from nimlab.report.tables import format_rows, format_sandbox, format_status

__all__ = [
    "detail_json",
    "exit_code_of",
    "format_error",
    "format_event",
    "format_header",
    "format_outcome",
    "format_plan",
    "format_problems",
    "format_rows",
    "format_sandbox",
    "format_status",
    "plan_json",
    "problems_json",
    "rows_json",
    "run_json",
    "sandbox_json",
]
