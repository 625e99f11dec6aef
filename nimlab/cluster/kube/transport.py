"""Send requests to one API server, with retries, credentials, warnings and counts.

In: a method, a path, a body. Out: the response of the last attempt, or a ClusterError. If the server is busy
or the connection breaks, a request is repeated after pauses that grow and have a random part. This is safe
because every request of `KubeCluster` can be sent twice: reads, server-side applies, and writes with
preconditions.
"""

from __future__ import annotations

import copy
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Self

import urllib3
from urllib3 import HTTPHeaderDict
from urllib3.exceptions import HTTPError

from nimlab.cluster.interface import Requests
from nimlab.cluster.kube.connection_errors import explain, is_connect_failure, is_permanent
from nimlab.cluster.kube.http_response import ahead_s, decode, read_status, retry_after_s
from nimlab.cluster.kube.retry import ATTEMPTS, is_retried, max_pause_s, remaining_s
from nimlab.cluster.kube.server_warnings import Notices
from nimlab.cluster.kube.status_errors import error_of
from nimlab.errors import Unreachable
from nimlab.objects.manifest import Manifest

JSON: Final = "application/json"
_TIMEOUT: Final = urllib3.Timeout(connect=10, read=60)


class _Counter:
    """A counter for the requests of all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._total = 0
        self._writes = 0

    def count(self, *, is_write: bool) -> None:
        with self._lock:
            self._total += 1
            self._writes += is_write

    def requests(self) -> Requests:
        with self._lock:
            return Requests(total=self._total, writes=self._writes)


@dataclass(slots=True)
class _ServerClock:
    """The difference between the server's clock and this machine's, from the last response in any thread."""

    ahead_s: float = 0.0


class Transport:
    """A sender of requests to one API server. Several threads can use it."""

    def __init__(
        self,
        *,
        pool: urllib3.PoolManager,
        host: str,
        credentials: Callable[[], Mapping[str, str]],
        sleep: Callable[[float], None] = time.sleep,
        notify: Callable[[str, str], None] | None = None,
        proxy: str | None = None,
    ) -> None:
        self.pool = pool
        self.host = host.rstrip("/")
        self.credentials = credentials
        self.sleep = sleep
        self._proxy = proxy
        self._counter = _Counter()
        self._notices = Notices(notify)
        self._clock = _ServerClock()
        self._check_write: Callable[[], None] | None = None

    def close(self) -> None:
        """Close all connections."""
        self.pool.clear()

    def requests(self) -> Requests:
        """Return the number of requests sent so far."""
        return self._counter.requests()

    def warnings(self) -> tuple[str, ...]:
        """Return the texts of the server's `Warning` headers so far, without duplicates."""
        return self._notices.warnings

    def ahead_s(self) -> float:
        """Return how far the server's clock is ahead of this machine's; 0 before the first response."""
        return self._clock.ahead_s

    def fenced(self, check: Callable[[], None]) -> Self:
        """Return a transport to the same server that calls `check` before each attempt of a write.

        Both transports share the counts, the warnings and the connections.
        """
        fenced = copy.copy(self)
        fenced._check_write = check
        return fenced

    def json(
        self,
        method: str,
        path: str,
        *,
        verb: str,
        where: str,
        body: bytes | None = None,
        content_type: str | None = None,
        accept: str = JSON,
        is_write: bool = False,
    ) -> Manifest:
        """Send a request and return the JSON object in the response. Raises ClusterError."""
        response = self.request(
            method,
            path,
            verb=verb,
            where=where,
            body=body,
            headers={"Accept": accept, **({"Content-Type": content_type} if content_type else {})},
            is_write=is_write,
        )
        return decode(response.data, verb=verb, where=where)

    def request(
        self,
        method: str,
        path: str,
        *,
        verb: str,
        where: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        is_write: bool = False,
        stream: bool = False,
        attempts: int = ATTEMPTS,
    ) -> urllib3.BaseHTTPResponse:
        """Send a request, and repeat it after errors that may be temporary.

        Return the response if its status is below 300. Otherwise, raise ClusterError.
        """
        for attempt in range(1, attempts + 1):
            pause_s = max_pause_s(attempt) * random.uniform(0.5, 1)  # noqa: S311 -- jitter, not a secret
            min_pause_s = 0.0
            try:
                response = self._send(method, path, body, headers or {}, is_write=is_write, stream=stream)
            except HTTPError as error:
                what, hint = explain(error, self._proxy)
                reason = f"no response from {self.host}: {what}"
                if attempt == attempts or is_permanent(error):
                    raise Unreachable(f"{verb}: {reason}", where=where, hint=hint) from error
                is_reported = attempt > 1 or is_connect_failure(error)
            else:
                if response.status < 300:
                    return response
                status = read_status(response)
                if attempt == attempts or not is_retried(response.status, str(status.get("message"))):
                    raise error_of(response.status, status, verb=verb, where=where, path=path)
                min_pause_s = retry_after_s(response)
                reason = f"the server responded with {response.status}"
                is_reported = attempt > 1 or min_pause_s >= 1
            if is_reported:
                self._notices.add_retry(reason, remaining_s(attempt, attempts, min_pause_s))
            self.sleep(max(pause_s, min_pause_s))
        raise AssertionError("the last attempt returns or raises")

    def _send(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        *,
        is_write: bool,
        stream: bool,
    ) -> urllib3.BaseHTTPResponse:
        if is_write and self._check_write is not None:
            self._check_write()
        self._counter.count(is_write=is_write)
        response = self.pool.request(
            method,
            self.host + path,
            body=body,
            headers=self._headers(headers),
            timeout=_TIMEOUT,
            retries=False,
            redirect=False,
            preload_content=not stream,
        )
        self._clock.ahead_s = ahead_s(response.headers.get("Date", ""), _now_s())
        self._notices.add_warnings(response.headers.getlist("Warning"))
        return response

    def _headers(self, headers: Mapping[str, str]) -> HTTPHeaderDict:
        """Return these headers and the headers of the credentials. A header may occur several times."""
        merged = HTTPHeaderDict(self.credentials())
        merged.setdefault("Accept-Encoding", "gzip")
        for name, value in headers.items():
            merged[name] = value
        return merged


def _now_s() -> float:
    return time.time()
