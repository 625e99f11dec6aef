"""Collect notices about requests, without duplicates: `Warning` headers and reasons for retries.

In: headers and reasons, from several threads. Out: one call per new text, and the list of the warnings.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from nimlab.errors import shorten

_MAX_WARNINGS: Final = 100  # number of distinct warnings to remember, which limits memory use
_WARNING: Final = re.compile(
    r"""\s*(?P<code>[0-9]{3})[ ](?P<agent>[^\s,"]+)[ ]"(?P<text>(?:[^"\\]|\\.)*)"(?:[ ]"[^"]*")?\s*(?:,|$)"""
)
_SHOWN_CODE: Final = "299"  # a persistent warning: the only code that Kubernetes sends and kubectl shows


def warnings_in(headers: Iterable[str]) -> Iterator[str]:
    """Yield the texts of `Warning` headers (RFC 7234, section 5.5); a header can contain several.

    After a malformed warning, the rest of the header is skipped, because it cannot be parsed reliably.
    """
    for header in headers:
        position = 0
        while match := _WARNING.match(header, position):
            position = match.end()
            text = re.sub(r"\\(.)", r"\1", match["text"])
            if match["code"] == _SHOWN_CODE and text.strip():
                yield _as_utf_8(text)


def _as_utf_8(text: str) -> str:
    """Return the text decoded as UTF-8; Python's HTTP library decodes headers as Latin-1."""
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


class Notices:
    """The notices of all threads; each new text is reported once."""

    def __init__(self, notify: Callable[[str, str], None] | None) -> None:
        """Set the function that is called with a label (`warning` or `retry`) and each new text."""
        self._notify = notify
        self._lock = threading.Lock()
        self._warnings: dict[str, None] = {}
        self._retries: set[str] = set()

    @property
    def warnings(self) -> tuple[str, ...]:
        """The server's warnings, in the order of their first occurrence."""
        with self._lock:
            return tuple(self._warnings)

    def add_warnings(self, headers: Iterable[str]) -> None:
        """Add the warnings of one response."""
        for text in warnings_in(headers):
            short = shorten(text)
            with self._lock:
                is_new = short not in self._warnings and len(self._warnings) < _MAX_WARNINGS
                if is_new:
                    self._warnings[short] = None
            if is_new and self._notify is not None:
                self._notify("warning", short)

    def add_retry(self, reason: str, max_wait_s: float) -> None:
        """Report the reason for a retry, with the longest time that the retries can take, once per reason."""
        with self._lock:
            is_new = reason not in self._retries
            self._retries.add(reason)
        if is_new and self._notify is not None:
            self._notify("retry", f"{reason}; retrying for up to {max(1, round(max_wait_s))} s")
