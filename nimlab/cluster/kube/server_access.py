"""Where the API server is, how it is trusted, and through which proxy: an `Entry` -> an `Access`.

Settings that contradict each other are rejected as kubectl rejects them.
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
from nimlab.objects.masking import keep_secret

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_MOUNT_HINT: Final = "let the pod mount its ServiceAccount's token (automountServiceAccountToken)"
_PEM: Final = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----\s.*?-----END \1-----", re.DOTALL)
_SECRET_FIELDS: Final = (
    "token", "tokenFile", "username", "password", "client-certificate", "client-certificate-data",
    "client-key", "client-key-data", "exec",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """An API server and what gives access to it; texts are PEM. Without `ca` the system's roots count."""

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
        """Return the headers that authenticate a request; one name may have several values."""
        return HTTPHeaderDict(self.headers())

    def pool(self, connections: int) -> urllib3.PoolManager:
        """Return a pool that trusts this CA and no other. Raises NimlabError for what is no certificate."""
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
            keep_secret(settings["proxy_headers"]["proxy-authorization"].removeprefix("Basic "))
        return _ThroughProxy(self.proxy.url, proxy_ssl_context=self._context(), **settings)

    def _tls(self) -> dict[str, Any]:
        settings: dict[str, Any] = {"ssl_context": self._context(), "server_hostname": self.server_name}
        return settings | ({"cert_reqs": "CERT_NONE"} if self.is_insecure else {})

    def _context(self) -> ssl.SSLContext:
        context = make_context()
        if self.is_insecure:
            urllib3.disable_warnings(InsecureRequestWarning)  # the user is warned once, in one line of ours
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
                "certificate-authority holds no valid certificate", where=self.where, hint="fetch it anew"
            ) from None


class _ThroughProxy(urllib3.ProxyManager):
    """A proxy to which each header is sent as often as it was given."""

    def _set_proxy_headers(self, url: str, headers: Mapping[str, str] | None = None) -> Mapping[str, str]:
        sent = HTTPHeaderDict(headers or {})
        sent.setdefault("Accept", "*/*")
        sent.setdefault("Host", urlsplit(url).netloc)
        return sent


