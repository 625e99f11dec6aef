"""The sandbox's own little HTTPS client: JSON to and from its API server and etcd.

Certificates are checked. It is here because the rooms that speak to the user's cluster may not be
imported by this one.
"""

from __future__ import annotations

import http.client
import json
import ssl
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from nimlab.errors import SandboxError
from nimlab.sandbox.state import Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back; status 0 and an empty body if nothing did."""

    status: int
    body: Any

    @property
    def ok(self) -> bool:
        """True if the server did what was asked."""
        return 200 <= self.status < 300


class Api:
    """One connection, opened when needed and closed with the `with` block."""

    def __init__(self, layout: Layout, port: int, *, user: str = "admin", timeout_s: float = 10.0) -> None:
        """`user` names a certificate in the sandbox's `pki` folder."""
        context = ssl.create_default_context(cafile=str(layout.pki / "ca.crt"))
        context.load_cert_chain(layout.pki / f"{user}.crt", layout.pki / f"{user}.key")
        self._connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=timeout_s, context=context)

    def __enter__(self) -> Api:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()

    def call(self, method: str, path: str, body: object = None) -> Answer:
        """Send one request. Whatever keeps an answer from coming is the answer with status 0."""
        kept = self._connection.sock is not None  # by a server that may have been replaced
        answer = self._send(method, path, body)
        return self._send(method, path, body) if kept and answer.status == 0 else answer

    def _send(self, method: str, path: str, body: object) -> Answer:
        payload = None if body is None else json.dumps(body).encode()
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        try:
            self._connection.request(method, path, body=payload, headers=headers)
            response = self._connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()  # the next request opens it anew
            return Answer(status=0, body={})
        return Answer(status=response.status, body=_parse(text))


def expect(answer: Answer, what: str, *, or_status: int = 200) -> Answer:
    """Return a good answer, or one of this status. Raises SandboxError."""
    if answer.ok or answer.status == or_status:
        return answer
    said = answer.body.get("message", "") if isinstance(answer.body, dict) else answer.body
    raise SandboxError(f"cannot {what}: {said or 'no answer'} ({answer.status})", where="sandbox")


def _parse(text: bytes) -> Any:  # noqa: ANN401 -- any JSON
    try:
        return json.loads(text)
    except ValueError:
        return text.decode(errors="replace")
