"""The time and the waiting, as a value that is handed in.

Out: seconds of the monotonic clock (differences), seconds of the wall clock (timestamps), and a sleep. Not
done here: any decision about time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """This machine's clocks; a test hands in its own."""

    monotonic_s: Callable[[], float] = time.monotonic
    wall_s: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
