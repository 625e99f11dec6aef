"""Poll a condition until it is true or the timeout expires."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

_PAUSE_S: Final = 0.02


def wait_until(check: Callable[[], bool], *, within_s: float) -> bool:
    """Return True as soon as `check` returns True; return False if the timeout expires first."""
    deadline = time.monotonic() + within_s
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE_S)
    return True
