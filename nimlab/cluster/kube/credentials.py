"""Authentication headers of a request, from tokens, passwords, exec plugins and impersonation settings.

Each credential is registered as a secret before its use, so that no error and no report shows it.
"""

from __future__ import annotations

import base64
import re
import string
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from nimlab.cluster.kube.exec_plugin import Plugin
from nimlab.cluster.kube.kubeconfig import Fields, KubeconfigEntry
from nimlab.errors import NimlabError
from nimlab.objects.mask_secrets import remember_credential

_TOKEN: Final = re.compile(r"[!-~]+")  # more characters than in RFC 6750, but no white space
_HEADER: Final = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
_LEGAL_KEY: Final = frozenset((string.ascii_letters + string.digits + "!#$&'*+-.^_`|~").encode())
_REREAD_S: Final = 60.0  # as in client-go; tokens are replaced long before they expire
_NEEDS_AS: Final = ("as-uid", "as-groups", "as-user-extra")

Header = tuple[str, str]


def clean_token(text: str, what: str, where: object) -> str:
    """Return the token without surrounding white space.

    Raises NimlabError if the token is invalid; the error does not contain the token.
    """
    remember_credential(text)
    token = text.strip()
    if not _TOKEN.fullmatch(token):
        reason = "is empty" if not token else "contains characters that are not allowed in a token"
        raise NimlabError(
            f"{what} {reason}", where=where, hint="fetch a new token: a single line of ASCII characters"
        )
    return token


class TokenFile:
    """A file with a token. Several threads can use it.

    The file is read at most once per minute. If a read fails, the previous token is used.
    """

    def __init__(
        self, path: Path, *, fallback: str | None = None, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        """Read the file. Raises NimlabError if no token can be read and there is no fallback."""
        self._path = path
        self._clock_s = clock_s
        self._lock = threading.Lock()
        try:
            self._token = self._read()
        except NimlabError:
            if fallback is None:
                raise
            self._token = fallback
        self._read_at_s = clock_s()

    def token(self) -> str:
        """Return the token."""
        with self._lock:
            if self._clock_s() - self._read_at_s >= _REREAD_S:
                self._read_at_s = self._clock_s()
                try:
                    self._token = self._read()
                except NimlabError:  # another process may be replacing the file
                    return self._token
            return self._token

    def _read(self) -> str:
        try:
            text = self._path.read_bytes().decode("utf-8", errors="replace")
        except OSError as error:
            raise NimlabError(
                f"the token file cannot be read: {(error.strerror or '').lower()}",
                where=self._path,
                hint="correct the path of the file or its permissions",
            ) from None
        return clean_token(text, "the token file", self._path)


def authenticate(entry: KubeconfigEntry, plugin: Plugin | None) -> Callable[[], tuple[Header, ...]]:
    """Return a function that returns the headers of a request. Raises NimlabError for invalid settings."""
    fixed = _impersonation(entry)
    user = entry.user
    token = clean_token(user["token"], "user.token", entry.path) if user.get("token") else None
    if user.get("tokenFile"):
        file = TokenFile(Path(user["tokenFile"]), fallback=token)
        return lambda: (bearer(file.token()), *fixed)
    if token is not None:
        headers = (bearer(token), *fixed)
        return lambda: headers
    if user.get("username"):
        headers = (_basic(user), *fixed)
        return lambda: headers
    if plugin is not None:
        return lambda: (*_of_plugin(plugin, entry), *fixed)
    return lambda: fixed


def _of_plugin(plugin: Plugin, entry: KubeconfigEntry) -> Iterator[Header]:
    token = plugin.credential().token
    if token:
        yield bearer(clean_token(token, "the exec plugin's token", entry.path))


def bearer(token: str) -> Header:
    """Return the Authorization header for a token."""
    return "authorization", f"Bearer {token}"


def _basic(user: Fields) -> Header:
    remember_credential(user.get("password", ""))
    encoded = base64.b64encode(f"{user['username']}:{user.get('password', '')}".encode()).decode()
    remember_credential(encoded)
    return "authorization", f"Basic {encoded}"


def _impersonation(entry: KubeconfigEntry) -> tuple[Header, ...]:
    """Return the impersonation headers. The server uses the permissions of the user in these headers."""
    user = entry.user
    name = user.get("as")
    if not name:
        given = [field for field in _NEEDS_AS if user.get(field)]
        if given:
            raise entry.error(f"user.{given[0]} is set without user.as", "set the user in `as`")
        return ()
    headers = [("Impersonate-User", name)]
    if user.get("as-uid"):
        headers.append(("Impersonate-Uid", user["as-uid"]))
    headers += [("Impersonate-Group", group) for group in user.get("as-groups", ())]
    for key, values in user.get("as-user-extra", {}).items():
        headers += [(f"Impersonate-Extra-{_header_key(key)}", value) for value in values]
    for header, value in headers:
        if not _HEADER.fullmatch(value):
            raise entry.error(f"the value for {header} contains control characters", "remove them")
    return tuple((header, _as_utf_8(value)) for header, value in headers)


def _header_key(key: str) -> str:
    """Return the key escaped for a header name, as client-go escapes it."""
    return "".join(chr(byte) if byte in _LEGAL_KEY else f"%{byte:02X}" for byte in key.encode())


def _as_utf_8(value: str) -> str:
    """Return the string whose encoding in Latin-1 consists of the UTF-8 bytes of the value.

    Python's HTTP library encodes headers as Latin-1.
    """
    return value.encode().decode("latin-1")
