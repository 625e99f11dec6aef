"""Safe reading of regular files inside the lab's folder, up to a size limit.

In: the lab's folder and a path relative to it. Out: bytes. Symbolic links and special files are refused: a
link can lead out of the repository (as in CVE-2022-31036 and CVE-2022-24877), and reading a pipe may never
end. This module also detects invisible characters, Git LFS pointers and conflict markers.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path, PurePosixPath
from typing import Final

INVISIBLE: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f"
    "\ud800-\udfff\ufeff\ufffe\uffff\U000e0000-\U000e007f]"
)
"""Matches invisible characters, but not tabs and line ends, which are allowed."""

_LFS: Final = "version https://git-lfs.github.com/spec/"
_CONFLICT: Final = re.compile(r"^(<{7}|>{7}|\|{7})(?= |\r?$)", re.MULTILINE)


def read_file(root: Path, path: str, limit_bytes: int) -> bytes:
    """Return the file's bytes. Raises OSError with a readable text.

    If the file is larger than the limit, the result has one byte more than the limit.
    """
    check_folder(root, PurePosixPath(path).parent.as_posix())
    try:
        handle = os.open(root / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a symbolic link, not a regular file") from error
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is not a regular file")
    with os.fdopen(handle, "rb") as file:
        return file.read(limit_bytes + 1)


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


def check_folder(root: Path, path: str) -> None:
    """Raise OSError if the folder, or one of its parent folders below the root, is a symbolic link."""
    folder = PurePosixPath(path)
    for part in (*reversed(folder.parents), folder):
        if (root / part).is_symlink() and part != PurePosixPath("."):
            raise OSError(errno.ELOOP, f"`{part}` is a symbolic link, not a folder")
