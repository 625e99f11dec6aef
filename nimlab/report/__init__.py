"""Plans, problems, events and overviews -> text for people, JSON for programs, and the exit code.

In: values. Out: strings. Nothing here prints, knows a terminal or reads a cluster; `paint` says whether
colour is wanted, and the text reads the same without. The rooms: `lines` (spans, escaping), `values` (numbers
and fields as text), `problems`, `changes` and `plan` (what will be done), `events` (what happens), `sums`
(what it amounts to), `outcome` (what was done), `tables` and `status` (what there is), `data` (JSON). Pure.
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
from nimlab.report.events import format_event
from nimlab.report.outcome import format_outcome
from nimlab.report.plan import format_header, format_plan
from nimlab.report.problems import format_error, format_problems
from nimlab.report.status import format_status
from nimlab.report.sums import exit_code_of
from nimlab.report.tables import format_rows, format_sandbox

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
