"""Poll a condition until it is true, the timeout expires, or the sync is stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from nimlab.cluster.interface import RUN_AGAIN
from nimlab.errors import ClusterError, NimlabError

_INTERVAL_S: Final = 0.2


def poll(is_done: Callable[[], bool], pending: str, timeout_s: float, stop: threading.Event) -> None:
    """Call `is_done` until it returns True; `pending` describes the condition for the error message.

    Raises ClusterError at the timeout. Raises NimlabError when `stop` is set. Errors of `is_done` are not
    caught.
    """
    deadline_s = time.monotonic() + timeout_s
    while not is_done():
        if time.monotonic() > deadline_s:
            raise ClusterError(
                f"{pending} after {timeout_s:.0f} s", hint="find out what blocks it, then sync again"
            )
        if stop.wait(_INTERVAL_S):
            raise NimlabError(f"interrupted: {pending}", hint=RUN_AGAIN)
