"""Which commit is this, and is it newer than the last one synced: Git facts as values.

In: the lab's folder. Out: `Commit`, `Relation`, or None where Git doesn't know. Nothing is written, and no
remote is asked. The program `git` is called, since its answers are the ones that people get.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from nimlab.errors import NimlabError

_TIMEOUT_S: Final = 30
_SHA: Final = re.compile(r"[0-9a-f]{40,64}")
_INPUTS: Final = ("lab.yaml", "experiments", "contracts", "templates", "schema")
_READ: Final = (".yaml", ".j2", ".json")
_ELSEWHERE: Final = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY")


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """The commit that is checked out. `dirty`: a file that a sync reads differs from it."""

    sha: str
    branch: str | None
    dirty: bool


class Relation(Enum):
    """How the commit that is checked out stands to one recorded earlier."""

    SAME = "same"
    NEWER = "newer"
    OLDER = "older"
    DIVERGED = "diverged"
    UNKNOWN = "unknown"


def read_commit(root: Path) -> Commit | None:
    """Return the commit that is checked out; None where there is no Git, no repository or no commit yet.

    Raises NimlabError when Git refuses to look (a folder owned by somebody else).
    """
    found = _git(root, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    if found is None or found.returncode != 0:
        _check_trusted(root, found)
        return None
    branch = _git(root, "symbolic-ref", "--quiet", "--short", "HEAD")
    return Commit(
        sha=found.stdout.strip(),
        branch=branch.stdout.strip() if branch and branch.returncode == 0 else None,
        dirty=_is_dirty(root),
    )


def relation_to(root: Path, head: Commit | None, recorded: str) -> Relation:
    """Return how the checked-out commit stands to a recorded one; UNKNOWN where that can't be told."""
    if head is None or not _SHA.fullmatch(recorded):
        return Relation.UNKNOWN
    if head.sha == recorded:
        return Relation.SAME
    newer = _is_ancestor(root, recorded, head.sha)
    if newer:
        return Relation.NEWER
    older = _is_ancestor(root, head.sha, recorded)
    if older:
        return Relation.OLDER
    return Relation.UNKNOWN if newer is None or older is None or _is_shallow(root) else Relation.DIVERGED


def folder_in_repository(root: Path) -> str:
    """Return where the lab lies in its repository, as `labs/one`; empty at its top or without Git."""
    found = _git(root, "rev-parse", "--show-prefix")
    return "" if found is None or found.returncode != 0 else found.stdout.strip().rstrip("/")


def former_values(root: Path, path: str, key: str) -> tuple[str, ...]:
    """Return the values that a key had in earlier versions of a YAML file, newest first.

    Reads the lines that commits have removed, so a value may be of another key of that name.
    """
    shown = ("--no-show-signature", "--format=", "--patch", "--unified=0", "--no-color", "--no-ext-diff")
    found = _git(root, "log", *shown, "--", path)
    if found is None or found.returncode != 0:
        return ()
    pattern = re.compile(rf"-\s*{re.escape(key)}:\s*[\"']?([^\s#\"']+)")
    return tuple(dict.fromkeys(m[1] for line in found.stdout.splitlines() if (m := pattern.match(line))))


def removed_in(root: Path, path: str) -> str | None:
    """Return the short sha of the commit that removed a file, None when no commit has.

    A file that the commit still holds is removed in none, though an older one may have removed it once.
    """
    held = _git(root, "ls-tree", "--name-only", "HEAD", "--", path)
    if held is None or held.returncode != 0 or held.stdout:
        return None
    shown = ("--no-show-signature", "--diff-filter=D", "--format=%h")
    found = _git(root, "log", "-1", *shown, "--", path)
    return (found.stdout.strip() or None) if found and found.returncode == 0 else None


def _is_dirty(root: Path) -> bool:
    """Return whether a sync reads what isn't in the commit, be it ignored; True where Git can't say."""
    found = _git(root, "status", "--porcelain", "--untracked-files=all", "--ignored", "--", *_INPUTS)
    if found is None or found.returncode != 0:
        return True
    lines = (line.rstrip('"') for line in found.stdout.splitlines())
    return any(not line.startswith("!!") or line.endswith(_READ) for line in lines)


def _is_ancestor(root: Path, old: str, new: str) -> bool | None:
    """Return whether `new` descends from `old`; None when one of them isn't in this clone."""
    found = _git(root, "merge-base", "--is-ancestor", old, new)
    return None if found is None or found.returncode not in (0, 1) else found.returncode == 0


def _is_shallow(root: Path) -> bool:
    found = _git(root, "rev-parse", "--is-shallow-repository")
    return found is None or found.stdout.strip() != "false"


def _check_trusted(root: Path, found: subprocess.CompletedProcess[str] | None) -> None:
    if found is None:
        return
    told = _git(root, "rev-parse", "--git-dir")
    if told is not None and "dubious ownership" in told.stderr:
        raise NimlabError(
            "git doesn't trust this repository: somebody else owns it",
            where=root,
            hint=f"if you do: `git config --global --add safe.directory {root}`",
        )


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[str] | None:
    """Run git and return what it said; None when it isn't there or takes too long.

    A hook's variables, which name the repository that it runs for, don't say where the lab is.
    """
    environment = {
        **{name: value for name, value in os.environ.items() if name not in _ELSEWHERE},
        "LC_ALL": "C",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
    }
    try:
        return subprocess.run(  # noqa: S603 -- a list of arguments, the only free one a checked sha or a path after `--`
            ["git", "-C", str(root), *arguments],  # noqa: S607 -- the user's own git, wherever it is
            capture_output=True,
            check=False,
            env=environment,
            stdin=subprocess.DEVNULL,
            encoding="utf-8",
            errors="replace",  # names of branches and files are bytes
            timeout=_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
