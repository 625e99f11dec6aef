"""A proxy in front of the real API server that records requests and can inject faults.

It listens on loopback without TLS. The kubeconfig that it writes contains no credentials, because the proxy
adds credentials to each request.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeAlias

from nimlab.cluster.kube import KubeCluster, Target, connect


@dataclass(frozen=True, slots=True)
class Seen:
    """One received request."""

    method: str
    path: str
    body: bytes
    accept: str = ""

    @property
    def is_write(self) -> bool:
        """True if the request can change an object: it is not a read and not a dry run."""
        return self.method not in ("GET", "HEAD") and "dryRun=All" not in self.path


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """The fault that is injected into one request.

    If `status` is set, the proxy does not forward the request and responds with `body` and `headers`. If
    `cut_before` is set, it closes the connection at once. Otherwise it forwards the request after `delay_s`.
    Then, with `cut`, it closes the connection without a response, and with `half`, it closes the connection
    in the middle of the response. `instead` replaces the response body, which simulates an API server with an
    outdated cache.
    """

    status: int | None = None
    body: object = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    cut: bool = False
    cut_before: bool = False
    half: bool = False
    instead: bytes | None = None


Fault: TypeAlias = Callable[[Seen], tuple[int, object] | Broken | None]
"""A function that returns a status and a body, or a `Broken`, or None to forward the request unchanged."""


@dataclass(slots=True)
class Gate:
    """A fault that only delays a request: at a matching request, it sets `reached` and waits for `opened`."""

    matches: Callable[[Seen], bool]
    reached: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)

    def __call__(self, request: Seen) -> None:
        """Delay the request if it matches; the proxy then forwards it."""
        if self.matches(request):
            self.reached.set()
            self.opened.wait(60)


@dataclass(slots=True)
class Proxy:
    """A running proxy; `fault` and `on_response` may be set at any time.

    `on_response` is called with each forwarded request, the status and the body of its response.
    """

    kubeconfig: Path
    seen: list[Seen] = field(default_factory=list)
    fault: Fault | None = None
    on_response: Callable[[Seen, int, bytes], None] | None = None

    @property
    def writes(self) -> list[Seen]:
        """All received requests that can have changed an object."""
        return [request for request in self.seen if request.is_write]


class _Server(ThreadingHTTPServer):
    """A server on a free port of the loopback interface; its threads end with the test."""

    daemon_threads = True

    def __init__(self, proxy: Proxy, upstream: KubeCluster) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.proxy = proxy
        self.upstream = upstream

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing about a closed connection, because tests compare the printed output."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """A handler that records a request, then injects a fault or forwards the request."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the base class's name
        del format, args

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        request = Seen(self.command, self.path, self.rfile.read(length), self.headers.get("Accept", ""))
        proxy = self.server.proxy
        proxy.seen.append(request)
        fault = proxy.fault(request) if proxy.fault else None
        if isinstance(fault, tuple):
            fault = Broken(status=fault[0], body=fault[1])
        fault = fault or Broken()
        if fault.status is not None:
            self._send(fault.status, json.dumps(fault.body).encode(), dict(fault.headers))
            return
        if fault.cut_before:
            self._cut()
            return
        time.sleep(fault.delay_s)
        answer = self._forward(request)
        if "watch=true" in self.path and not fault.cut:
            self._stream(answer, limit=1 if fault.half else None)
            return
        body = answer.read(decode_content=False)
        if proxy.on_response is not None:
            proxy.on_response(request, answer.status, body)
        if fault.cut:
            self._cut()
            return
        if fault.instead is not None:
            self._send(200, fault.instead, {"Content-Type": "application/json"})
            return
        self._send(answer.status, body, dict(answer.headers), half=fault.half)

    def _forward(self, request: Seen) -> Any:
        upstream = self.server.upstream
        forwarded = {
            name: value
            for name, value in self.headers.items()
            if name.lower() not in ("host", "content-length", "connection")
        }
        if self.server.proxy.on_response is not None:
            forwarded.pop("Accept-Encoding", None)  # `on_response` gets an uncompressed body
        return upstream.transport.pool.request(
            request.method,
            upstream.host + request.path,
            body=request.body or None,
            headers={**forwarded, **upstream.transport.credentials()},
            preload_content=False,
            decode_content=False,
            retries=False,
        )

    def _cut(self) -> None:
        """Close the connection without a response."""
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _send(self, status: int, body: bytes, headers: dict[str, str], *, half: bool = False) -> None:
        self.send_response(status)
        for name in ("Content-Type", "Content-Encoding", "Retry-After", "Warning"):
            if name in headers:
                self.send_header(name, headers[name])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(OSError):  # the client may have closed the connection after a timeout
            self.wfile.write(body[: len(body) // 2] if half else body)
        if half:
            self._cut()

    def _stream(self, answer: Any, limit: int | None) -> None:
        """Forward a watch chunk by chunk; after `limit` chunks, close it in the middle of the next chunk."""
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for number, chunk in enumerate(answer.stream(decode_content=True)):
                if number == limit:
                    self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk[: len(chunk) // 2])
                    self._cut()
                    return
                self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            return
        finally:
            answer.close()

    do_GET = do_PATCH = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815 -- the base class's names


@contextmanager
def run_proxy(kubeconfig: Path, folder: Path) -> Iterator[Proxy]:
    """Run a proxy to the cluster of a kubeconfig, and write the proxy's own kubeconfig into the folder."""
    target = Target(kubeconfig=kubeconfig, context=None, name="sandbox", why="a test")
    upstream = connect(target, parallel=32)
    proxy = Proxy(kubeconfig=folder / "proxy-kubeconfig")
    server = _Server(proxy, upstream)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    cluster = {"server": f"http://127.0.0.1:{server.server_port}"}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "p", "cluster": cluster}],
        "users": [{"name": "p", "user": {}}],
        "contexts": [{"name": "p", "context": {"cluster": "p", "user": "p"}}],
        "current-context": "p",
    }
    proxy.kubeconfig.write_text(json.dumps(config), encoding="utf-8")
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        upstream.close()
