"""Access to an API server: a `KubeconfigEntry` -> an `Access` with URL, CA, credentials and proxy.

Contradictory settings are rejected, as kubectl rejects them.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import ssl
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import urllib3
from urllib3 import HTTPHeaderDict
from urllib3.exceptions import InsecureRequestWarning

from nimlab.cluster.kube.credentials import Header, TokenFile, authenticate, bearer
from nimlab.cluster.kube.exec_plugin import Credential, Plugin
from nimlab.cluster.kube.kubeconfig import KubeconfigEntry, read_entry
from nimlab.cluster.kube.proxies import Proxy, choose_proxy
from nimlab.cluster.kube.tls import make_context
from nimlab.errors import NimlabError
from nimlab.objects.mask_secrets import remember_credential

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_MOUNT_HINT: Final = "mount the ServiceAccount's token in the pod (automountServiceAccountToken)"
_PEM: Final = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----\s.*?-----END \1-----", re.DOTALL)
_SECRET_FIELDS: Final = (
    "token", "tokenFile", "username", "password", "client-certificate", "client-certificate-data",
    "client-key", "client-key-data", "exec",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The settings for access to an API server.

    `ca` and `certificate` are PEM. If `ca` is None, the CAs of the system are trusted. `rotates` is True if
    the client certificate can change while nimlab runs. `where` is the file or folder that error messages
    name.
    """

    server: str
    ca: str | None
    is_insecure: bool
    server_name: str | None
    certificate: Callable[[], tuple[str, str] | None]
    headers: Callable[[], tuple[Header, ...]]
    proxy: Proxy | None
    where: str
    rotates: bool = False

    def credentials(self) -> Mapping[str, str]:
        """Return the headers that authenticate a request."""
        return HTTPHeaderDict(self.headers())

    def pool(self, connections: int) -> urllib3.PoolManager:
        """Return a connection pool with these settings. Raises NimlabError for invalid certificates."""
        if self.rotates:
            return _RotatingPool(self.certificate, partial(self._pool, connections))
        return self._pool(connections)

    def _pool(self, connections: int) -> urllib3.PoolManager:
        settings: dict[str, Any] = {"maxsize": connections}
        if self.server.startswith("https://"):
            settings |= self._tls()
        if self.proxy is None:
            return urllib3.PoolManager(**settings)
        if self.proxy.user is not None:
            settings["proxy_headers"] = urllib3.make_headers(proxy_basic_auth=self.proxy.user)
            remember_credential(settings["proxy_headers"]["proxy-authorization"].removeprefix("Basic "))
        return _ThroughProxy(self.proxy.url, proxy_ssl_context=self._context(), **settings)

    def _tls(self) -> dict[str, Any]:
        settings: dict[str, Any] = {"ssl_context": self._context(), "server_hostname": self.server_name}
        return settings | ({"cert_reqs": "CERT_NONE"} if self.is_insecure else {})

    def _context(self) -> ssl.SSLContext:
        context = make_context()
        if self.is_insecure:
            urllib3.disable_warnings(InsecureRequestWarning)  # nimlab prints its own warning, once
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        else:
            self._trust(context)
        pair = self.certificate()
        if pair is not None:
            _load_certificate(context, *pair, self.where)
        return context

    def _trust(self, context: ssl.SSLContext) -> None:
        if self.ca is None:
            context.load_default_certs()
            return
        try:
            context.load_verify_locations(cadata=self.ca)
        except ssl.SSLError:
            raise NimlabError(
                "certificate-authority contains no valid certificate",
                where=self.where,
                hint="fetch a new kubeconfig",
            ) from None


class _ThroughProxy(urllib3.ProxyManager):
    """A connection pool for a proxy; it sends all values of a header that has several values."""

    def _set_proxy_headers(self, url: str, headers: Mapping[str, str] | None = None) -> Mapping[str, str]:
        merged = HTTPHeaderDict(headers or {})
        merged.setdefault("Accept", "*/*")
        merged.setdefault("Host", urlsplit(url).netloc)
        return merged


