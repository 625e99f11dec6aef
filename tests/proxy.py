"""A proxy in front of the real API server that counts requests and can answer some of them itself.

It listens on loopback without TLS; its kubeconfig holds no credentials, since the proxy adds its own.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeAlias

from nimlab.kube import KubeCluster, Target, connect


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    body: bytes
    accept: str = ""

    @property
    def is_write(self) -> bool:
        """True for a request that could change something: not a read, and no dry-run."""
        return self.method not in ("GET", "HEAD") and "dryRun=All" not in self.path


Fault: TypeAlias = Callable[[Seen], tuple[int, object] | None]
"""Returns a status and a body to answer with, or None to pass the request on."""


@dataclass(slots=True)
class Proxy:
    """A running proxy; `fault` may be set at any time."""

    kubeconfig: Path
    seen: list[Seen] = field(default_factory=list)
    fault: Fault | None = None

    @property
    def writes(self) -> list[Seen]:
        """All requests that could have changed something."""
        return [request for request in self.seen if request.is_write]


class _Server(ThreadingHTTPServer):
    """Listens on a free port of loopback; its threads end with the test."""

    daemon_threads = True

    def __init__(self, proxy: Proxy, upstream: KubeCluster) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.proxy = proxy
        self.upstream = upstream


class _Handler(BaseHTTPRequestHandler):
    """Notes a request, then answers it by the fault or passes it on."""

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
        if fault is not None:
            self._send(fault[0], json.dumps(fault[1]).encode(), {})
            return
        answer = self._pass_on(request)
        if "watch=true" in self.path:
            self._stream(answer)
        else:
            self._send(answer.status, answer.read(decode_content=False), dict(answer.headers))

    def _pass_on(self, request: Seen) -> Any:
        upstream = self.server.upstream
        passed = {
            name: value
            for name, value in self.headers.items()
            if name.lower() not in ("host", "content-length", "connection")
        }
        return upstream._pool.request(
            request.method,
            upstream.host + request.path,
            body=request.body or None,
            headers={**passed, **upstream._credentials()},
            preload_content=False,
            decode_content=False,
            retries=False,
        )

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name in ("Content-Type", "Content-Encoding", "Retry-After"):
            if name in headers:
                self.send_header(name, headers[name])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, answer: Any) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for chunk in answer.stream(decode_content=True):
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
    """Run a proxy to the cluster of a kubeconfig, and give it a kubeconfig of its own in the folder."""
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
