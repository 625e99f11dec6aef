"""Which commit is this, and is it newer than the last one synced: Git facts as values.

In: the lab's folder. Out: `Commit`, `Relation`, or None where Git doesn't know. Nothing is written, and no
remote is asked.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from nimlab.errors import NimlabError
from nimlab.files.git_command import git_paths, run_git
from nimlab.files.git_worktree import Hidden, compare_folder, content_ids

_SHA: Final = re.compile(r"[0-9a-f]{40,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """The commit that is checked out. `dirty`: a file that a sync reads differs from it.

    `hidden` are files whose absence or content in the folder proves nothing.
    """

    sha: str
    branch: str | None
    dirty: bool
    hidden: tuple[Hidden, ...] = ()


class Relation(Enum):
    """How the commit that is checked out stands to one recorded earlier."""

    SAME = "same"
    NEWER = "newer"
    OLDER = "older"
    DIVERGED = "diverged"
    UNKNOWN = "unknown"


def read_commit(root: Path) -> Commit | None:
    """Return the commit that is checked out; None where there is no Git, no repository or no commit yet.

    Also None for a lab that Git doesn't track: the commit says nothing about its files.

    Raises NimlabError when Git refuses to look (a folder owned by somebody else).
    """
    found = run_git(root, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    if found is None or found.returncode != 0:
        _check_trusted(root, found)
        return None
    branch = run_git(root, "symbolic-ref", "--quiet", "--short", "HEAD")
    folder = compare_folder(root)
    if not folder.is_tracked:
        return None
    return Commit(
        sha=found.stdout.strip(),
        branch=_printable(branch.stdout.strip()) if branch and branch.returncode == 0 else None,
        dirty=folder.dirty,
        hidden=folder.hidden,
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


def remedy_for(root: Path, head: Commit | None, recorded: str) -> str:
    """Return how to get from here to a commit that may follow a recorded one."""
    if head is None:
        return "sync from a clone of the lab's repository"
    if not _SHA.fullmatch(recorded):
        return "the cluster's record names no commit: see who else writes it"
    short = recorded[:7]
    if not _is_here(root, recorded) or not _is_related(root, head.sha, recorded):
        if _is_shallow(root):
            return "this clone is shallow: `git fetch --unshallow` (in GitLab CI: `GIT_DEPTH: 0`)"
        if not _is_here(root, recorded):
            return (
                f"{short} is not in this clone: `git fetch origin {recorded}`; if the server doesn't have it "
                "either, the history was rewritten, or this is another repository"
            )
    where = _branch_with(root, recorded)
    if where is None:
        return f"the history was rewritten: {short} is on no branch any more, and no fetch helps"
    return f"{short} is on {where}: check that out, or `git merge {where}`"


def _is_here(root: Path, sha: str) -> bool:
    """True when the clone holds the commit; no remote is asked for it."""
    found = run_git(root, "cat-file", "-e", f"{sha}^{{commit}}")
    return found is not None and found.returncode == 0


def _is_related(root: Path, one: str, other: str) -> bool:
    return bool(_is_ancestor(root, one, other) or _is_ancestor(root, other, one))


def _branch_with(root: Path, sha: str) -> str | None:
    """Return a branch or tag that contains the commit; those of a remote come last."""
    found = git_paths(
        root, "for-each-ref", "--count=1", "--contains", sha, "--format=%(refname:short)%00",
        "refs/heads", "refs/tags", "refs/remotes",
    )  # fmt: skip
    return _printable(found[0].strip()) if found else None


def folder_in_repository(root: Path) -> str:
    """Return where the lab lies in its repository, as `labs/one`; empty at its top or without Git."""
    found = run_git(root, "rev-parse", "--show-prefix")
    return "" if found is None or found.returncode != 0 else found.stdout.removesuffix("\n").rstrip("/")


def former_values(root: Path, path: str, key: str) -> tuple[str, ...]:
    """Return the values that a key had in earlier versions of a YAML file, newest first.

    Reads the lines that commits have removed, so a value may be of another key of that name.
    """
    shown = ("--no-show-signature", "--format=", "--patch", "--unified=0", "--no-color", "--no-ext-diff")
    found = run_git(root, "log", *shown, "--", path)
    if found is None or found.returncode != 0:
        return ()
    pattern = re.compile(rf"-\s*{re.escape(key)}:\s*[\"']?([^\s#\"']+)")
    return tuple(dict.fromkeys(m[1] for line in found.stdout.splitlines() if (m := pattern.match(line))))


def removed_in(root: Path, path: str) -> str | None:
    """Return the short sha of the commit that removed a file, None when no commit has.

    A file that the commit still holds is removed in none, though an older one may have removed it once.
    """
    held = run_git(root, "ls-tree", "--name-only", "HEAD", "--", path)
    if held is None or held.returncode != 0 or held.stdout:
        return None
    shown = ("--no-show-signature", "--diff-filter=D", "--format=%h")
    found = run_git(root, "log", "-1", *shown, "--", path)
    return (found.stdout.strip() or None) if found and found.returncode == 0 else None


def unrestorable(root: Path, path: str) -> str | None:
    """Return why Git can't restore a file of the lab as it is now; None if it can."""
    held = git_paths(root, "ls-tree", "-z", "HEAD", "--", path)
    if held is None:
        return "there is no commit here that Git can read"
    if not held:
        return "the file is not in the commit"
    sha = held[0].partition("\t")[0].split(" ")[2]
    return None if content_ids(root, [path]).get(path) == sha else "the file has uncommitted changes"


def _printable(name: str) -> str:
    """The name with U+FFFD for bytes that are not UTF-8."""
    return name.encode(errors="surrogateescape").decode(errors="replace")


def _is_ancestor(root: Path, old: str, new: str) -> bool | None:
    """Return whether `new` descends from `old`; None when one of them isn't in this clone."""
    found = run_git(root, "merge-base", "--is-ancestor", old, new)
    return None if found is None or found.returncode not in (0, 1) else found.returncode == 0


def _is_shallow(root: Path) -> bool:
    found = run_git(root, "rev-parse", "--is-shallow-repository")
    return found is None or found.stdout.strip() != "false"


def _check_trusted(root: Path, found: subprocess.CompletedProcess[str] | None) -> None:
    if found is None:
        return
    told = run_git(root, "rev-parse", "--git-dir")
    if told is not None and "dubious ownership" in told.stderr:
        raise NimlabError(
            "git doesn't trust this repository: somebody else owns it",
            where=root,
            hint=f"if you do: `git config --global --add safe.directory {root}`",
        )
