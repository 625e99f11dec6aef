"""Comparison of the lab's folder with Git's index: uncommitted changes, and files that Git hides.

In: the lab's folder. Out: whether a file that a sync reads differs from the commit, and every file of which
the folder is no proof: one that is in the commit, not in the folder, and that `git status` does not report.
Such a file was not deleted by a person. Nothing is written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nimlab.files.git_command import git_paths, run_git

INPUTS: Final = ("lab.yaml", "experiments", "contracts", "templates", "schema")
_READ: Final = (".yaml", ".j2", ".json")
_GITLINK: Final = "160000"
_STATUS: Final = (
    "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", "--ignored",
    "--ignore-submodules=none", "--",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Hidden:
    """A file of the commit that Git hides. `path` is relative to the lab."""

    path: str
    what: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Worktree:
    """How the folder differs from the commit. `dirty`: in a file that a sync reads.

    `is_tracked` is False for a folder that the commit says nothing about, such as an export beside the lab.
    """

    dirty: bool
    hidden: tuple[Hidden, ...]
    is_tracked: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """A line of the index. `tag` is S or s for skip-worktree, a lower-case letter for assume-unchanged."""

    path: str
    tag: str
    mode: str
    sha: str


def compare_folder(root: Path) -> Worktree:
    """Return how the lab's folder differs from the commit and the index."""
    reported = _reported(root, INPUTS)
    entries = _entries(root, INPUTS)
    if reported is None or entries is None:
        what = "git can't compare this folder with the commit"
        return Worktree(
            dirty=True, hidden=(Hidden(path="lab.yaml", what=what, hint="see what `git status` says"),)
        )
    hidden = tuple(_hidden(root, entries, reported))
    tracked = {path for entry in entries for path in _tracked(root, entry)}
    dirty = bool(hidden) or any(not _is_noise(code, path) for path, code in reported.items())
    held = "lab.yaml" in tracked or git_paths(root, "ls-tree", "-z", "HEAD", "--", "lab.yaml") != []
    dirty = dirty or any(path not in tracked for path in _present(root))
    return Worktree(dirty=dirty, hidden=hidden, is_tracked=held)


def _is_noise(code: str, path: str) -> bool:
    """True for an ignored file that no sync reads."""
    return code == "!!" and not path.endswith(_READ)


def _reported(root: Path, paths: Sequence[str]) -> dict[str, str] | None:
    """The two letters that `git status` prints for each path, relative to the folder; None if it fails."""
    prefix = run_git(root, "rev-parse", "--show-prefix")
    lines = git_paths(root, *_STATUS, *paths)
    if lines is None or prefix is None or prefix.returncode != 0:
        return None
    above = prefix.stdout.removesuffix("\n")
    return {line[3:].removeprefix(above): line[:2] for line in lines}


def _entries(root: Path, paths: Sequence[str]) -> list[_Entry] | None:
    lines = git_paths(root, "ls-files", "--stage", "-v", "-z", "--", *paths)
    if lines is None:
        return None
    found = []
    for line in lines:
        facts, _, path = line.partition("\t")
        tag, mode, sha, _ = facts.split(" ")
        found.append(_Entry(path=path, tag=tag, mode=mode, sha=sha))
    return found


def _hidden(root: Path, entries: Sequence[_Entry], reported: dict[str, str]) -> Iterator[Hidden]:
    read = {e.path: e for e in entries if e.path.endswith(_READ) or e.mode == _GITLINK}.values()
    missing = {e.path: e for e in read if not os.path.lexists(root / e.path)}
    for entry in missing.values():
        code = reported.get(entry.path, "")
        if "U" in code or code in {"AA", "DD"}:
            what = "the file is missing, and the merge that concerns it is not finished"
            yield Hidden(path=entry.path, what=what, hint="finish the merge: see `git status`")
        elif "D" not in code:
            yield _missing(entry)
    there = [e for e in read if e.path not in missing]
    for entry in _changed(root, [e for e in there if e.tag not in "HM" and e.mode != _GITLINK]):
        what = f"the file differs from the commit, and Git hides it ({_flag(entry)})"
        yield Hidden(path=entry.path, what=what, hint=f"{_unflag(entry)}, then commit or restore the file")
    for entry in there:
        if entry.mode == _GITLINK:
            yield from _submodule(root, entry)


