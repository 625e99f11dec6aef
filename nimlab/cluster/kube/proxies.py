"""Which proxy leads to a server: the kubeconfig's own, else the environment's, by the rules of Go's net/http.

In: a server's URL, a proxy's URL, an environment. Out: a `Proxy`, or None for a direct connection. The
kubeconfig's proxy always counts. The environment's never counts for loopback, nor for the hosts of NO_PROXY.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from nimlab.errors import NimlabError
from nimlab.objects.masking import keep_secret

_SUPPORTED = ("http", "https")
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """A proxy's address without its credentials, and the header value that authenticates there."""

    url: str
    user: str | None
    source: str

    def __str__(self) -> str:
        return f"{self.url} (from {self.source})"


def choose_proxy(server: str, own: str, environment: Mapping[str, str]) -> Proxy | None:
    """Return the proxy for a server's URL. Raises NimlabError for one that can't be used."""
    if own:
        return _parse(own, "proxy-url in the kubeconfig")
    target = urlsplit(server)
    name = f"{target.scheme.upper()}_PROXY"
    source = next((key for key in (name, name.lower()) if environment.get(key)), None)
    if source is None or _is_exempt(target, environment.get("NO_PROXY") or environment.get("no_proxy") or ""):
        return None
    text = environment[source]
    return _parse(text if "://" in text else f"http://{text}", source)


def _parse(text: str, source: str) -> Proxy:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, parts, port = "", urlsplit(""), None
    shown = f"{parts.scheme}://{_bracket(host)}" + (f":{port}" if port else "")
    for secret in (parts.password, unquote(parts.password or "")):
        keep_secret(secret or "")
    if not host:
        raise NimlabError(
            "the proxy's address isn't a URL", where=source, hint="write it as http://HOST:PORT"
        )
    if parts.scheme not in _SUPPORTED:
        raise NimlabError(
            f"the proxy {shown} can't be used: `{parts.scheme}` isn't supported",
            where=source,
            hint="name a proxy with http:// or https://, or none",
        )
    user = None
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return Proxy(url=shown, user=user, source=source)


def _bracket(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def is_loopback(host: str) -> bool:
    """Return True for `localhost` and the addresses of this machine's loopback."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_exempt(target: SplitResult, no_proxy: str) -> bool:
    host = (target.hostname or "").rstrip(".")
    port = target.port or _PORTS.get(target.scheme, 0)
    if is_loopback(host):
        return True
    rules = (rule.strip().lower() for rule in no_proxy.split(","))
    return any(_covers(rule, host, port) for rule in rules if rule)


def _covers(rule: str, host: str, port: int) -> bool:
    """True when a rule of NO_PROXY fits: `*`, an address, a CIDR, a name or `.name`, with a port or none."""
    if rule == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(rule, strict=False)
    except ValueError:
        pass
    name, _, wanted = rule.rpartition(":") if rule.rpartition(":")[2].isdigit() else (rule, "", "")
    if wanted and int(wanted) != port:
        return False
    name = name.strip("[]")
    if name.startswith(("*.", ".")):
        return host.endswith(name.removeprefix("*"))
    return host == name or host.endswith(f".{name}")
