"""Paths out, bytes in: what goes over the wire to an API server and back, without any I/O of its own.

In: kinds, keys, parameters; answers of the HTTP library. Out: paths, dicts, lines. The REST paths are fixed
ones, since the kinds are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import quote, urlencode

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

from nimlab.errors import Unreachable
from nimlab.objects.manifest import KINDS, Kind, Manifest, ObjectKey

_LONGEST_RETRY_AFTER_S: Final = 30.0
_SAME_CLOCK_S: Final = 3.0


def collection_path(kind: Kind, namespace: str | None) -> str:
    """Return the path of a kind's objects, in a namespace or in all."""
    base = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    return f"{base}/namespaces/{_segment(namespace)}/{kind.plural}" if namespace else f"{base}/{kind.plural}"


def object_path(key: ObjectKey) -> str:
    """Return the path of one object."""
    return f"{collection_path(KINDS[key.kind], key.namespace or None)}/{_segment(key.name)}"


def _segment(name: str) -> str:
    """One step of a path, whatever the name: `/` and `?` lead nowhere else. Dots are always a part of one."""
    return quote(name, safe="")


def with_query(path: str, query: Mapping[str, str]) -> str:
    """Return the path with the parameters that have a value."""
    text = urlencode({name: value for name, value in query.items() if value})
    return f"{path}?{text}" if text else path


def decode(data: bytes, *, verb: str, where: str) -> Manifest:
    """Return the object in an answer. Raises Unreachable for half an answer, or another one."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Unreachable(
            f"{verb}: the answer is cut short or isn't JSON", where=where, hint="run it again"
        ) from error
    if not isinstance(value, dict):
        raise Unreachable(f"{verb}: the answer isn't an object", where=where)
    return value


def read_status(answer: urllib3.BaseHTTPResponse) -> dict[str, Any]:
    """Return the server's Status; empty when the body is something else (a proxy's error page)."""
    try:
        value = json.loads(answer.data)
    except (ValueError, RecursionError, HTTPError):
        return {}
    return value if isinstance(value, dict) and value.get("kind") == "Status" else {}


def retry_after_s(answer: urllib3.BaseHTTPResponse) -> float:
    """Return how long the server asks to wait, at most half a minute; 0 if it doesn't say so in seconds.

    A date would have to be held against this machine's clock; our own pauses do as well.
    """
    text = answer.headers.get("Retry-After", "")
    return min(float(text), _LONGEST_RETRY_AFTER_S) if re.fullmatch("[0-9]{1,300}", text) else 0.0


def ahead_s(date: str, now_s: float) -> float:
    """Return how far the server's clock is ahead of ours, from its `Date` header; 0 where that isn't sure.

    The header has whole seconds only, and the answer takes its time: a small difference is none.
    """
    try:
        difference_s = parsedate_to_datetime(date).timestamp() - now_s
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return difference_s if abs(difference_s) > _SAME_CLOCK_S else 0.0


def never_arrived(error: HTTPError) -> bool:
    """Return True when no connection could be made: the same will happen for a while."""
    return isinstance(error, NewConnectionError | ConnectTimeoutError)


def is_hopeless(error: HTTPError) -> bool:
    """Return True for a failure that another attempt won't change: a certificate, or a proxy's refusal."""
    is_refused_by_proxy = "tunnel connection failed: 4" in str(error).lower()
    return isinstance(error, urllib3.exceptions.SSLError) or is_refused_by_proxy


def shorten_reason(error: Exception) -> str:
    """Return the innermost reason of the library's nested messages."""
    return str(error).rpartition(": ")[2][:200]


def read_lines(answer: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """Yield lines as they arrive, without their ends; a last line without an end counts."""
    rest = b""
    for chunk in answer.stream(decode_content=True):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line for line in lines if line)
    if rest:
        yield rest
