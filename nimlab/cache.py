"""What was made before and needn't be made again: JSON values by a digest of all that made them.

In: a file in the user's own cache, and a stamp of what every value depends on. Out: values. A file that is
missing, broken, of another stamp, or that somebody else may write holds nothing; one that can't be written
isn't. It lies outside the lab: a merge request must not be able to say what a schema allows or a template
renders.
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

_FILES: Final = 100  # of as many labs; those that nobody has synced for the longest time go


class ValueCache:
    """Values by digest, from one run to the next."""

    def __init__(self, path: Path, stamp: str) -> None:
        """Read the file; `stamp` is a line of text."""
        self._path = path
        self._stamp = stamp
        self._before = _read(path, stamp)
        self._now: dict[str, str] = {}

    def get(self, digest: str) -> Any:  # noqa: ANN401 -- any JSON
        """Return the value, new with each call; None if there is none."""
        text = self._now.get(digest) or self._before.get(digest)
        if text is None:
            return None
        self._now[digest] = text
        return json.loads(text)

    def put(self, digest: str, value: object) -> None:
        """Keep a value."""
        self._now[digest] = json.dumps(value)

    def save(self, *, forget: bool) -> None:
        """Write the file if it has to change; `forget` drops what this run had no use for."""
        kept = self._now if forget else {**self._before, **self._now}
        if kept == self._before:
            return
        body = "".join(f"{digest} {text}\n" for digest, text in kept.items())
        with suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write(self._path, f"{_head(self._stamp, body)}\n{body}")
            for old in sorted(self._path.parent.iterdir(), key=lambda path: -path.stat().st_mtime)[_FILES:]:
                old.unlink()


def code_stamp() -> str:
    """Return a line that is another one when the code that reads, checks and renders is: ours or others'."""
    own = Path(__file__).parent
    digest = hashlib.sha256(sys.version.encode())
    for path in sorted(own.rglob("*.py")):
        digest.update(f"{path.relative_to(own).as_posix()} {path.stat().st_size}\n".encode())
        digest.update(path.read_bytes())
    for name in ("jinja2", "jsonschema", "pyyaml"):
        digest.update(f"{name} {metadata.version(name)}\n".encode())
    return digest.hexdigest()


def _head(stamp: str, body: str) -> str:
    """The first line: a bit that has turned over on the disk must not become a manifest."""
    return f"{stamp} {hashlib.sha256(body.encode('ascii')).hexdigest()}"


def _read(path: Path, stamp: str) -> dict[str, str]:
    try:
        with path.open(encoding="ascii") as file:
            if not _is_ours_alone(os.fstat(file.fileno())):
                return {}
            head, _, body = file.read().partition("\n")
    except (OSError, ValueError):
        return {}
    if head != _head(stamp, body):
        return {}
    entries = (line.partition(" ") for line in body.splitlines())
    return {digest: text for digest, _, text in entries}


def _is_ours_alone(facts: os.stat_result) -> bool:
    """True when nobody else could have written the file."""
    return facts.st_uid == os.geteuid() and not facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _write(path: Path, text: str) -> None:
    """Write it whole or not at all, for its owner alone."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def default_cache() -> Path:
    """Return `$XDG_CACHE_HOME/nimlab`, or `~/.cache/nimlab`."""
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(chosen) if Path(chosen).is_absolute() else Path.home() / ".cache") / "nimlab"
