"""Parts of one HTTP response: its JSON body, its `Status`, its lines, and the headers that nimlab uses.

In: responses of the HTTP library. Out: dicts, lines, seconds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any, Final

import urllib3
from urllib3.exceptions import HTTPError

from nimlab.cluster.interface import RUN_AGAIN
from nimlab.errors import Unreachable
from nimlab.objects.manifest import Manifest

_MAX_RETRY_AFTER_S: Final = 30.0
_MIN_SKEW_S: Final = 3.0


def decode(data: bytes, *, verb: str, where: str) -> Manifest:
    """Return the JSON object in a response body. Raises Unreachable for any other body."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Unreachable(
            f"{verb}: the response is incomplete or not JSON", where=where, hint=RUN_AGAIN
        ) from error
    if not isinstance(value, dict):
        raise Unreachable(f"{verb}: the response is not a JSON object", where=where, hint=RUN_AGAIN)
    return value


def read_status(response: urllib3.BaseHTTPResponse) -> dict[str, Any]:
    """Return the server's `Status` object; an empty dict for another body, such as a proxy's error page."""
    try:
        value = json.loads(response.data)
    except (ValueError, RecursionError, HTTPError):
        return {}
    return value if isinstance(value, dict) and value.get("kind") == "Status" else {}


def retry_after_s(response: urllib3.BaseHTTPResponse) -> float:
    """Return the seconds in the `Retry-After` header, at most 30; 0 if it contains no number.

    A date is ignored, because the clocks may differ. The client then uses its own pauses.
    """
    text = response.headers.get("Retry-After", "")
    return min(float(text), _MAX_RETRY_AFTER_S) if re.fullmatch("[0-9]{1,300}", text) else 0.0


def ahead_s(date: str, now_s: float) -> float:
    """Return how far the server's clock is ahead of this machine's, from the `Date` header; 0 if unknown.

    The header contains whole seconds, and the response takes time. Therefore, a small difference counts as 0.
    """
    try:
        difference_s = parsedate_to_datetime(date).timestamp() - now_s
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return difference_s if abs(difference_s) > _MIN_SKEW_S else 0.0


def read_lines(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """Yield the lines as they arrive, without line ends; skip empty lines.

    The last line of the response may lack a line end.
    """
    rest = b""
    for chunk in response.stream(decode_content=True):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line for line in lines if line)
    if rest:
        yield rest
