"""Why no answer came, in plain words: an error of the HTTP library -> what happened and what to do."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator

from urllib3.exceptions import HTTPError, ProxyError

from nimlab.cluster.kube.requests import shorten_reason

_ADDRESS_HINT = "is the cluster up, and is the address right?"
_CERTIFICATE_HINT = "correct certificate-authority in the kubeconfig, or fetch the kubeconfig anew"
_PROXY_HINT = "is the proxy up, and is its address right? correct it where it is set"
_NAME_HINT = "correct cluster.server, or set tls-server-name to a name in the certificate"
_CLIENT_HINT = "fetch a new client certificate: this one is unknown to the server, or has expired"

_VERIFY = (
    (r"hostname mismatch|ip address mismatch", "its certificate is for another name", _NAME_HINT),
    (
        "has expired",
        "its certificate has expired",
        "renew the server's certificate, or correct this machine's clock",
    ),
    ("not yet valid", "its certificate isn't valid yet", "correct this machine's clock, or the server's"),
    ("", "its certificate isn't signed by the CA of the kubeconfig", _CERTIFICATE_HINT),
)
_TLS = (
    (
        "wrong version number|http request|record layer failure",
        "it doesn't answer in TLS",
        "the port may be a plain http:// one: correct cluster.server",
    ),
    (
        "alert (unknown ca|bad certificate)|certificate (required|expired)|unknown certificate|access denied",
     "it refuses the client certificate", _CLIENT_HINT),
    ("protocol version|unsupported protocol|handshake failure|no shared cipher|no protocols",
     "it supports no version of TLS or cipher that is safe", "update the server: TLS 1.2 is the least"),
    ("", "the TLS connection can't be made", "see that cluster.server is the API server's address"),
)  # fmt: skip


def explain(error: HTTPError, proxy: str | None) -> tuple[str, str]:
    """Return the reason without the libraries' raw text, and a hint."""
    if isinstance(error, ProxyError) or (proxy is not None and "tunnel" in str(error).lower()):
        status = re.search(r"[Tt]unnel connection failed: ([0-9]{3})", str(error))
        said = f"it answers {status[1]}" if status else _network(error)
        if status and status[1] == "407":
            said = "it demands a user and a password"
        return (
            f"the proxy {proxy} can't be used: {said}",
            _PROXY_HINT,
        )
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _match(f"{cause.verify_message} {cause}", _VERIFY)
        if isinstance(cause, ssl.SSLError):
            return _match(str(cause).replace("_", " "), _TLS)
    through = f" (through the proxy {proxy})" if proxy else ""
    return _network(error) + through, _ADDRESS_HINT


def _match(text: str, table: tuple[tuple[str, str, str], ...]) -> tuple[str, str]:
    return next((reason, hint) for pattern, reason, hint in table if re.search(pattern, text.lower()))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and those that it was made of."""
    todo, seen = [error], set[int]()
    while todo:
        one = todo.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        inner = (*one.args, one.__cause__, one.__context__, getattr(one, "original_error", None))
        todo += [part for part in inner if isinstance(part, BaseException)]


def _network(error: HTTPError) -> str:
    for cause in _causes(error):
        if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError) and cause.strerror:
            return cause.strerror
    return shorten_reason(error).rstrip("\"')")
