"""Kubeconfigs that hold all it takes: an address, a CA, and a certificate or a token.

In: a kubeconfig file and a context. Out: an `Access`, or None for whatever else one can hold (plugins,
proxies, several files, a mistake), which is the library's to read and to complain of: importing it takes
as long as all reading of a small cluster. What a field means is what client-go's `tools/clientcmd` says.
"""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import urllib3
import yaml

from nimlab.kube.tls import make_context

_Entry: TypeAlias = Mapping[str, Any]

_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CLUSTER: Final = frozenset({
    "server", "certificate-authority", "certificate-authority-data", "tls-server-name",
})  # fmt: skip
_USER: Final = frozenset({
    "client-certificate", "client-certificate-data", "client-key", "client-key-data", "token",
})  # fmt: skip
_CONTEXT: Final = frozenset({"cluster", "user", "namespace"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Where the API server is, and what opens it; texts are PEM. `ca` is empty for plain HTTP."""

    server: str
    ca: str
    server_name: str | None
    certificate: str | None
    key: str | None
    token: str | None

    def headers(self) -> Mapping[str, str]:
        """Return what authenticates a request; nothing where the certificate does."""
        return {"authorization": f"Bearer {self.token}"} if self.token else {}

    def pool(self, connections: int) -> urllib3.PoolManager:
        """Return a pool that trusts this CA and no other. Raises OSError for what is no certificate."""
        if not self.ca:
            return urllib3.PoolManager(maxsize=connections)
        context = make_context()
        context.load_verify_locations(cadata=self.ca)
        if self.certificate is not None:
            _load_certificate(context, self.certificate, self.key or "")
        return urllib3.PoolManager(maxsize=connections, ssl_context=context, server_hostname=self.server_name)


def read_access(kubeconfig: Path | None, context: str | None) -> Access | None:
    """Return what a context of the file, its current one for None, gives access with; None if it takes more.

    Without a file it is kubectl's. Files that it names are looked for beside it.
    """
    kubeconfig = kubeconfig or _only_default()
    if kubeconfig is None or urllib.request.getproxies():
        return None
    try:
        document = yaml.load(kubeconfig.read_bytes(), Loader=_Loader)  # noqa: S506 -- a safe one
        name = document["current-context"] if context is None else context
        chosen = _named(document["contexts"], name)["context"]
        cluster = _named(document["clusters"], chosen["cluster"])["cluster"]
        user = _named(document["users"], chosen["user"])["user"]
        known = chosen.keys() <= _CONTEXT and cluster.keys() <= _CLUSTER and user.keys() <= _USER
        return _access(cluster, user, kubeconfig.parent) if known else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError):
        return None


def _only_default() -> Path | None:
    """The user's kubeconfig; None where there are several, which are merged."""
    named = os.environ.get("KUBECONFIG", "~/.kube/config")
    return None if os.pathsep in named or not named else Path(named).expanduser()


def _access(cluster: _Entry, user: _Entry, folder: Path) -> Access | None:
    server, token = cluster["server"], user.get("token")
    ca = _pem(cluster, "certificate-authority", folder)
    certificate, key = (_pem(user, name, folder) for name in ("client-certificate", "client-key"))
    is_secure = server.startswith("https://")
    if not (is_secure or server.startswith("http://")) or (ca is not None) != is_secure:
        return None
    if (certificate is None) != (key is None) or not isinstance(token, str | None):
        return None
    return Access(
        server=server.rstrip("/"),
        ca=ca or "",
        server_name=cluster.get("tls-server-name") or None,
        certificate=certificate,
        key=key,
        token=token or None,
    )


def _named(entries: Iterable[_Entry], name: str) -> _Entry:
    """The only one of this name. Raises ValueError for none or several."""
    (found,) = (entry for entry in entries if entry["name"] == name)
    return found


def _pem(entry: _Entry, name: str, folder: Path) -> str | None:
    """What is in the file, or in the data, which comes first. Raises ValueError for what is no base64."""
    data, path = entry.get(f"{name}-data"), entry.get(name)
    if data:
        return base64.b64decode(data, validate=True).decode("ascii")
    return (folder / path).read_text(encoding="ascii") if path else None


def _load_certificate(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Give the context our certificate: OpenSSL takes it from a file only, which nobody else can read."""
    with tempfile.NamedTemporaryFile("w", prefix="nimlab-", suffix=".pem") as file:
        file.write(certificate + "\n" + key)
        file.flush()
        context.load_cert_chain(file.name, password=b"")  # an encrypted key is refused, not asked for