def _missing(entry: _Entry) -> Hidden:
    what = f"the file is in the commit and not in this folder, and Git hides it ({_flag(entry)})"
    fix = "`git sparse-checkout disable`, or " if entry.tag in "Ss" else ""
    return Hidden(
        path=entry.path, what=what, hint=f"{fix}{_unflag(entry)}, then `git checkout -- {entry.path}`"
    )


def _flag(entry: _Entry) -> str:
    if entry.tag in "Ss":
        return "skip-worktree, as set by a sparse checkout"
    return "assume-unchanged" if entry.tag.islower() else "`git status` does not report it"


def _unflag(entry: _Entry) -> str:
    flags = [
        *(["--no-skip-worktree"] if entry.tag in "Ss" else []),
        *(["--no-assume-unchanged"] if entry.tag.islower() else []),
    ]
    commands = " and ".join(f"`git update-index {flag} {entry.path}`" for flag in flags)
    return commands or "run `git status` and `git update-index --really-refresh`"


def _changed(root: Path, flagged: Sequence[_Entry]) -> list[_Entry]:
    """Those whose content differs from the index. Git's own comparison skips them."""
    hashed = content_ids(root, [entry.path for entry in flagged]) if flagged else {}
    return [entry for entry in flagged if hashed.get(entry.path) != entry.sha]


def content_ids(root: Path, paths: Sequence[str]) -> dict[str, str]:
    """Return the id that Git would give each file's content; a file that it can't read is left out."""
    usable = [path for path in paths if "\n" not in path and (root / path).is_file()]
    above, up = run_git(root, "rev-parse", "--show-prefix"), run_git(root, "rev-parse", "--show-cdup")
    if above is None or up is None or above.returncode != 0 or "\n" in above.stdout.removesuffix("\n"):
        return {}
    prefix = above.stdout.removesuffix("\n")
    listed = "".join(f"{prefix}{path}\n" for path in usable)
    found = run_git(root / up.stdout.strip(), "hash-object", "--stdin-paths", stdin=listed)
    if found is None or found.returncode != 0:
        return {}
    return dict(zip(usable, found.stdout.split(), strict=True))


def _submodule(root: Path, entry: _Entry) -> Iterator[Hidden]:
    """Files that a submodule hides; the submodule itself when it is not checked out."""
    folder = root / entry.path
    if not os.path.lexists(folder / ".git"):
        what = "the submodule is in the commit and not checked out"
        yield Hidden(path=entry.path, what=what, hint="`git submodule update --init`")
        return
    reported, entries = _reported(folder, (".",)), _entries(folder, (".",))
    if reported is None or entries is None:
        what = "git can't compare this submodule with its commit"
        yield Hidden(path=entry.path, what=what, hint="see what `git status` says there")
        return
    for one in _hidden(folder, entries, reported):
        yield Hidden(path=f"{entry.path}/{one.path}", what=one.what, hint=f"in {entry.path}: {one.hint}")


def _tracked(root: Path, entry: _Entry) -> Iterator[str]:
    """The entry's path, and those of a submodule's files."""
    yield entry.path
    if entry.mode == _GITLINK:
        yield from (f"{entry.path}/{one.path}" for one in _entries(root / entry.path, (".",)) or ())


def _present(root: Path) -> Iterator[str]:
    """Files of the folders of one level that a sync reads: `core.ignoreCase` hides some from git's status."""
    for folder in ("experiments", "contracts"):
        try:
            names = sorted(path.name for path in (root / folder).iterdir())
        except OSError:
            continue
        yield from (f"{folder}/{name}" for name in names if name.endswith(_READ))
