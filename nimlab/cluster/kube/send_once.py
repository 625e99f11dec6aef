"""Send one request without retries, to find out whether a server is ready.

In: a connection pool, a URL, an optional body. Out: the response, or None if there is no response.
`KubeCluster` is not suitable for this, because it repeats requests and raises errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import urllib3
from urllib3.exceptions import HTTPError


@dataclass(frozen=True, slots=True, kw_only=True)
class RawResponse:
    """The status code and the body of one response."""

    status: int
    body: bytes


def send_once(
    pool: urllib3.PoolManager,
    method: str,
    url: str,
    *,
    body: bytes | None,
    headers: Mapping[str, str],
    timeout_s: float,
) -> RawResponse | None:
    """Send one request and return the response; None if the connection or the TLS handshake fails.

    The timeout applies to connecting and to each read.
    """
    try:
        response = pool.request(
            method, url, body=body, headers=headers, timeout=timeout_s, retries=False, redirect=False
        )
    except (HTTPError, OSError):
        return None
    return RawResponse(status=response.status, body=response.data)
