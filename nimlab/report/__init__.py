"""Plans, events, problems and rows -> text for people, JSON for programs, reports for GitLab, and exit codes.

In: values. Out: strings and exit codes. No module prints anything or accesses the cluster or the terminal. If
`paint` is set, the text has colours; otherwise it is the same text without them. Pure.

- Base: `styled_text`, `cut_text`, `format_value`, `totals` of a plan, `outcomes_by_object`, `exit_code`
- Plan: `plan_text`, `change_lines`, `change_notes`, `change_groups`
- Sync: `event_lines`, `sync_summary`
- `list` and `status`: `list_rows`, `git_state`, `experiment_detail`, `experiment_events`,
  `experiment_troubles`, `experiment_page`, `tables`
- Errors: `file_problems`
- JSON: `json_output`
- GitLab: `deletions`, `gitlab_terraform`, `junit_cases`, `junit_xml`, `gitlab_codequality`
"""

from __future__ import annotations

from nimlab.report.event_lines import format_event, format_note, progress_text
from nimlab.report.exit_code import exit_code_of, exit_code_of_rows
from nimlab.report.experiment_page import format_status
from nimlab.report.file_problems import format_error, format_problems, format_warnings
from nimlab.report.gitlab_codequality import codequality_json
from nimlab.report.gitlab_terraform import terraform_json
from nimlab.report.json_output import (
    detail_json,
    plan_json,
    platform_json,
    problems_json,
    rows_json,
    run_json,
    sandbox_json,
)
from nimlab.report.junit_cases import junit_xml
from nimlab.report.plan_text import format_header, format_plan
from nimlab.report.sync_summary import format_summary
from nimlab.report.tables import format_rows, format_sandbox

__all__ = [
    "codequality_json",
    "detail_json",
    "exit_code_of",
    "exit_code_of_rows",
    "format_error",
    "format_event",
    "format_header",
    "format_note",
    "format_plan",
    "format_problems",
    "format_rows",
    "format_sandbox",
    "format_status",
    "format_summary",
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
