"""Where the time of a run goes: stages by name, and every moment in exactly one of them.

A stage inside a stage stops the outer one's clock. Only the thread that runs the program is measured: what
others do meanwhile is what it waits for. Costs nothing worth measuring, so it is always on; who wants to know
asks `spent`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

START: Final = "start"
"""Before there is anything to measure with, and what is imported to begin with."""
OTHER: Final = "other"


class Stopwatch:
    """Adds up seconds by stage; what is in no stage is `other`."""

    def __init__(self) -> None:
        self._spent: dict[str, float] = {}
        self._running = [OTHER]
        self._since_s = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time inside to a stage."""
        self._turn()
        self._running.append(name)
        try:
            yield
        finally:
            self._turn()
            self._running.pop()

    def spent(self) -> Mapping[str, float]:
        """Return the seconds of each stage until now, in the order in which they first ended."""
        self._turn()
        return dict(self._spent)

    def _turn(self) -> None:
        """Give the time since the last turn to the stage that was running."""
        now_s = time.perf_counter()
        name = self._running[-1]
        self._spent[name] = self._spent.get(name, 0.0) + now_s - self._since_s
        self._since_s = now_s


_WATCH: Final = Stopwatch()
stage = _WATCH.stage
spent = _WATCH.spent
