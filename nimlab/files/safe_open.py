"""Files of a lab as bytes: ordinary ones inside its folder, and no more of them than is wanted.

In: the lab's folder and a path in it. Out: bytes. What a repository can hold beside ordinary files is
refused: a link may lead anywhere, and a pipe never ends (CVE-2022-31036 and CVE-2022-24877 are such links).
What can't be seen in them is named here, too.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path, PurePosixPath
from typing import Final

UNSEEN: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f"
    "\ud800-\udfff\ufeff\ufffe\uffff\U000e0000-\U000e007f]"
)
"""What can't be seen, or makes the text beside it look like another; tabs and ends of lines are none."""

_LFS: Final = "version https://git-lfs.github.com/spec/"
_CONFLICT: Final = re.compile(r"^(<{7}|>{7}|\|{7})(?= |\r?$)", re.MULTILINE)


def read_file(root: Path, path: str, limit_bytes: int) -> bytes:
    """Return the file's bytes, at most one more than the limit. Raises OSError with a text for people."""
    check_folder(root, PurePosixPath(path).parent.as_posix())
    try:
        handle = os.open(root / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a link, and only files are read") from error
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is no ordinary file")
    with os.fdopen(handle, "rb") as file:
        return file.read(limit_bytes + 1)


def foreign_content(text: str) -> tuple[int, str, str] | None:
    """Return line, text and hint if Git left something else in the file than its content; else None."""
    if text.startswith(_LFS):
        return 1, "this is a pointer of Git LFS, not the file itself", "`git lfs pull` fetches the file"
    conflict = _CONFLICT.search(text)
    if conflict is None:
        return None
    line = text.count("\n", 0, conflict.start()) + 1
    hint = "keep one side, remove the markers, then `git add` the file"
    return line, f"a merge conflict is not resolved: `{conflict[1]}`", hint


def is_seen(name: str) -> bool:
    """Return True when all of a file's name can be seen, and it is one line of text."""
    return not UNSEEN.search(name) and not re.search(r"[\t\r\n]", name)


def check_folder(root: Path, path: str) -> None:
    """Raise OSError when the folder, or one above it inside the root, is a link."""
    whole = PurePosixPath(path)
    for part in (*reversed(whole.parents), whole):
        if (root / part).is_symlink() and part != PurePosixPath("."):
            raise OSError(errno.ELOOP, f"`{part}` is a link, and only folders are read")
