"""Waiting until peers run, or can't: by watches, with progress, failing early and with the reason.

In: what should settle. Out: progress events, and for each experiment at last one ExperimentSettled or
ExperimentStuck. Only reads happen here. The clock is an argument.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from nimlab.cluster.apply.extra_reads import ExtraReads
from nimlab.cluster.apply.readiness import Readiness, WaitTarget, judge
from nimlab.cluster.apply.watcher import Watcher
from nimlab.cluster.port import Cluster
from nimlab.objects.applyset import ApplySet
from nimlab.plan.sync_events import Event, ExperimentSettled, ExperimentStuck, PeersProgress

_ASIDE_EVERY_S: Final = 2.0
_PACE_AFTER_S: Final = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """From when on peers of an experiment have come or gone, and how many had to at first."""

    since_s: float
    missing: int

    def left_s(self, missing: int, now_s: float) -> float | None:
        """Return how long the rest takes at the pace so far; None before there is one. Pure."""
        done, spent_s = self.missing - missing, now_s - self.since_s
        return missing * spent_s / done if done > 0 and spent_s >= _PACE_AFTER_S else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Time as an argument: UTC now, and seconds that never jump."""

    now: Callable[[], datetime]
    monotonic_s: Callable[[], float]


def system_clock() -> Clock:
    """Return the machine's clock."""
    return Clock(now=lambda: datetime.now(UTC), monotonic_s=time.monotonic)


def wait_until_settled(
    cluster: Cluster,
    awaited: Sequence[WaitTarget],
    apply_set: ApplySet,
    *,
    timeout_s: float,
    clock: Clock,
    stop: threading.Event,
) -> Iterator[Event]:
    """Yield progress until every experiment has settled or is stuck, or `stop` is set.

    Raises ClusterError when the cluster can't be watched at all.
    """
    pending = {one.experiment: one for one in awaited}
    if not pending:
        return
    board, shown, paces = Readiness(apply_set), dict[str, Event](), dict[str, Pace]()
    aside = ExtraReads(cluster, apply_set)
    started_s = clock.monotonic_s()
    next_read_s = started_s
    with Watcher(cluster, awaited, apply_set) as feed:
        while pending and not stop.is_set():
            feed.drain(board, clock.now())
            if clock.monotonic_s() >= next_read_s:
                aside.read(tuple(pending.values()), board, clock.now())
                next_read_s = clock.monotonic_s() + _ASIDE_EVERY_S
            waited_s = clock.monotonic_s() - started_s
            for one in tuple(pending.values()):
                event = judge(one, board, clock.now(), waited_s=waited_s, timeout_s=timeout_s)
                if event is not None and shown.get(one.experiment) != event:
                    shown[one.experiment] = event
                    yield _estimated(event, paces, waited_s)
                if isinstance(event, ExperimentSettled | ExperimentStuck):
                    del pending[one.experiment]


def _estimated(event: Event, paces: dict[str, Pace], waited_s: float) -> Event:
    """Say of progress how long the rest takes."""
    if not isinstance(event, PeersProgress):
        return event
    missing = max(event.wanted - event.running, 0) + event.leaving
    pace = paces.setdefault(event.experiment, Pace(since_s=waited_s, missing=missing))
    return replace(event, left_s=pace.left_s(missing, waited_s))
