"""The JSON output: documented keys, no missing values, no secrets, ASCII only."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from nimlab.errors import (
    Rejected,
)
from nimlab.files.spec import (
    OnImmutableChange,
)
from nimlab.plan.change import Action
from nimlab.plan.sync_events import (
    Outcome,
)
from nimlab.report.git_state import GitState
from tests.support.golden import GOLDEN
from tests.support.paths import REPOSITORY
from tests.support.plans import (
    CONFLICT,
    DEBUG,
    SCALE,
    change,
    experiment,
    plan,
    plan_json,
    run_json,
    text_of,
)


def test_every_json_key_is_documented() -> None:
    text = (REPOSITORY / "docs" / "plan-json.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"`([A-Za-z-]+)`", text))

    def keys(value: Any) -> set[str]:
        if isinstance(value, dict):
            return set(value) | {key for item in value.values() for key in keys(item)}
        return {key for item in value for key in keys(item)} if isinstance(value, list) else set()

    used = {key for path in (GOLDEN / "report").rglob("*.json") for key in keys(json.loads(path.read_text()))}
    assert used - documented == set()


@pytest.mark.parametrize("word", [*Action, *Outcome, *GitState, *OnImmutableChange])
def test_every_enum_value_in_json_is_documented(word: Any) -> None:
    text = (REPOSITORY / "docs" / "plan-json.md").read_text(encoding="utf-8")
    assert f"`{word.value}`" in text


def test_blocked_object_without_an_event_has_the_outcome_failed() -> None:
    planned = plan(experiment("purple", replace(SCALE, error=CONFLICT)))
    (entry,) = json.loads(run_json(planned, ()))["objects"]
    assert entry["outcome"] == "failed"
    assert entry["error"]["code"] == "field-conflict"


def test_missing_value_has_no_key() -> None:
    planned = plan(experiment("purple", replace(SCALE, error=Rejected("no"))), commit=None)
    document = json.loads(plan_json(planned))
    assert "commit" not in document
    assert document["objects"][0]["error"] == {"code": "rejected", "what": "no"}
    assert "hint" not in text_of(planned)


def test_json_hides_secrets_and_is_ascii() -> None:
    token = replace(DEBUG, value={"name": "TOKEN", "value": "hunter2"}, manager="\u202eargo→")
    planned = plan(experiment("x", change(Action.KEEP, "StatefulSet", "x", foreign=(token,))))
    text = plan_json(planned)
    assert text.isascii()
    (foreign,) = json.loads(text)["objects"][0]["foreign"]
    assert foreign["value"] == {"name": "TOKEN", "value": "(hidden)"}
    assert foreign["manager"] == "\u202eargo→"
