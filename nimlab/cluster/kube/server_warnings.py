"""What a server or a connection has to say beside the answers: warnings and retries, each text once.

In: headers and reasons, from several threads. Out: one call for each new text, and the list of the server's
warnings.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from nimlab.errors import shorten

_MOST: Final = 100  # of different warnings; more help nobody, and a list in memory has to end
_WARNING: Final = re.compile(
    r"""\s*(?P<code>[0-9]{3})[ ](?P<agent>[^\s,"]+)[ ]"(?P<text>(?:[^"\\]|\\.)*)"(?:[ ]"[^"]*")?\s*(?:,|$)"""
)
_SHOWN_CODE: Final = "299"  # a persistent warning; Kubernetes sends no other, and kubectl shows no other


def warnings_in(headers: Iterable[str]) -> Iterator[str]:
    """Yield the texts of `Warning` headers (RFC 7234, section 5.5), one or several in each header.

    What isn't one ends its header: the rest can't be read for sure.
    """
    for header in headers:
        place = 0
        while match := _WARNING.match(header, place):
            place = match.end()
            text = re.sub(r"\\(.)", r"\1", match["text"])
            if match["code"] == _SHOWN_CODE and text.strip():
                yield _as_utf_8(text)


def _as_utf_8(text: str) -> str:
    """The text as the server wrote it: Python's HTTP library takes the bytes of a header for Latin-1."""
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


class Notices:
    """Collects texts from several threads and passes each new one on."""

    def __init__(self, tell: Callable[[str, str], None] | None) -> None:
        """Pass on to `tell` what it is (`warning`, `retry`) and the text."""
        self._tell = tell
        self._lock = threading.Lock()
        self._warnings: dict[str, None] = {}
        self._retries: set[str] = set()

    @property
    def warnings(self) -> tuple[str, ...]:
        """The server's warnings, in the order in which they first came."""
        with self._lock:
            return tuple(self._warnings)

    def add_warnings(self, headers: Iterable[str]) -> None:
        """Take the warnings of one answer."""
        for text in warnings_in(headers):
            short = shorten(text)
            with self._lock:
                is_new = short not in self._warnings and len(self._warnings) < _MOST
                if is_new:
                    self._warnings[short] = None
            if is_new and self._tell is not None:
                self._tell("warning", short)

    def add_retry(self, reason: str, at_most_s: float) -> None:
        """Take that a request is sent again, and for how long at most; a reason is passed on once."""
        with self._lock:
            is_new = reason not in self._retries
            self._retries.add(reason)
        if is_new and self._tell is not None:
            self._tell("retry", f"{reason}; trying again for {max(1, round(at_most_s))} s at most")
