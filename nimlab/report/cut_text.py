"""Text that is too long -> a shorter text with `…` at the place of the cut.

In: one line of text. Out: one line of text. `errors.truncate` cuts the end. Pure.
"""

from __future__ import annotations


def cut_start(text: str, start: int) -> str:
    """Return the text from the position `start`; `…` replaces the text before it."""
    return f"…{text[start:]}" if start else text


def cut_middle(text: str, width: int) -> str:
    """Return at most `width` characters; `…` replaces the middle of a longer text."""
    if len(text) <= width:
        return text
    head = width // 2
    return f"{text[:head]}…{text[head + 1 - width :]}"
