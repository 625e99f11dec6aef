"""Writing to paths that users choose: regular files are replaced atomically; other targets are overwritten.

An atomic replacement writes a temporary file and renames it to the path. The rename would also replace a
device, a FIFO, an open descriptor (`/dev/stdout`, `>(cat)`) or a dangling link. nimlab opens such a target
and writes into it instead.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import select
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from nimlab.errors import EditError

_DESCRIPTORS: Final = re.compile(r"/proc/(?P<process>[0-9]+)(/task/[0-9]+)?/fd|/dev/fd")
_LINK_LIMIT: Final = 40  # maximum number of links that Linux follows
_NOT_REPLACEABLE: Final = frozenset({  # the folder does not allow a rename, but the file may be writable
    errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.EXDEV, errno.ENOENT, errno.ENOTSUP,
})  # fmt: skip


def write_text(path: Path, text: str) -> None:
    """Write a file. Raises EditError.

    A regular file is replaced completely or not at all, and keeps its mode. A new file gets the mode that the
    umask allows. A symbolic link is kept, and the data is written to its target.
    """
    data = text.encode(errors="backslashreplace")
    try:
        descriptor = _own_descriptor(path)
        before = None if descriptor is not None else _stat(path)
        if descriptor is not None:
            _write_and_close(os.dup(descriptor), data)
        elif before is None and not path.is_symlink():
            _replace(path, data, None)
        elif before is not None and stat.S_ISREG(before.st_mode) and not _is_descriptor(path):
            _replace_or_overwrite(path.resolve(strict=True), data, before)
        else:
            _overwrite(path, data, is_new=before is None)
    except BrokenPipeError:
        return  # the reader closed the pipe early, as `head` does; this is not an error
    except OSError as error:
        raise EditError(f"cannot write the file: {error.strerror or error}", where=path) from error


def write_fully(descriptor: int, data: bytes) -> None:
    """Write all bytes, and wait while a non-blocking pipe is full. Raises OSError."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            select.select([], [descriptor], [])


def make_folder(path: Path) -> None:
    """Create a folder and its parents if they are missing. Raises EditError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        what = "cannot create the folder: a part of its path is not a folder"
        raise EditError(what, where=path, hint="name a folder") from error
    except OSError as error:
        raise EditError(f"cannot create the folder: {error.strerror or error}", where=path) from error


def remove_file(path: Path) -> None:
    """Remove a file, if it still exists. Raises EditError."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise EditError(f"cannot remove the file: {error.strerror or error}", where=path) from error


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _links(path: Path) -> list[Path]:
    """Return the path and, if it is a symbolic link, each target in the chain; the folders are resolved."""
    places: list[Path] = []
    while len(places) < _LINK_LIMIT:
        place = Path(os.path.realpath(path.parent)) / path.name
        places.append(place)
        if not place.is_symlink():
            break
        path = place.parent / place.readlink()
    return places


def _is_descriptor(path: Path) -> bool:
    """Return True if the path leads to an open descriptor, which a rename cannot replace."""
    return any(_DESCRIPTORS.fullmatch(str(place.parent)) for place in _links(path))


def _own_descriptor(path: Path) -> int | None:
    """Return the open descriptor of this process that the path denotes; None for any other path.

    The caller writes to this descriptor. Opening the path again would create a second file position, and a
    socket cannot be opened by its path.
    """
    for place in _links(path):
        match = _DESCRIPTORS.fullmatch(str(place.parent))
        if match and match["process"] in (None, str(os.getpid())) and place.name.isascii():
            return int(place.name) if place.name.isdigit() else None
    return None


def _write_and_close(descriptor: int, data: bytes) -> None:
    try:
        write_fully(descriptor, data)
    finally:
        os.close(descriptor)


def _overwrite(path: Path, data: bytes, *, is_new: bool) -> None:
    flags = os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC | (os.O_CREAT if is_new else 0)
    _write_and_close(os.open(path, flags, 0o666), data)


def _replace_or_overwrite(path: Path, data: bytes, before: os.stat_result) -> None:
    """Replace a regular file, or write into it if its folder does not allow a replacement."""
    try:
        _replace(path, data, before)
    except OSError as error:
        if error.errno not in _NOT_REPLACEABLE:
            raise
        _write_and_close(os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC), data)


def _replace(path: Path, data: bytes, before: os.stat_result | None) -> None:
    """Write a temporary file in the same folder, then rename it. The file keeps its owner and its mode."""
    temporary = path.parent / f".{path.name[:200]}-{secrets.token_hex(4)}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if before is not None:
                with suppress(OSError):  # only root may change the owner
                    os.fchown(descriptor, before.st_uid, before.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
            file.write(data)
            file.flush()
            os.fsync(descriptor)  # otherwise the file may be empty after a crash
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
