"""Choose the proxy for a server, from the kubeconfig or the environment. The kubeconfig has precedence.

In: the server's URL, the kubeconfig's proxy-url and the environment. Out: a `Proxy`, or None for a direct
connection. A proxy in the kubeconfig always applies. A proxy in the environment follows the rules of Go's
net/http: it does not apply to loopback addresses or to the hosts in NO_PROXY.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from nimlab.errors import NimlabError
from nimlab.objects.mask_secrets import remember_credential

_SUPPORTED = ("http", "https")
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """A proxy.

    `url` contains no credentials. `user` is `user:password`; None if the proxy needs no password. `source` is
    the setting that names the proxy.
    """

    url: str
    user: str | None
    source: str

    def __str__(self) -> str:
        return f"{self.url} (from {self.source})"


def choose_proxy(server: str, proxy_url: str, environment: Mapping[str, str]) -> Proxy | None:
    """Return the proxy for a server's URL; None for a direct connection. Raises NimlabError.

    `proxy_url` is the value of `proxy-url` in the kubeconfig; it is empty if it is not set.
    """
    if proxy_url:
        return _parse(proxy_url, "proxy-url in the kubeconfig")
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
        remember_credential(secret or "")
    if not host:
        raise NimlabError(
            "the proxy's address is not a URL", where=source, hint="write it as http://HOST:PORT"
        )
    if parts.scheme not in _SUPPORTED:
        raise NimlabError(
            f"the proxy {shown} cannot be used: `{parts.scheme}` is not supported",
            where=source,
            hint="use a proxy with http:// or https://, or remove the setting",
        )
    user = None
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return Proxy(url=shown, user=user, source=source)


def _bracket(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def is_loopback(host: str) -> bool:
    """Return True for `localhost` and loopback addresses."""
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
    return any(_matches(rule, host, port) for rule in rules if rule)


def _matches(rule: str, host: str, port: int) -> bool:
    """Return True if a NO_PROXY rule matches: `*`, an address, a CIDR, or a name with an optional port."""
    if rule == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(rule, strict=False)
    except ValueError:
        pass
    name, _, rule_port = rule.rpartition(":") if rule.rpartition(":")[2].isdigit() else (rule, "", "")
    if rule_port and int(rule_port) != port:
        return False
    name = name.strip("[]")
    if name.startswith(("*.", ".")):
        return host.endswith(name.removeprefix("*"))
    return host == name or host.endswith(f".{name}")
