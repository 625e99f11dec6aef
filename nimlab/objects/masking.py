"""What must never be shown: values of Secrets, and of env variables whose names look secret.

In: values, objects, errors. Out: the same with those values hidden. Names are looked at, never values: what a
secret is called is no secret, and what it looks like says nothing. Pure, but for `hide_secrets`, which
rewrites an error on its way, and `keep_secret`, which remembers the credentials of this process.
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

_TELLING: Final = re.compile(
    "TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|KEY|COOKIE|SIGNATURE|AUTHORIZATION|MNEMONIC",
    re.IGNORECASE,
)
_WORDS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_LAST_WORDS: Final = frozenset({
    "PASS", "PWD", "AUTH", "PRIVATE", "DSN", "JWT", "BEARER", "SESSION", "CRED", "CREDS",
})  # fmt: skip
_RUN_TOGETHER: Final = ("PASS", "PWD")  # as in `PGPASS`
_ORDINARY: Final = frozenset({"PWD", "OLDPWD", "BYPASS", "COMPASS", "OVERPASS", "TRESPASS", "UNDERPASS"})
_SHORTEST: Final = 3  # shorter ones are everywhere in a text, and no secret
_SHORTEST_LINE: Final = 8
_SHORTEST_PIECE_OF_WORD: Final = 8  # a credential that is hidden inside a longer word, too
_SHORTEST_PIECE: Final = 4
_EDGES: Final = "… .\"'"  # of a text that was cut
_GO_ESCAPES: Final = {c: "\\" + e for c, e in zip('\a\b\f\n\r\t\v\\"', 'abfnrtv\\"', strict=True)}


def is_secret_name(name: object) -> bool:
    """Return True for an env variable's name that looks as if its value were secret.

    Some words tell wherever they stand: token, secret, password, passwd, passphrase, credential, key, cookie,
    signature, authorization, mnemonic. Others do at the end only, since `GF_AUTH_ANONYMOUS_ENABLED` and
    `PASS_COUNT` hide nothing: pass, pwd, auth, private, dsn, jwt, bearer, session, cred. Certificates are
    public, a shell's `PWD` is its folder.
    """
    text = str(name)
    if _TELLING.search(text):
        return True
    words = [word.upper() for word in _WORDS.findall(text)]
    if not words or words[-1] in (_ORDINARY if len(words) == 1 else _ORDINARY - {"PWD"}):
        return False
    return words[-1] in _LAST_WORDS or words[-1].endswith(_RUN_TOGETHER)


def mask(value: Any) -> Any:  # noqa: ANN401 -- any JSON
    """Return the value with every env value hidden whose name looks secret. Pure."""
    if isinstance(value, Mapping):
        masked = {key: mask(item) for key, item in value.items()}
        if "name" in masked and "value" in masked and is_secret_name(masked["name"]):
            masked["value"] = HIDDEN
        return masked
    return [mask(item) for item in value] if isinstance(value, list) else value


def secrets_in(*objects: Manifest | None) -> frozenset[str]:
    """Return every value in these objects that must not be shown; of a Secret also the decoded ones."""
    found: set[str] = set()
    for one in objects:
        if one is not None:
            found.update(_secret_env(one))
            if one.get("kind") == "Secret":
                found.update(_secret_data(one))
    return frozenset(value for value in found if len(value) >= _SHORTEST)


def redact(text: str, secrets: frozenset[str]) -> str:
    """Return the text without these values, in whatever form a server or a kubelet may have written them.

    That is: as they are, or with other white space; quoted as Go and JSON do; in base64; line by line; and
    what the text's end has cut off of them, or its beginning.
    """
    folded, places = _folded(text)
    forms = frozenset(" ".join(form.split()) for value in secrets for form in _forms(value))
    spans = sorted(span for form in forms if len(form) >= _SHORTEST for span in _spans(folded, form))
    shown, at = "", 0
    for start, end in ((places[start], places[end - 1] + 1) for start, end in spans):
        if start >= at:
            shown += text[at:start] + HIDDEN
        at = max(at, end)
    return shown + text[at:]


_KNOWN: set[str] = set()
_KNOWN_LOCK: Final = threading.Lock()


def keep_secret(text: str) -> None:
    """Remember a credential of this process: `conceal` takes it out of whatever is printed or saved."""
    with _KNOWN_LOCK:
        _KNOWN.update(part for part in (text, text.strip()) if len(part) >= _SHORTEST)


def conceal(text: str) -> str:
    """Return the text without the credentials that were remembered, in whatever form.

    A short one is hidden only as a whole word: a password such as `one` would garble `component`.
    """
    with _KNOWN_LOCK:
        known = frozenset(_KNOWN)
    long = frozenset(value for value in known if len(value) >= _SHORTEST_PIECE_OF_WORD)
    shown = redact(text, long) if long else text
    for value in sorted(known - long, key=len, reverse=True):
        shown = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", HIDDEN, shown)
    return shown


@contextmanager
def hide_secrets(*objects: Manifest | None) -> Iterator[None]:
    """Take the objects' secret values out of any error of ours that passes: a server may echo what it got.

    Out of the whole text, before it is shortened: half a secret is found by nobody.
    """
    try:
        yield
    except NimlabError as error:
        secrets = secrets_in(*objects)
        if isinstance(error, ClusterError):
            error.whole = redact(error.whole, secrets)
            error.what = shorten(error.whole)
        else:
            error.what = redact(error.what, secrets)
        error.args = (error.what,)
        raise


def _forms(value: str) -> frozenset[str]:
    """The forms in which a value may be written; quoted twice where one text stands in another."""
    lines = (line for line in value.splitlines() if len(line.strip()) >= _SHORTEST_LINE)
    data = value.encode(errors="replace")
    coded = (code(data).decode().rstrip("=") for code in (base64.b64encode, base64.urlsafe_b64encode))
    forms = {value, *lines, *coded, repr(data)[2:-1]}
    for _ in range(2):
        forms |= {quoted for form in forms for quoted in _quoted(form)}
    return frozenset(forms)


def _quoted(text: str) -> Iterator[str]:
    """The text as a Go program quotes it (`%q`), and as JSON does, Go's and others'."""
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
    """The text with each run of white space as one blank, and where its characters stood."""
    kept = [
        (i, " " if c.isspace() else c)
        for i, c in enumerate(text)
        if not (c.isspace() and (i == 0 or text[i - 1].isspace()))
    ]
    return "".join(c for _, c in kept), [i for i, _ in kept]


def _spans(text: str, form: str) -> Iterator[tuple[int, int]]:
    """Where a form stands in a text, and where the text's end or beginning cuts it off."""
    start = text.find(form)
    while start >= 0:
        yield start, start + len(form)
        start = text.find(form, start + 1)
    first, end = len(text) - len(text.lstrip(_EDGES)), len(text.rstrip(_EDGES))
    sizes = range(len(form) - 1, _SHORTEST_PIECE - 1, -1)
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
        except (binascii.Error, UnicodeDecodeError):  # binary, or not base64 at all: shown by nobody as text
            continue
