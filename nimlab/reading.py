"""Files of a lab as bytes: ordinary ones inside its folder, and no more of them than is wanted.

In: the lab's folder and a path in it. Out: bytes. What a repository can hold beside ordinary files is
refused: a link may lead anywhere, and a pipe never ends (CVE-2022-31036 and CVE-2022-24877 are such links).
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path, PurePosixPath


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


def check_folder(root: Path, path: str) -> None:
    """Raise OSError when the folder, or one above it inside the root, is a link."""
    whole = PurePosixPath(path)
    for part in (*reversed(whole.parents), whole):
        if (root / part).is_symlink() and part != PurePosixPath("."):
            raise OSError(errno.ELOOP, f"`{part}` is a link, and only folders are read")
