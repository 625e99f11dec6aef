"""Git facts: the current commit, how it relates to the last synced commit, and earlier content of files.

In: the lab's folder. Out: `Commit`, `Relation` or texts; None if Git cannot provide the fact. This module
writes nothing and contacts no remote.
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
from nimlab.files.git_worktree import HiddenFile, compare_folder, content_ids

_SHA: Final = re.compile(r"[0-9a-f]{40,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """The commit that is checked out. `dirty` is True if a file that a sync reads differs from the commit.

    `hidden` lists the files whose changes Git hides; see the module `git_worktree`.
    """

    sha: str
    branch: str | None
    dirty: bool
    hidden: tuple[HiddenFile, ...] = ()


class Relation(Enum):
    """The relation of the checked-out commit to a recorded commit.

    For example, NEWER means that the commit that is checked out descends from the recorded commit.
    """

    SAME = "same"
    NEWER = "newer"
    OLDER = "older"
    DIVERGED = "diverged"
    UNKNOWN = "unknown"


def read_commit(root: Path) -> Commit | None:
    """Return the commit that is checked out; None if Git, the repository or the commit is missing.

    Also returns None for a lab that Git does not track, because the commit does not contain its files.

    Raises NimlabError if Git refuses to read a folder that another user owns.
    """
    head = run_git(root, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    if head is None or head.returncode != 0:
        _check_trusted(root, head)
        return None
    branch = run_git(root, "symbolic-ref", "--quiet", "--short", "HEAD")
    folder = compare_folder(root)
    if not folder.is_tracked:
        return None
    return Commit(
        sha=head.stdout.strip(),
        branch=_printable(branch.stdout.strip()) if branch and branch.returncode == 0 else None,
        dirty=folder.dirty,
        hidden=folder.hidden,
    )


def relation_to(root: Path, head: Commit | None, recorded: str) -> Relation:
    """Return how the commit `head` relates to a recorded commit; UNKNOWN if Git cannot determine it."""
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
    """Return a hint that explains how to check out a commit that descends from the recorded commit."""
    if head is None:
        return "sync from a clone of the lab's repository"
    if not _SHA.fullmatch(recorded):
        return "the record in the cluster is not a commit: find out which program wrote it"
    short = recorded[:7]
    if not _contains_commit(root, recorded) or not _is_related(root, head.sha, recorded):
        if _is_shallow(root):
            return "this clone is shallow: `git fetch --unshallow` (in GitLab CI: `GIT_DEPTH: 0`)"
        if not _contains_commit(root, recorded):
            return (
                f"{short} is not in this clone: `git fetch origin {recorded}`; if the server does not have "
                "the commit, the history was rewritten, or this is a clone of another repository"
            )
    branch = _branch_with(root, recorded)
    if branch is None:
        return f"the history was rewritten: {short} is no longer on any branch, so a fetch does not help"
    return f"{short} is on {branch}: check out that branch, or `git merge {branch}`"


def _contains_commit(root: Path, sha: str) -> bool:
    """Return True if the clone contains the commit."""
    result = run_git(root, "cat-file", "-e", f"{sha}^{{commit}}")
    return result is not None and result.returncode == 0


def _is_related(root: Path, first: str, second: str) -> bool:
    return bool(_is_ancestor(root, first, second) or _is_ancestor(root, second, first))


def _branch_with(root: Path, sha: str) -> str | None:
    """Return a branch or tag that contains the commit, preferably a local branch; None if there is none."""
    names = git_paths(
        root, "for-each-ref", "--count=1", "--contains", sha, "--format=%(refname:short)%00",
        "refs/heads", "refs/tags", "refs/remotes",
    )  # fmt: skip
    return _printable(names[0].strip()) if names else None


def folder_in_repository(root: Path) -> str:
    """Return the lab's path in its repository, such as `labs/one`.

    The path is empty if the lab is the top folder of the repository, or if Git fails.
    """
    prefix = run_git(root, "rev-parse", "--show-prefix")
    return "" if prefix is None or prefix.returncode != 0 else prefix.stdout.removesuffix("\n").rstrip("/")


def former_values(root: Path, path: str, key: str) -> tuple[str, ...]:
    """Return the values that a key had in earlier versions of a YAML file, newest first.

    The values come from lines that commits removed, so they may belong to another key of the same name.
    """
    options = ("--no-show-signature", "--format=", "--patch", "--unified=0", "--no-color", "--no-ext-diff")
    log = run_git(root, "log", *options, "--", path)
    if log is None or log.returncode != 0:
        return ()
    pattern = re.compile(rf"-\s*{re.escape(key)}:\s*[\"']?([^\s#\"']+)")
    return tuple(dict.fromkeys(m[1] for line in log.stdout.splitlines() if (m := pattern.match(line))))


def removed_in(root: Path, path: str) -> str | None:
    """Return the short sha of the commit that removed a file; None if no commit removed it.

    Also returns None for a file that is in the current commit, even if an older commit removed it.
    """
    current = run_git(root, "ls-tree", "--name-only", "HEAD", "--", path)
    if current is None or current.returncode != 0 or current.stdout:
        return None
    options = ("--no-show-signature", "--diff-filter=D", "--format=%h")
    log = run_git(root, "log", "-1", *options, "--", path)
    return (log.stdout.strip() or None) if log and log.returncode == 0 else None


def unrestorable(root: Path, path: str) -> str | None:
    """Return the reason why Git cannot restore the current content of a file; None if Git can restore it."""
    entries = git_paths(root, "ls-tree", "-z", "HEAD", "--", path)
    if entries is None:
        return "Git cannot read a commit in this folder"
    if not entries:
        return "the file is not in the commit"
    sha = entries[0].partition("\t")[0].split(" ")[2]
    return None if content_ids(root, [path]).get(path) == sha else "the file has uncommitted changes"


def _printable(name: str) -> str:
    """Return the name, with U+FFFD instead of bytes that are not UTF-8."""
    return name.encode(errors="surrogateescape").decode(errors="replace")


def _is_ancestor(root: Path, old: str, new: str) -> bool | None:
    """Return True if `new` descends from `old`; None if `new` or `old` is not in this clone."""
    result = run_git(root, "merge-base", "--is-ancestor", old, new)
    return None if result is None or result.returncode not in (0, 1) else result.returncode == 0


def _is_shallow(root: Path) -> bool:
    result = run_git(root, "rev-parse", "--is-shallow-repository")
    return result is None or result.stdout.strip() != "false"


def _check_trusted(root: Path, head: subprocess.CompletedProcess[str] | None) -> None:
    """Raise NimlabError if Git found no commit because another user owns the repository."""
    if head is None:
        return
    result = run_git(root, "rev-parse", "--git-dir")
    if result is not None and "dubious ownership" in result.stderr:
        raise NimlabError(
            "git does not trust this repository, because another user owns it",
            where=root,
            hint=f"if you trust it: `git config --global --add safe.directory {root}`",
        )
