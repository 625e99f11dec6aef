"""Text -> a file that the user named: a regular file is replaced whole, any other target is written directly.

A rename replaces whatever stands at a path. So only regular files are written that way. A device, a FIFO, an
open descriptor (`/dev/stdout`, `>(cat)`) and a dangling link are opened and written instead.
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
_MOST_LINKS: Final = 40  # as many as Linux follows
_NOT_REPLACEABLE: Final = frozenset({  # the folder refuses a rename; the file itself may still be writable
    errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.EXDEV, errno.ENOENT, errno.ENOTSUP,
})  # fmt: skip


def write_text(path: Path, text: str) -> None:
    """Write a file; a regular one whole or not at all, with its mode kept. Raises EditError.

    A new file gets the mode that the umask allows. A link stays a link.
    """
    data = text.encode(errors="backslashreplace")
    try:
        descriptor = _own_descriptor(path)
        facts = None if descriptor is not None else _facts(path)
        if descriptor is not None:
            _write_and_close(os.dup(descriptor), data)
        elif facts is None and not path.is_symlink():
            _replace(path, data, None)
        elif facts is not None and stat.S_ISREG(facts.st_mode) and not _is_descriptor(path):
            _replace_or_overwrite(path.resolve(strict=True), data, facts)
        else:
            _overwrite(path, data, is_new=facts is None)
    except BrokenPipeError:
        return  # whoever read the other end has what it wanted
    except OSError as error:
        raise EditError(f"the file can't be written: {error.strerror or error}", where=path) from error


def write_fully(descriptor: int, data: bytes) -> None:
    """Write all bytes, waiting while a non-blocking pipe is full. Raises OSError."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            select.select([], [descriptor], [])


def make_folder(path: Path) -> None:
    """Make a folder and its parents where they are missing. Raises EditError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise EditError(
            "a file stands where the folder should be", where=path, hint="name a folder"
        ) from error
    except OSError as error:
        raise EditError(f"the folder can't be made: {error.strerror or error}", where=path) from error


def remove_file(path: Path) -> None:
    """Remove a file; one that has gone meanwhile is removed. Raises EditError."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise EditError(f"the file can't be removed: {error.strerror or error}", where=path) from error


def _facts(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _links(path: Path) -> list[Path]:
    """The path and every link that it leads through, each in its real folder."""
    found: list[Path] = []
    while len(found) < _MOST_LINKS:
        place = Path(os.path.realpath(path.parent)) / path.name
        found.append(place)
        if not place.is_symlink():
            break
        path = place.parent / place.readlink()
    return found


def _is_descriptor(path: Path) -> bool:
    """True for an open descriptor of any process: its file's name is not where the process writes."""
    return any(_DESCRIPTORS.fullmatch(str(place.parent)) for place in _links(path))


def _own_descriptor(path: Path) -> int | None:
    """Return the descriptor of this process that the path stands for, None for any other path.

    A descriptor is written itself: opened anew it would have a position of its own, and a socket can't be
    opened at all.
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


def _replace_or_overwrite(path: Path, data: bytes, facts: os.stat_result) -> None:
    """Replace a regular file, or write into it where its folder doesn't allow a replacement."""
    try:
        _replace(path, data, facts)
    except OSError as error:
        if error.errno not in _NOT_REPLACEABLE:
            raise
        _write_and_close(os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC), data)


def _replace(path: Path, data: bytes, before: os.stat_result | None) -> None:
    """Write beside the file, then rename; owner and mode are those of the file before."""
    temporary = path.parent / f".{path.name[:200]}-{secrets.token_hex(4)}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if before is not None:
                with suppress(OSError):  # only root may give a file away
                    os.fchown(descriptor, before.st_uid, before.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
            file.write(data)
            file.flush()
            os.fsync(descriptor)  # else a crash may leave the new name on an empty file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
