"""A persistent cache of JSON values, keyed by a digest of their inputs.

In: a file in the user's cache folder, and a stamp, which changes when nimlab or a library changes. Out:
values. A file that is missing, corrupt, written under another stamp or writable by others is ignored. A
failure to write the file is ignored too. The file is outside the lab, so a merge request cannot replace a
validated document or a rendered manifest.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
import tempfile
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, Final

_MAX_FILES: Final = 100  # one file per lab; the least recently written files are removed


class ValueCache:
    """Values that are kept between runs, each under the digest of its inputs."""

    def __init__(self, path: Path, stamp: str) -> None:
        """Read the file; `stamp` is one line of text."""
        self._path = path
        self._stamp = stamp
        self._loaded = _read(path, stamp)
        self._used: dict[str, str] = {}

    def get(self, digest: str) -> Any:  # noqa: ANN401 -- any JSON
        """Return a new copy of the value with this digest; None if there is no such value."""
        text = self._used.get(digest) or self._loaded.get(digest)
        if text is None:
            return None
        self._used[digest] = text
        return json.loads(text)

    def put(self, digest: str, value: object) -> None:
        """Store the value under this digest."""
        self._used[digest] = json.dumps(value)

    def save(self, *, forget: bool) -> None:
        """Write the file if its values have changed. `forget` drops the values that this run did not use."""
        kept = self._used if forget else {**self._loaded, **self._used}
        if kept == self._loaded:
            return
        body = "".join(f"{digest} {text}\n" for digest, text in kept.items())
        with suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write(self._path, f"{_head(self._stamp, body)}\n{body}")
            files = sorted(self._path.parent.iterdir(), key=lambda path: -path.stat().st_mtime)
            for old_file in files[_MAX_FILES:]:
                old_file.unlink()


def code_stamp() -> str:
    """Return a digest of nimlab, Python and the libraries that validate and render."""
    package = Path(__file__).parent
    digest = hashlib.sha256(sys.version.encode())
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package).as_posix()} {path.stat().st_size}\n".encode())
        digest.update(path.read_bytes())
    for name in ("jinja2", "jsonschema", "pyyaml"):
        digest.update(f"{name} {metadata.version(name)}\n".encode())
    return digest.hexdigest()


def _head(stamp: str, body: str) -> str:
    """Return the first line of the file. Its digest detects a corrupt body."""
    return f"{stamp} {hashlib.sha256(body.encode('ascii')).hexdigest()}"


def _read(path: Path, stamp: str) -> dict[str, str]:
    try:
        with path.open(encoding="ascii") as file:
            if not _is_private(os.fstat(file.fileno())):
                return {}
            head, _, body = file.read().partition("\n")
    except (OSError, ValueError):
        return {}
    if head != _head(stamp, body):
        return {}
    entries = (line.partition(" ") for line in body.splitlines())
    return {digest: text for digest, _, text in entries}


def _is_private(status: os.stat_result) -> bool:
    """Return True if no other user can write the file."""
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _write(path: Path, text: str) -> None:
    """Write the file atomically, readable for its owner only."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def default_cache() -> Path:
    """Return `$XDG_CACHE_HOME/nimlab`, or `~/.cache/nimlab`."""
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (configured if configured.is_absolute() else Path.home() / ".cache") / "nimlab"
