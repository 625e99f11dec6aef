"""Measurement of the time that each stage of a command takes, for `--timings`.

Each moment is counted for exactly one stage: an inner stage pauses the clock of the outer stage. Only the
main thread is measured; time spent in worker threads is counted as waiting. The measurement is always on,
because its cost is negligible. `spent` returns the result.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

START: Final = "start"
"""The stage before this module is loaded: the start of Python and the first imports."""
OTHER: Final = "other"
"""The time outside all stages."""


class Stopwatch:
    """The seconds that each stage took. Time outside all stages is counted as `other`."""

    def __init__(self) -> None:
        self._spent: dict[str, float] = {}
        self._running = [OTHER]
        self._since_s = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Return a context manager that counts the time inside its block for this stage."""
        self._count()
        self._running.append(name)
        try:
            yield
        finally:
            self._count()
            self._running.pop()

    def spent(self) -> Mapping[str, float]:
        """Return the seconds of each stage so far, in the order in which the stages first ended."""
        self._count()
        return dict(self._spent)

    def _count(self) -> None:
        """Credit the stage that was running with the time since the last call of this method."""
        now_s = time.perf_counter()
        name = self._running[-1]
        self._spent[name] = self._spent.get(name, 0.0) + now_s - self._since_s
        self._since_s = now_s


_WATCH: Final = Stopwatch()
stage = _WATCH.stage
spent = _WATCH.spent
