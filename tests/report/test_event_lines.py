"""The lines that show the events of a sync."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nimlab import report
from nimlab.errors import (
    Rejected,
)
from nimlab.plan.sync_events import (
    Event,
    ObjectDone,
    Outcome,
)
from tests.support.plans import (
    ALREADY_SETTLED,
    HALFWAY,
    STUCK,
    key,
)


def test_error_at_another_place_contains_the_place() -> None:
    error = Rejected("no", where="somewhere else")
    event = ObjectDone(experiment="a", key=key("Service", "a"), outcome=Outcome.FAILED, error=error)
    assert report.format_event(event, paint=False) == (
        "a        Service/dst-lab/a: error[rejected]: no (at somewhere else)"
    )


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (ObjectDone(experiment="a", key=key("Service", "a"), outcome=Outcome.NOT_ATTEMPTED), None),
        (ObjectDone(experiment="a", key=key("Service", "a"), outcome=Outcome.UNCHANGED), None),
        (ALREADY_SETTLED, None),
        (replace(HALFWAY, running=0, wanted=0, leaving=1), "purple   waiting: 1 peer left to delete"),
        (replace(ALREADY_SETTLED, running=0, after_s=1.0), "purple   settled: no peers running after 1.0 s"),
        (STUCK, "purple   not ready in time: 3 of 5 peers running after 60 s"),
    ],
)  # fmt: skip
def test_each_event_has_its_line(event: Event, text: str | None) -> None:
    assert report.format_event(event, paint=False) == text
