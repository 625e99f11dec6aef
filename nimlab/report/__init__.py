"""Plans, problems, events and overviews -> text for people, JSON for programs, and the exit code.

In: values. Out: strings. Nothing here prints, knows a terminal or reads a cluster; `paint` says whether
colour is wanted, and the text reads the same without. The rooms: `lines` (spans, escaping), `values` (numbers
and fields as text), `problems`, `changes` and `plan` (what will be done), `events` (what happens), `sums`
(what it amounts to), `outcome` (what was done), `tables` and `status` (what there is), `data` (JSON).
For GitLab: `deletions`, `terraform`, `junit` and `codequality`. Pure.
"""

from __future__ import annotations

from nimlab.report.codequality import codequality_json
from nimlab.report.event_lines import format_event, format_note, progress_text
from nimlab.report.experiment_page import format_status
from nimlab.report.json_output import (
    detail_json,
    plan_json,
    platform_json,
    problems_json,
    rows_json,
    run_json,
    sandbox_json,
)
from nimlab.report.junit import junit_xml
from nimlab.report.plan_text import format_header, format_plan
from nimlab.report.problems import format_error, format_problems, format_warnings
from nimlab.report.sync_summary import format_outcome
from nimlab.report.tables import format_rows, format_sandbox
from nimlab.report.terraform import terraform_json
from nimlab.report.totals import exit_code_of, exit_code_of_rows

__all__ = [
    "codequality_json",
    "detail_json",
    "exit_code_of",
    "exit_code_of_rows",
    "format_error",
    "format_event",
    "format_header",
    "format_note",
    "format_outcome",
    "format_plan",
    "format_problems",
    "format_rows",
    "format_sandbox",
    "format_status",
    "format_warnings",
    "junit_xml",
    "plan_json",
    "platform_json",
    "problems_json",
    "progress_text",
    "rows_json",
    "run_json",
    "sandbox_json",
    "terraform_json",
]
