"""Serve HTTP pages to Prometheus and the kubelet.

The server answers GET and HEAD, then closes the connection. It limits the time, the size of the request head
and the number of connections. There is no TLS and no compression.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

PATIENCE_S: Final = 5.0
_LARGEST_HEAD_BYTES: Final = 8192
MOST_CONNECTIONS: Final = 32
_END_OF_HEAD: Final = b"\r\n\r\n"
_STATUS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One response."""

    body: str
    status: int = 200
    content_type: str = "text/plain; charset=utf-8"


Pages = Mapping[str, Callable[[], Page]]  # path -> page


@asynccontextmanager
async def serve_http(
    address: str, port: int, pages: Pages, *, patience_s: float = PATIENCE_S
) -> AsyncIterator[int]:
    """Serve while the context is open; yield the port. Raises OSError if the port is not available.

    Connections are closed after `patience_s`, and when the context ends.
    """
    open_writers: deque[asyncio.StreamWriter] = deque()  # oldest first
    aborted: set[asyncio.StreamWriter] = set()

    def abort_oldest() -> None:
        oldest = open_writers.popleft()
        aborted.add(oldest)
        oldest.transport.abort()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A regular client is served long before its connection is the oldest.
        if len(open_writers) >= MOST_CONNECTIONS:
            abort_oldest()
        open_writers.append(writer)
        try:
            await _handle(reader, writer, pages, patience_s)
        finally:
            if writer in aborted:
                aborted.remove(writer)
            else:
                open_writers.remove(writer)

    server = await asyncio.start_server(handle, address, port, limit=_LARGEST_HEAD_BYTES)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        while open_writers:
            abort_oldest()
        while aborted:
            await asyncio.sleep(0)  # each handler removes its aborted connection


def respond(head: bytes, pages: Pages) -> bytes:
    """Return the complete response to a request head, which may contain any bytes."""
    method, _, rest = head.split(b"\r\n", 1)[0].partition(b" ")
    target, _, version = rest.partition(b" ")
    path = target.split(b"?", 1)[0].decode("latin-1")
    if not version.startswith(b"HTTP/1."):
        page = Page(status=400, body="not an HTTP/1 request\n")
    elif method not in (b"GET", b"HEAD"):
        page = Page(status=405, body="only GET and HEAD are supported\n")
    elif path not in pages:
        page = Page(status=404, body=f"available pages: {', '.join(sorted(pages))}\n")
    else:
        page = pages[path]()
    return _format(page, with_body=method != b"HEAD")


async def _handle(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pages: Pages, patience_s: float
) -> None:
    try:
        async with asyncio.timeout(patience_s):
            head = await reader.readuntil(_END_OF_HEAD)
            writer.write(respond(head, pages))
            await writer.drain()
            writer.close()
            await writer.wait_closed()
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass  # timeout, request head too long, or connection closed: no response
    finally:
        writer.transport.abort()


def _format(page: Page, *, with_body: bool) -> bytes:
    body = page.body.encode()
    head = [
        f"HTTP/1.1 {page.status} {_STATUS[page.status]}",
        f"Content-Type: {page.content_type}",
        f"Content-Length: {len(body)}",
        *(["Allow: GET, HEAD"] if page.status == 405 else []),
        "Connection: close",
    ]
    return "\r\n".join(head).encode("ascii") + _END_OF_HEAD + (body if with_body else b"")
