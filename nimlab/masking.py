"""What must never be shown: values of Secrets, and of env variables whose names look secret.

In: values, objects, errors. Out: the same with those values hidden. Names are looked at, never values: what a
secret is called is no secret, and what it looks like says nothing. Pure, but for `hide_secrets`, which
rewrites an error on its way.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from nimlab.errors import NimlabError
from nimlab.manifest import Manifest

HIDDEN: Final = "(hidden)"

_SECRET_NAME: Final = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|KEY", re.IGNORECASE)
_SHORTEST: Final = 3  # shorter ones are everywhere in a text, and no secret


def is_secret_name(name: object) -> bool:
    """Return True for an env variable's name that looks as if its value were secret."""
    return bool(_SECRET_NAME.search(str(name)))


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
    """Return the text without these values; the longest first, since one may be part of another."""
    for value in sorted(secrets, key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    return text


@contextmanager
def hide_secrets(*objects: Manifest | None) -> Iterator[None]:
    """Take the objects' secret values out of any error of ours that passes: a server may echo what it got."""
    try:
        yield
    except NimlabError as error:
        secrets = secrets_in(*objects)
        error.what = redact(error.what, secrets)
        error.args = (error.what,)
        raise


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
