"""The lines that show a change."""

from __future__ import annotations

from nimlab.plan.change import Action
from tests.support.plans import (
    change,
    experiment,
    field,
    plan,
    text_of,
)


def test_json_text_is_compared_by_its_fields() -> None:
    old = '{"a": {"b": 1, "c d": 2}, "same": 1, "gone": []}'
    new = '{"a": {"b": 2, "c d": 3}, "same": 1, "added": {}}'
    config = change(
        Action.UPDATE, "ConfigMap", "x",
        fields=(field("data.x", old, new), field("data.y", "{no", "{more"), field("data.z", "{}", "{ }")),
    )  # fmt: skip
    lines = [" ".join(text.split()) for text in text_of(plan(experiment("x", config))).splitlines()]
    assert lines[1:-1] == [
        "data.x.a.b 1 → 2",
        "data.x.a[c d] 2 → 3",
        "data.x.added (absent) → {}",
        "data.x.gone [] → (absent)",
        'data.y "{no" → "{more"',
        'data.z "{}" → "{ }"',
    ]
