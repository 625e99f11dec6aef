"""Text that no file of the lab may contain: invisible characters, merge conflict markers, Git LFS pointers.

In: the text or the name of a file. Out: where such text occurs, if it does. Pure.
"""

from __future__ import annotations

import re
from typing import Final

INVISIBLE: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f"
    "\ud800-\udfff\ufeff\ufffe\uffff\U000e0000-\U000e007f]"
)
"""Matches invisible characters, but not tabs and line ends, which are allowed."""


_LFS: Final = "version https://git-lfs.github.com/spec/"


_CONFLICT: Final = re.compile(r"^(<{7}|>{7}|\|{7})(?= |\r?$)", re.MULTILINE)


def foreign_content(text: str) -> tuple[int, str, str] | None:
    """Return a problem's line, message and hint if the text is an LFS pointer or has a conflict marker.

    Return None for any other text.
    """
    if text.startswith(_LFS):
        return 1, "this is a Git LFS pointer, not the file itself", "`git lfs pull` fetches the file"
    conflict = _CONFLICT.search(text)
    if conflict is None:
        return None
    line = text.count("\n", 0, conflict.start()) + 1
    hint = "keep one side, remove the markers, then `git add` the file"
    return line, f"a merge conflict is not resolved: `{conflict[1]}`", hint


def is_visible(name: str) -> bool:
    """Return True if every character of a file name is visible, and the name is a single line."""
    return not INVISIBLE.search(name) and not re.search(r"[\t\r\n]", name)
