"""Explain why there is no response: an exception of the HTTP library -> a reason and a hint."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator

from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ProxyError, SSLError

from nimlab.errors import shorten

_ADDRESS_HINT = "check that the cluster is running and that the address is correct"
_CERTIFICATE_HINT = "correct certificate-authority in the kubeconfig, or fetch a new kubeconfig"
_PROXY_HINT = "check that the proxy is running; correct its address where it is configured"
_NAME_HINT = "correct cluster.server, or set tls-server-name to a name in the certificate"
_CLIENT_HINT = "fetch a new client certificate: this one is not signed by the server's CA, or has expired"

_VERIFY = (
    (r"hostname mismatch|ip address mismatch", "the server's certificate is for another name", _NAME_HINT),
    (
        "has expired",
        "the server's certificate has expired",
        "renew the server's certificate, or correct this machine's clock",
    ),
    (
        "not yet valid",
        "the server's certificate is not valid yet",
        "correct this machine's clock, or the server's",
    ),
    ("", "the server's certificate is not signed by the CA in the kubeconfig", _CERTIFICATE_HINT),
)
_TLS = (
    (
        "wrong version number|http request|record layer failure",
        "the server does not use TLS on this port",
        "the port may serve plain http://: correct cluster.server",
    ),
    (
        "alert (unknown ca|bad certificate)|certificate (required|expired)|unknown certificate|access denied",
     "the server rejects the client certificate", _CLIENT_HINT),
    ("protocol version|unsupported protocol|handshake failure|no shared cipher|no protocols",
     "the server supports no secure TLS version or cipher", "update the server: it needs TLS 1.2 or later"),
    ("", "the TLS connection cannot be established", "check that cluster.server is the API server's address"),
)  # fmt: skip


def explain(error: HTTPError, proxy: str | None) -> tuple[str, str]:
    """Return the reason for a missing response, and a hint."""
    if isinstance(error, ProxyError) or (proxy is not None and "tunnel" in str(error).lower()):
        status = re.search(r"[Tt]unnel connection failed: ([0-9]{3})", str(error))
        reason = f"it responded with {status[1]}" if status else _network_reason(error)
        if status and status[1] == "407":
            reason = "it requires a user name and a password"
        return f"the proxy {proxy} cannot be used: {reason}", _PROXY_HINT
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _match(f"{cause.verify_message} {cause}", _VERIFY)
        if isinstance(cause, ssl.SSLError):
            return _match(str(cause).replace("_", " "), _TLS)
    through = f" (through the proxy {proxy})" if proxy else ""
    return _network_reason(error) + through, _ADDRESS_HINT


def is_connect_failure(error: HTTPError) -> bool:
    """Return True if no connection could be established. Further attempts will probably fail too."""
    return isinstance(error, NewConnectionError | ConnectTimeoutError)


def is_permanent(error: HTTPError) -> bool:
    """Return True for a failure that a retry cannot change: a certificate error or a proxy's rejection."""
    is_rejected_by_proxy = "tunnel connection failed: 4" in str(error).lower()
    return isinstance(error, SSLError) or is_rejected_by_proxy


def _match(text: str, table: tuple[tuple[str, str, str], ...]) -> tuple[str, str]:
    return next((reason, hint) for pattern, reason, hint in table if re.search(pattern, text.lower()))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and all errors that it wraps."""
    pending, seen = [error], set[int]()
    while pending:
        cause = pending.pop()
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        inner = (*cause.args, cause.__cause__, cause.__context__, getattr(cause, "original_error", None))
        pending += [part for part in inner if isinstance(part, BaseException)]


def _network_reason(error: HTTPError) -> str:
    for cause in _causes(error):
        if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError) and cause.strerror:
            return cause.strerror
    innermost = str(error).rpartition(": ")[2]  # the library nests its messages, with the cause last
    return shorten(innermost).rstrip("\"')")
