"""Hide secrets in output: values in Secrets, secret values of env variables, and credentials.

In: values, objects, errors. Out: the same values, objects and errors, but secret values are hidden. The name
of an env variable determines whether its value is secret. Names are never hidden. Pure, with two
exceptions: `hide_secrets` modifies the errors that pass through it, and `remember_credential` stores the
credentials of this process.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from nimlab.errors import ClusterError, NimlabError, shorten
from nimlab.objects.manifest import Manifest

HIDDEN: Final = "(hidden)"

_SECRET_ANYWHERE: Final = re.compile(
    "TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|KEY|COOKIE|SIGNATURE|AUTHORIZATION|MNEMONIC",
    re.IGNORECASE,
)
_WORDS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SECRET_AT_END: Final = frozenset({
    "PASS", "PWD", "AUTH", "PRIVATE", "DSN", "JWT", "BEARER", "SESSION", "CRED", "CREDS",
})  # fmt: skip
_SECRET_ENDINGS: Final = ("PASS", "PWD")  # longer words may end with these, such as `PGPASS`
_NOT_SECRET: Final = frozenset({"PWD", "OLDPWD", "BYPASS", "COMPASS", "OVERPASS", "TRESPASS", "UNDERPASS"})
_MIN_LENGTH: Final = 3  # shorter values occur in most texts by chance
_MIN_LINE: Final = 8
_MIN_LENGTH_INSIDE_WORD: Final = 8  # credentials of at least this length are hidden inside words too
_MIN_FRAGMENT: Final = 4
_CUT_MARKS: Final = "… .\"'"  # characters that may surround a truncated text
_GO_ESCAPES: Final = {c: "\\" + e for c, e in zip('\a\b\f\n\r\t\v\\"', 'abfnrtv\\"', strict=True)}


def is_secret_name(name: object) -> bool:
    """Return True if the name of an env variable suggests a secret value.

    These words suggest a secret at any position in a name: token, secret, password, passwd, passphrase,
    credential, key, cookie, signature, authorization, mnemonic. These words suggest a secret value only at
    the end of a name: pass, pwd, auth, private, dsn, jwt, bearer, session, cred, creds. For example,
    `GF_AUTH_ANONYMOUS_ENABLED` and `PASS_COUNT` are not secret. Names of certificates are not secret, because
    certificates are public. `PWD` is not secret, because it contains the working directory of a shell.
    """
    text = str(name)
    if _SECRET_ANYWHERE.search(text):
        return True
    words = [word.upper() for word in _WORDS.findall(text)]
    if not words or words[-1] in (_NOT_SECRET if len(words) == 1 else _NOT_SECRET - {"PWD"}):
        return False
    return words[-1] in _SECRET_AT_END or words[-1].endswith(_SECRET_ENDINGS)


def mask(value: Any) -> Any:  # noqa: ANN401 -- any JSON
    """Return a copy of the value that hides the values of env variables with secret-looking names."""
    if isinstance(value, Mapping):
        masked = {key: mask(item) for key, item in value.items()}
        if "name" in masked and "value" in masked and is_secret_name(masked["name"]):
            masked["value"] = HIDDEN
        return masked
    return [mask(item) for item in value] if isinstance(value, list) else value


def secrets_in(*objects: Manifest | None) -> frozenset[str]:
    """Return all secret values in these objects; values of a Secret are returned both encoded and decoded."""
    secrets: set[str] = set()
    for manifest in objects:
        if manifest is not None:
            secrets.update(_secret_env(manifest))
            if manifest.get("kind") == "Secret":
                secrets.update(_secret_data(manifest))
    return frozenset(value for value in secrets if len(value) >= _MIN_LENGTH)


def redact(text: str, secrets: frozenset[str]) -> str:
    """Return the text with these values hidden, in any form in which a server or a kubelet may write them.

    The text may contain a value unchanged, with other white space, quoted as in Go or JSON, or encoded in
    base64. It may contain only one line of a value, or only a part of a value if the text was truncated.
    """
    folded, indexes = _folded(text)
    forms = frozenset(" ".join(form.split()) for value in secrets for form in _forms(value))
    spans = sorted(span for form in forms if len(form) >= _MIN_LENGTH for span in _spans(folded, form))
    redacted, position = "", 0
    for start, end in ((indexes[start], indexes[end - 1] + 1) for start, end in spans):
        if start >= position:
            redacted += text[position:start] + HIDDEN
        position = max(position, end)
    return redacted + text[position:]


# Credentials of this process, which `redact_credentials` hides.
_CREDENTIALS: set[str] = set()
_CREDENTIALS_LOCK: Final = threading.Lock()


def remember_credential(text: str) -> None:
    """Store a credential of this process, so that `redact_credentials` hides it in all output."""
    with _CREDENTIALS_LOCK:
        _CREDENTIALS.update(part for part in (text, text.strip()) if len(part) >= _MIN_LENGTH)


def redact_credentials(text: str) -> str:
    """Return the text with the credentials of this process hidden, in any form that `redact` detects.

    A short credential is hidden only as a whole word. Otherwise the password `one` would change the word
    `component`.
    """
    with _CREDENTIALS_LOCK:
        credentials = frozenset(_CREDENTIALS)
    long = frozenset(value for value in credentials if len(value) >= _MIN_LENGTH_INSIDE_WORD)
    redacted = redact(text, long) if long else text
    for value in sorted(credentials - long, key=len, reverse=True):
        redacted = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", HIDDEN, redacted)
    return redacted


@contextmanager
def hide_secrets(*objects: Manifest | None) -> Iterator[None]:
    """Redact the objects' secret values in every NimlabError that is raised inside the `with` block.

    A server may repeat a part of the request in its error message. Messages are redacted before they are
    truncated, because a truncated secret might not be recognized.
    """
    try:
        yield
    except NimlabError as error:
        secrets = secrets_in(*objects)
        if isinstance(error, ClusterError):
            error.full_message = redact(error.full_message, secrets)
            error.what = shorten(error.full_message)
        else:
            error.what = redact(error.what, secrets)
        error.args = (error.what,)
        raise


def _forms(value: str) -> frozenset[str]:
    """Return the forms in which a text may contain a value.

    The forms are the value, each long line of the value, its base64 encodings, and its escaped bytes. Each
    form is returned unquoted, quoted once and quoted twice.
    """
    lines = (line for line in value.splitlines() if len(line.strip()) >= _MIN_LINE)
    data = value.encode(errors="replace")
    coded = (code(data).decode().rstrip("=") for code in (base64.b64encode, base64.urlsafe_b64encode))
    forms = {value, *lines, *coded, repr(data)[2:-1]}
    for _ in range(2):
        forms |= {quoted for form in forms for quoted in _quoted(form)}
    return frozenset(forms)


def _quoted(text: str) -> Iterator[str]:
    """Yield the text as it is quoted by Go (`%q`), by Go's JSON encoder, and by other JSON encoders."""
    yield "".join(c if c.isprintable() and c not in '\\"' else _go_escape(c) for c in text)
    plain = json.dumps(text, ensure_ascii=False)[1:-1]
    yield plain
    yield "".join(f"\\u{ord(c):04x}" if c in "<>&" else c for c in plain)
    yield json.dumps(text)[1:-1]


