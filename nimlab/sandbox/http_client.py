"""HTTPS client for the sandbox's own servers: JSON requests to its API server and to etcd.

The client uses the connection pool and the TLS settings of `cluster.kube`. It does not repeat failed
requests, because its callers poll servers that are starting. `KubeCluster` cannot be used, because it does
not support etcd and Node objects.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

from nimlab.cluster.kube.resolve_connection import Access
from nimlab.cluster.kube.send_once import send_once
from nimlab.errors import SandboxError
from nimlab.sandbox.folder_layout import Layout

_HEADERS: Final = {"Accept": "application/json", "Content-Type": "application/json"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A server's response. If there was no response, the status is 0 and the body is empty."""

    status: int
    body: Any

    @property
    def ok(self) -> bool:
        """True if the request succeeded."""
        return 200 <= self.status < 300


class SandboxClient:
    """One connection, opened by the first request and closed at the end of the `with` block."""

    def __init__(self, layout: Layout, port: int, *, user: str = "admin", timeout_s: float = 10.0) -> None:
        """Read the certificate of `user` from the sandbox's `pki` folder.

        Raises OSError if a file cannot be read, and NimlabError if it is not a certificate.
        """
        self._timeout_s = timeout_s
        self._is_connected = False
        self._server = f"https://127.0.0.1:{port}"
        certificate, key, ca = (
            (layout.pki / name).read_text("ascii") for name in (f"{user}.crt", f"{user}.key", "ca.crt")
        )
        access = Access(
            server=self._server,
            ca=ca,
            is_insecure=False,
            server_name=None,
            certificate=lambda: (certificate, key),
            headers=tuple,
            proxy=None,
            where=str(layout.pki),
        )
        self._pool = access.pool(1)

    def __enter__(self) -> SandboxClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.clear()

    def request(self, method: str, path: str, body: object = None) -> Response:
        """Send one request and return the response; its status is 0 if there was no response.

        A request on a connection that was open before is sent again if it fails, because the server may have
        been restarted in the meantime.
        """
        was_connected = self._is_connected
        response = self._send(method, path, body)
        return self._send(method, path, body) if was_connected and response.status == 0 else response

    def _send(self, method: str, path: str, body: object) -> Response:
        payload = None if body is None else json.dumps(body).encode()
        url = self._server + path
        raw = send_once(self._pool, method, url, body=payload, headers=_HEADERS, timeout_s=self._timeout_s)
        self._is_connected = raw is not None
        return (
            Response(status=0, body={}) if raw is None else Response(status=raw.status, body=_parse(raw.body))
        )


def require_success(response: Response, action: str, *, or_status: int = 200) -> Response:
    """Return the response if it succeeded or has the status `or_status`. Raises SandboxError."""
    if response.ok or response.status == or_status:
        return response
    message = response.body.get("message", "") if isinstance(response.body, dict) else response.body
    raise SandboxError(f"cannot {action}: {message or 'no response'} ({response.status})", where="sandbox")


def _parse(body: bytes) -> Any:  # noqa: ANN401 -- any JSON
    """Return the JSON value; return the text if the body is not JSON (such as the server's metrics)."""
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")
