"""A fake clock: its sleeps end at once, and after a number of sleeps, it ends the loop under test."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from nimlab.agents.rtt.clock import Clock


class EnoughError(Exception):
    """The loop under test has slept the configured number of times."""


@dataclass(slots=True)
class FakeTime:
    """Time that passes only in `sleep`, or when a test sets `now_s`."""

    sleeps: int = 1000
    now_s: float = 1000.0
    slept: list[float] = field(default_factory=list)

    async def sleep(self, duration_s: float) -> None:
        """Advance the time, and let other tasks run."""
        if len(self.slept) >= self.sleeps:
            raise EnoughError
        self.slept.append(duration_s)
        self.now_s += duration_s
        await asyncio.sleep(0)

    def clock(self) -> Clock:
        """Return a Clock that shows this time; its wall clock starts in 2026."""
        return Clock(monotonic_s=lambda: self.now_s, wall_s=lambda: 1.79e9 + self.now_s, sleep=self.sleep)
