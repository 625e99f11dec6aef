"""The troubles that keep an experiment's peers from running."""

from __future__ import annotations

from tests.support.live_plans import (
    detail_of,
    ready,
    rejection_event,
)


def test_failed_creation_is_trouble_only_while_peers_are_missing() -> None:
    events = [
        rejection_event(2, "create Pod failed error: second"),
        rejection_event(1, "create Pod failed error: first"),
    ]
    (trouble,) = detail_of([ready(0)], events, running=1).troubles
    assert trouble.message == "second"
    assert detail_of([ready(0)], events, running=5).troubles == ()
