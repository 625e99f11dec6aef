from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimlab.agents.rtt.log import Level, format_line, log_to_stderr


def test_a_line_is_json_with_its_fields() -> None:
    assert format_line(1790000000.5, Level.WARNING, "discovery-failed", reason="timeout", kept=3) == (
        '{"time": "2026-09-21T14:13:20.500+00:00", "level": "warning", "event": "discovery-failed", '
        '"reason": "timeout", "kept": 3}'
    )


@given(st.text())
def test_any_text_stays_on_one_line(text: str) -> None:
    line = format_line(0, Level.INFO, "x", what=text)
    assert len(line.splitlines()) == 1
    assert json.loads(line)["what"] == text


def test_lines_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr(Level.INFO, "started")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err)["event"] == "started"