class _RotatingPool(urllib3.PoolManager):
    """A pool that is replaced for a new client certificate, because a TLS context in use must not change."""

    def __init__(
        self, certificate: Callable[[], tuple[str, str] | None], make: Callable[[], urllib3.PoolManager]
    ) -> None:
        super().__init__()
        self._certificate = certificate
        self._make = make
        self._lock = threading.Lock()
        self._pair = certificate()
        self._current = make()

    def urlopen(self, method: str, url: str, *args: Any, **settings: Any) -> urllib3.BaseHTTPResponse:  # noqa: ANN401 -- passed through
        """Send the request through the pool of the current certificate."""
        pair = self._certificate()
        with self._lock:
            if pair != self._pair:
                self._current, self._pair = self._make(), pair
            pool = self._current
        return pool.urlopen(method, url, *args, **settings)

    def clear(self) -> None:
        """Close all connections."""
        self._current.clear()


def read_access(kubeconfig: Path | None, context: str | None) -> Access:
    """Return the settings for access to the cluster of a context. Raises NimlabError.

    If `kubeconfig` is None, the default files are read. If `context` is None, the current context is used.
    """
    entry = read_entry(kubeconfig, context)
    server = server_url(entry)
    is_secure = server.startswith("https://")
    _check_user(entry, is_secure=is_secure)
    is_insecure = bool(entry.cluster.get("insecure-skip-tls-verify"))
    ca = _pem(entry, entry.cluster, "certificate-authority", "CERTIFICATE")
    if ca is not None and is_insecure and is_secure:
        raise entry.error(
            "certificate-authority and insecure-skip-tls-verify contradict each other", "remove one"
        )
    plugin = Plugin(entry) if "exec" in entry.user else None
    fixed = _fixed_certificate(entry)
    headers = authenticate(entry, plugin)
    plain = (("accept-encoding", "identity"),) if entry.cluster.get("disable-compression") else ()
    return Access(
        server=server,
        ca=ca,
        is_insecure=is_insecure and is_secure,
        server_name=entry.cluster.get("tls-server-name") or None,
        certificate=lambda: fixed if plugin is None else _of_plugin(plugin.credential()),
        headers=lambda: (*headers(), *plain),
        proxy=choose_proxy(server, entry.cluster.get("proxy-url", ""), os.environ),
        where=str(entry.path),
        rotates=plugin is not None,
    )


def in_cluster_access(folder: Path | None = None) -> Access:
    """Return the access settings of this pod's ServiceAccount. Raises NimlabError outside of a pod."""
    host, port = (os.environ.get(f"KUBERNETES_SERVICE_{part}", "") for part in ("HOST", "PORT"))
    if not host or not port.isdecimal():
        raise NimlabError(
            "--in-cluster works only in a pod: KUBERNETES_SERVICE_HOST or KUBERNETES_SERVICE_PORT is not set",
            hint="choose a cluster with `--context NAME` or `--kubeconfig FILE`",
        )
    folder = folder or SERVICE_ACCOUNT
    tokens = TokenFile(folder / "token")
    ca = folder / "ca.crt"
    try:
        text = ca.read_bytes().decode("latin-1")
    except OSError as error:
        raise NimlabError(
            f"the ServiceAccount's CA cannot be read: {error.strerror}", where=ca, hint=_MOUNT_HINT
        ) from None
    server = f"https://{f'[{host}]' if ':' in host else host}:{port}"
    return Access(
        server=server,
        ca="\n".join(match[0] for match in _PEM.finditer(text)) + "\n",
        is_insecure=False,
        server_name=None,
        certificate=lambda: None,
        headers=lambda: (bearer(tokens.token()),),
        proxy=choose_proxy(server, "", os.environ),
        where=str(folder),
    )