class _RotatingPool(urllib3.PoolManager):
    """A pool for each client certificate that a plugin returns: a context in use is never changed."""

    def __init__(
        self, certificate: Callable[[], tuple[str, str] | None], make: Callable[[], urllib3.PoolManager]
    ) -> None:
        super().__init__()
        self._certificate = certificate
        self._make = make
        self._lock = threading.Lock()
        self._pair = certificate()
        self._current = make()

    def urlopen(self, method: str, url: str, *args: Any, **settings: Any) -> urllib3.BaseHTTPResponse:  # noqa: ANN401 -- passed on as they are
        """Send by the pool of the certificate that is valid now."""
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
    """Return what a context, the current one for None, gives access to. Raises NimlabError."""
    entry = read_entry(kubeconfig, context)
    server = server_url(entry)
    is_secure = server.startswith("https://")
    _check_user(entry, is_secure=is_secure)
    is_insecure = bool(entry.cluster.get("insecure-skip-tls-verify"))
    ca = _pem(entry, entry.cluster, "certificate-authority", "CERTIFICATE")
    if ca is not None and is_insecure and is_secure:
        raise entry.wrong(
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
    """Return what the ServiceAccount of this pod gives access to. Raises NimlabError outside of a pod."""
    host, port = (os.environ.get(f"KUBERNETES_SERVICE_{part}", "") for part in ("HOST", "PORT"))
    if not host or not port.isdecimal():
        raise NimlabError(
            "--in-cluster works only in a pod: KUBERNETES_SERVICE_HOST or KUBERNETES_SERVICE_PORT isn't set",
            hint="name a cluster with `--context NAME` or `--kubeconfig FILE`",
        )
    folder = folder or SERVICE_ACCOUNT
    tokens = TokenFile(folder / "token")
    ca = folder / "ca.crt"
    try:
        text = ca.read_bytes().decode("latin-1")
    except OSError as error:
        raise NimlabError(
            f"the ServiceAccount's CA can't be read: {error.strerror}", where=ca, hint=_MOUNT_HINT
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
    """Return the server's URL with its scheme in small letters. Raises NimlabError for anything else."""
    text = entry.cluster.get("server", "")
    if not text:
        raise entry.wrong("the cluster has no server", "add `server: https://HOST:PORT`")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or parts.scheme not in ("http", "https") or re.search(r"[\s\x00-\x1f]", text):
        raise entry.wrong(
            "cluster.server isn't a URL with https://", "write it as `server: https://HOST:PORT`"
        )
    if parts.username is not None or parts.query or parts.fragment:
        keep_secret(parts.password or "")
        raise entry.wrong(
            "cluster.server holds more than a host, a port and a path", "remove the user, `?` or `#`"
        )
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + (f":{port}" if port is not None else "") + parts.path.rstrip("/")


def _check_user(entry: KubeconfigEntry, *, is_secure: bool) -> None:
    user = entry.user
    given = [field for field in _SECRET_FIELDS if user.get(field)]
    if user.get("auth-provider"):
        raise entry.wrong(
            "user.auth-provider isn't supported", "use an exec plugin, a token or a certificate"
        )
    if given and not is_secure:
        raise entry.wrong(
            f"user.{given[0]} isn't sent over http://, where everybody could read it",
            "use https:// in cluster.server",
        )
    if is_secure and not given:
        raise entry.wrong("the user has no credentials", "add a token, a certificate or an exec plugin")
    has_token, has_password = (
        user.get("token") or user.get("tokenFile"),
        user.get("username") or user.get("password"),
    )
    if has_token and has_password:
        raise entry.wrong("the user has a token and a password", "remove one of them")
    if has_password and not user.get("username"):
        raise entry.wrong("user.password is set without user.username", "add the username")
    others = [field for field in given if field != "exec"]
    if "exec" in user and others:
        raise entry.wrong(f"user.exec and user.{others[0]} are both set", "remove one of them")


def _fixed_certificate(entry: KubeconfigEntry) -> tuple[str, str] | None:
    certificate = _pem(entry, entry.user, "client-certificate", "CERTIFICATE")
    key = _pem(entry, entry.user, "client-key", "KEY")
    if (certificate is None) != (key is None):
        missing = "client-key" if key is None else "client-certificate"
        raise entry.wrong(f"user.{missing} is missing", "a client certificate needs its key")
    return None if certificate is None or key is None else (certificate, key)


def _of_plugin(credential: Credential) -> tuple[str, str] | None:
    return (credential.certificate, credential.key) if credential.certificate else None


def _pem(entry: KubeconfigEntry, fields: Any, name: str, kind: str) -> str | None:  # noqa: ANN401 -- checked fields
    """The blocks of PEM in the data or the file, of which only one may be given."""
    data, path = fields.get(f"{name}-data"), fields.get(name)
    if data and path:
        raise entry.wrong(f"{name} and {name}-data are both set", "remove one of them")
    if not data and not path:
        return None
    if kind == "KEY":
        keep_secret(data or "")
    try:
        raw = (
            base64.b64decode(re.sub(r"[\r\n]", "", data), validate=True) if data else Path(path).read_bytes()
        )
    except (binascii.Error, ValueError):
        raise entry.wrong(f"{name}-data isn't base64", "encode the PEM file with `base64 -w0`") from None
    except OSError as error:
        raise entry.wrong(f"{name} {path} can't be read: {error.strerror}", "correct the path") from None
    text = raw.decode("latin-1")
    if kind == "KEY":
        keep_secret(text)
    blocks = [match[0] for match in _PEM.finditer(text) if match[1].endswith(kind)]
    if not blocks:
        raise entry.wrong(f"{name} holds no {kind.lower()} in PEM", "write the PEM file's content in base64")
    return "\n".join(blocks) + "\n"


def _load_certificate(context: ssl.SSLContext, certificate: str, key: str, where: str) -> None:
    """Give the context our certificate. OpenSSL takes it from a file only, which nobody else can read."""
    with tempfile.NamedTemporaryFile("w", prefix="nimlab-", suffix=".pem") as file:
        file.write(certificate + "\n" + key)
        file.flush()
        try:
            context.load_cert_chain(file.name, password=b"")  # an encrypted key is refused, not asked for
        except (OSError, ValueError):
            raise NimlabError(
                "the client certificate and its key can't be used",
                where=where,
                hint="they must be in PEM, belong together, and the key must not be encrypted",
            ) from None
