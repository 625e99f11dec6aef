"""HTTP for Prometheus and the kubelet: a request's head -> a page.

In: pages by path. Out: an answer to GET and HEAD, then the connection is closed. Whatever is sent, for
however long, costs no more than a stated time, size and number of connections. Not done here: what the pages
say; TLS; compression.
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
    """What is answered."""

    body: str
    status: int = 200
    content_type: str = "text/plain; charset=utf-8"


Pages = Mapping[str, Callable[[], Page]]  # path -> page


@asynccontextmanager
async def serve_http(
    address: str, port: int, pages: Pages, *, patience_s: float = PATIENCE_S
) -> AsyncIterator[int]:
    """Serve while the context is open; yield the port. Raises OSError if the port can't be had.

    What takes longer than `patience_s` is cut, and so is what is going on at the end.
    """
    going_on: deque[asyncio.StreamWriter] = deque()  # in the order of their beginning
    ending: set[asyncio.StreamWriter] = set()

    def cut_oldest() -> None:
        oldest = going_on.popleft()
        ending.add(oldest)
        oldest.transport.abort()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(going_on) >= MOST_CONNECTIONS:  # who asks properly is served long before being the oldest
            cut_oldest()
        going_on.append(writer)
        try:
            await _converse(reader, writer, pages, patience_s)
        finally:
            if writer in ending:
                ending.remove(writer)
            else:
                going_on.remove(writer)

    server = await asyncio.start_server(converse, address, port, limit=_LARGEST_HEAD_BYTES)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        while going_on:
            cut_oldest()
        while ending:
            await asyncio.sleep(0)  # a turn or two: each finds its connection gone


def respond(head: bytes, pages: Pages) -> bytes:
    """Return the whole answer to a request's head, whatever its bytes."""
    method, _, rest = head.split(b"\r\n", 1)[0].partition(b" ")
    target, _, version = rest.partition(b" ")
    path = target.split(b"?", 1)[0].decode("latin-1")
    if not version.startswith(b"HTTP/1."):
        page = Page(status=400, body="this is no HTTP/1 request\n")
    elif method not in (b"GET", b"HEAD"):
        page = Page(status=405, body="only GET and HEAD\n")
    elif path not in pages:
        page = Page(status=404, body=f"there are {', '.join(sorted(pages))}\n")
    else:
        page = pages[path]()
    return _format(page, with_body=method != b"HEAD")


async def _converse(
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
        pass  # too slow, too long, or gone: nobody to answer
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