def server_url(entry: KubeconfigEntry) -> str:
    """Return the server's URL with a lower-case scheme. Raises NimlabError for an invalid URL."""
    text = entry.cluster.get("server", "")
    if not text:
        raise entry.error("the cluster has no server", "add `server: https://HOST:PORT`")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or parts.scheme not in ("http", "https") or re.search(r"[\s\x00-\x1f]", text):
        raise entry.error(
            "cluster.server is not a URL with https://", "write it as `server: https://HOST:PORT`"
        )
    if parts.username is not None or parts.query or parts.fragment:
        remember_credential(parts.password or "")
        raise entry.error(
            "cluster.server must contain only a host, a port and a path", "remove the user, `?` or `#`"
        )
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + (f":{port}" if port is not None else "") + parts.path.rstrip("/")


def _check_user(entry: KubeconfigEntry, *, is_secure: bool) -> None:
    user = entry.user
    given = [field for field in _SECRET_FIELDS if user.get(field)]
    if user.get("auth-provider"):
        raise entry.error(
            "user.auth-provider is not supported", "use an exec plugin, a token or a certificate"
        )
    if given and not is_secure:
        raise entry.error(
            f"user.{given[0]} is not sent over http://, because others in the network could read it",
            "use https:// in cluster.server",
        )
    if is_secure and not given:
        raise entry.error("the user has no credentials", "add a token, a certificate or an exec plugin")
    has_token, has_password = (
        user.get("token") or user.get("tokenFile"),
        user.get("username") or user.get("password"),
    )
    if has_token and has_password:
        raise entry.error("the user has both a token and a password", "remove one of them")
    if has_password and not user.get("username"):
        raise entry.error("user.password is set without user.username", "add the username")
    others = [field for field in given if field != "exec"]
    if "exec" in user and others:
        raise entry.error(f"user.exec and user.{others[0]} are both set", "remove one of them")


def _fixed_certificate(entry: KubeconfigEntry) -> tuple[str, str] | None:
    certificate = _pem(entry, entry.user, "client-certificate", "CERTIFICATE")
    key = _pem(entry, entry.user, "client-key", "KEY")
    if (certificate is None) != (key is None):
        missing = "client-key" if key is None else "client-certificate"
        raise entry.error(f"user.{missing} is missing", "configure both: a client certificate needs its key")
    return None if certificate is None or key is None else (certificate, key)


def _of_plugin(credential: Credential) -> tuple[str, str] | None:
    return (credential.certificate, credential.key) if credential.certificate else None


def _pem(entry: KubeconfigEntry, fields: Any, name: str, kind: str) -> str | None:  # noqa: ANN401 -- checked fields
    """Return the PEM blocks of a kind from the inline data or the file; only one of the two may be set."""
    data, path = fields.get(f"{name}-data"), fields.get(name)
    if data and path:
        raise entry.error(f"{name} and {name}-data are both set", "remove one of them")
    if not data and not path:
        return None
    if kind == "KEY":
        remember_credential(data or "")
    try:
        raw = (
            base64.b64decode(re.sub(r"[\r\n]", "", data), validate=True) if data else Path(path).read_bytes()
        )
    except (binascii.Error, ValueError):
        raise entry.error(f"{name}-data is not base64", "encode the PEM file with `base64 -w0`") from None
    except OSError as error:
        raise entry.error(f"{name} {path} cannot be read: {error.strerror}", "correct the path") from None
    text = raw.decode("latin-1")
    if kind == "KEY":
        remember_credential(text)
    blocks = [match[0] for match in _PEM.finditer(text) if match[1].endswith(kind)]
    if not blocks:
        raise entry.error(
            f"{name} contains no {kind.lower()} in PEM", "use a PEM file, or its content in base64"
        )
    return "\n".join(blocks) + "\n"


def _load_certificate(context: ssl.SSLContext, certificate: str, key: str, where: str) -> None:
    """Load the client certificate from a private temporary file, because OpenSSL loads only files."""
    with tempfile.NamedTemporaryFile("w", prefix="nimlab-", suffix=".pem") as file:
        file.write(certificate + "\n" + key)
        file.flush()
        try:
            context.load_cert_chain(file.name, password=b"")  # an encrypted key causes an error, not a prompt
        except (OSError, ValueError):
            raise NimlabError(
                "the client certificate and its key cannot be used",
                where=where,
                hint="they must be in PEM and belong together, and the key must not be encrypted",
            ) from None
