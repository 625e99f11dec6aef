"""Rules for retries: after which responses a request is repeated, and how long the pauses are.

In: the number of the attempt, or the status and the server's message. Out: the pause in seconds, or whether
to retry. Pure.
"""

from __future__ import annotations

from typing import Final

ATTEMPTS: Final = 6
_FIRST_PAUSE_S: Final = 0.2
_MAX_PAUSE_S: Final = 10.0
_RETRIED: Final = frozenset({429, 500, 502, 503, 504})
_INVALID_PATCH_500: Final = ("failed to create typed patch object", "failed to convert new object")


def is_retried(status: int, message: str) -> bool:
    """Return True if the same request may succeed later.

    A request with an invalid patch is not repeated, although its status is 500. The server also uses this
    status for an unknown field in an apply.
    """
    return status in _RETRIED and not any(text in message for text in _INVALID_PATCH_500)


def max_pause_s(attempt: int) -> float:
    """Return the longest pause after attempt 1, 2 and so on. The caller shortens the pause at random."""
    return min(_MAX_PAUSE_S, _FIRST_PAUSE_S * 2.0**attempt)


def remaining_s(attempt: int, attempts: int, min_pause_s: float) -> float:
    """Return the longest sum of all pauses after a failed attempt, without the time of the requests."""
    return sum(max(min_pause_s, max_pause_s(later)) for later in range(attempt, attempts))