def _go_escape(char: str) -> str:
    code = ord(char)
    plain = f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return _GO_ESCAPES.get(char, plain)


def _folded(text: str) -> tuple[str, list[int]]:
    """Replace each run of white space by one space, and return each character's index in the old text."""
    kept = [
        (i, " " if c.isspace() else c)
        for i, c in enumerate(text)
        if not (c.isspace() and (i == 0 or text[i - 1].isspace()))
    ]
    return "".join(c for _, c in kept), [i for i, _ in kept]


def _spans(text: str, form: str) -> Iterator[tuple[int, int]]:
    """Yield the start and end of each place where the text shows a secret.

    `form` is the secret as it may be written. A truncated text may contain only a part of it: the beginning
    of the secret at the end of the text, or the end of the secret at the beginning of the text.
    """
    start = text.find(form)
    while start >= 0:
        yield start, start + len(form)
        start = text.find(form, start + 1)
    first, end = len(text) - len(text.lstrip(_CUT_MARKS)), len(text.rstrip(_CUT_MARKS))
    sizes = range(len(form) - 1, _MIN_FRAGMENT - 1, -1)
    yield from ((end - n, end) for n in sizes if text.endswith(form[:n], first, end))
    yield from ((first, first + n) for n in sizes if text.startswith(form[-n:], first, end))


def _secret_env(value: Any) -> Iterator[str]:  # noqa: ANN401 -- any JSON
    if isinstance(value, Mapping):
        if is_secret_name(value.get("name", "")) and isinstance(value.get("value"), str | int | float):
            yield str(value["value"])
        for item in value.values():
            yield from _secret_env(item)
    elif isinstance(value, list):
        for item in value:
            yield from _secret_env(item)


def _secret_data(secret: Manifest) -> Iterator[str]:
    for text in (secret.get("stringData") or {}).values():
        yield str(text)
    for text in (secret.get("data") or {}).values():
        yield str(text)
        try:
            yield base64.b64decode(str(text), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):  # the value is not text, so a message cannot contain it
            continue
