from __future__ import annotations

import asyncio
import http.client
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimlab.agents.rtt.http_server import MOST_CONNECTIONS, Page, respond, serve_http

T = TypeVar("T")
PAGES = {"/metrics": lambda: Page(body="metrics ü\n"), "/healthz": lambda: Page(body="late\n", status=503)}


def serve_while(work: Callable[[int], T], *, patience_s: float = 5.0) -> T:
    """Serve PAGES in this thread while the blocking function `work` runs in another thread."""

    async def serve() -> T:
        async with serve_http("127.0.0.1", 0, PAGES, patience_s=patience_s) as port:
            with ThreadPoolExecutor(1) as pool:
                return await asyncio.get_running_loop().run_in_executor(pool, work, port)

    return asyncio.run(serve())


def request(port: int, method: str, path: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def test_a_page_is_served() -> None:
    status, headers, body = serve_while(lambda port: request(port, "GET", "/metrics?name[]=x"))
    assert (status, body) == (200, "metrics ü\n".encode())
    assert headers["Content-Length"] == str(len(body))
    assert headers["Content-Type"] == "text/plain; charset=utf-8"


def test_head_returns_no_body() -> None:
    status, headers, _ = serve_while(lambda port: request(port, "HEAD", "/metrics"))
    assert (status, headers["Content-Length"]) == (200, "11")
    assert respond(b"HEAD /metrics HTTP/1.1\r\n\r\n", PAGES).endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/healthz", 503), ("GET", "/", 404), ("GET", "/metrics/", 404), ("POST", "/metrics", 405)],
)
def test_each_kind_of_request_has_its_status_code(method: str, path: str, status: int) -> None:
    assert serve_while(lambda port: request(port, method, path))[0] == status


def test_method_not_allowed_lists_the_allowed_methods() -> None:
    assert serve_while(lambda port: request(port, "PUT", "/metrics"))[1]["Allow"] == "GET, HEAD"


@given(st.binary(max_size=200))
def test_any_bytes_get_a_valid_response(head: bytes) -> None:
    answer = respond(head, PAGES)
    first, _, rest = answer.partition(b"\r\n")
    fields, _, body = rest.partition(b"\r\n\r\n")
    assert first.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 4", b"HTTP/1.1 503 "))
    if head.split(b"\r\n")[0].split(b" ")[0] != b"HEAD":
        assert f"Content-Length: {len(body)}".encode() in fields.split(b"\r\n")


def talk(port: int, *parts: bytes) -> bytes:
    """Send these bytes; return everything received until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        received = b""
        try:
            for part in parts:
                sock.sendall(part)
            while more := sock.recv(4096):
                received += more
        except ConnectionError:
            pass
        return received


def test_a_request_in_several_packets_is_answered() -> None:
    answer = serve_while(lambda port: talk(port, b"GET /met", b"rics HTT", b"P/1.1\r\nHost: x\r\n", b"\r\n"))
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_a_silent_client_is_disconnected() -> None:
    def stay_silent(port: int) -> float:
        started_s = time.monotonic()
        assert talk(port, b"GET /metrics HTTP/1.1\r\n") == b""
        return time.monotonic() - started_s

    assert 0.1 <= serve_while(stay_silent, patience_s=0.1) < 3


def test_a_client_that_never_ends_its_request_is_disconnected() -> None:
    assert serve_while(lambda port: talk(port, *[b"X: " + b"y" * 4000 + b"\r\n"] * 20)) == b""


def test_many_silent_clients_do_not_block_others() -> None:
    def crowd(port: int) -> list[bytes]:
        with ExitStack() as stack:
            for _ in range(3 * MOST_CONNECTIONS):
                silent = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
                silent.sendall(b"GET ")
            return [talk(port, b"GET /metrics HTTP/1.1\r\n\r\n") for _ in range(3)]

    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in serve_while(crowd, patience_s=60))


def test_the_number_of_connections_is_limited() -> None:
    """Above the limit, the server closes the oldest silent connections."""

    def crowd(port: int) -> int:
        with ExitStack() as stack:
            silent = [
                stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
                for _ in range(MOST_CONNECTIONS + 5)
            ]
            # The answer to this request shows that the server has accepted all connections.
            talk(port, b"GET /metrics HTTP/1.1\r\n\r\n")
            return sum(is_closed(sock) for sock in silent)

    def is_closed(sock: socket.socket) -> bool:
        sock.settimeout(0)
        try:
            return sock.recv(1) == b""
        except BlockingIOError:
            return False
        except ConnectionError:
            return True

    assert serve_while(crowd, patience_s=60) >= 5


def test_shutdown_does_not_wait_for_silent_clients() -> None:
    async def serve_and_end() -> bytes:
        async with serve_http("127.0.0.1", 0, PAGES, patience_s=60) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET ")
            await writer.drain()
            silent = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.sleep(0)
        try:
            return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.transport.abort()
            silent[1].transport.abort()

    assert asyncio.run(asyncio.wait_for(serve_and_end(), timeout=10)) == b""
