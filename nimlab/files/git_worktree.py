"""Compare the lab's folder with the commit: find uncommitted changes, and files whose changes Git hides.

In: the lab's folder. Out: a `Worktree` with the differences and the hidden files. A hidden file is missing in
the folder or differs from the commit, but `git status` does not report this (sparse checkout,
assume-unchanged). If a hidden file is missing, Git does not show whether a user deleted it. Therefore nimlab
must not prune the objects that it describes. This module writes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nimlab.files.git_command import git_paths, run_git

INPUTS: Final = ("lab.yaml", "experiments", "contracts", "templates", "schema")
"""Files and folders of a lab that a sync reads."""
_INPUT_SUFFIXES: Final = (".yaml", ".j2", ".json")
_SUBMODULE_MODE: Final = "160000"
_STATUS: Final = (
    "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", "--ignored",
    "--ignore-submodules=none", "--",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class HiddenFile:
    """A file whose changes Git hides.

    `path` is relative to the lab's folder. `what` and `hint` are the texts of the problem that nimlab
    reports.
    """

    path: str
    what: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Worktree:
    """Difference between the folder and the commit. `dirty` is True if a file that a sync reads differs.

    `hidden` lists the files whose changes Git hides. `is_tracked` is False for a folder that is not in the
    commit, such as an untracked copy of the lab.
    """

    dirty: bool
    hidden: tuple[HiddenFile, ...]
    is_tracked: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """Entry of Git's index.

    `tag` is the letter that `git ls-files -v` prints: `S` or `s` for a file that is marked skip-worktree, and
    a lower-case letter for a file that is marked assume-unchanged.
    """

    path: str
    tag: str
    mode: str
    sha: str


def compare_folder(root: Path) -> Worktree:
    """Return how the lab's folder differs from the commit and the index."""
    status = _status(root, INPUTS)
    entries = _entries(root, INPUTS)
    if status is None or entries is None:
        what = "git cannot compare this folder with the commit"
        return Worktree(
            dirty=True, hidden=(HiddenFile(path="lab.yaml", what=what, hint="`git status` shows the reason"),)
        )
    hidden = tuple(_hidden(root, entries, status))
    tracked = {path for entry in entries for path in _tracked_paths(root, entry)}
    dirty = bool(hidden) or any(not _is_noise(code, path) for path, code in status.items())
    is_tracked = "lab.yaml" in tracked or git_paths(root, "ls-tree", "-z", "HEAD", "--", "lab.yaml") != []
    dirty = dirty or any(path not in tracked for path in _listed_files(root))
    return Worktree(dirty=dirty, hidden=hidden, is_tracked=is_tracked)


def _is_noise(code: str, path: str) -> bool:
    """Return True for a file that Git ignores and that no sync reads."""
    return code == "!!" and not path.endswith(_INPUT_SUFFIXES)


def _status(root: Path, paths: Sequence[str]) -> dict[str, str] | None:
    """Return the two-letter code of `git status` for each changed file, by path; None if git fails."""
    prefix = run_git(root, "rev-parse", "--show-prefix")
    lines = git_paths(root, *_STATUS, *paths)
    if lines is None or prefix is None or prefix.returncode != 0:
        return None
    folder = prefix.stdout.removesuffix("\n")
    return {line[3:].removeprefix(folder): line[:2] for line in lines}


def _entries(root: Path, paths: Sequence[str]) -> list[_Entry] | None:
    lines = git_paths(root, "ls-files", "--stage", "-v", "-z", "--", *paths)
    if lines is None:
        return None
    entries = []
    for line in lines:
        attributes, _, path = line.partition("\t")
        tag, mode, sha, _ = attributes.split(" ")
        entries.append(_Entry(path=path, tag=tag, mode=mode, sha=sha))
    return entries


def _hidden(root: Path, entries: Sequence[_Entry], status: dict[str, str]) -> Iterator[HiddenFile]:
    inputs = {
        e.path: e for e in entries if e.path.endswith(_INPUT_SUFFIXES) or e.mode == _SUBMODULE_MODE
    }.values()
    missing = {e.path: e for e in inputs if not os.path.lexists(root / e.path)}
    for entry in missing.values():
        code = status.get(entry.path, "")
        if "U" in code or code in {"AA", "DD"}:
            what = "the file is missing, and the merge that affects it is not finished"
            yield HiddenFile(path=entry.path, what=what, hint="finish the merge: see `git status`")
        elif "D" not in code:
            yield _missing(entry)
    existing = [e for e in inputs if e.path not in missing]
    for entry in _changed(root, [e for e in existing if e.tag not in "HM" and e.mode != _SUBMODULE_MODE]):
        what = f"the file differs from the commit, and Git hides this ({_reason(entry)})"
        yield HiddenFile(
            path=entry.path, what=what, hint=f"{_remedy(entry)}, then commit or restore the file"
        )
    for entry in existing:
        if entry.mode == _SUBMODULE_MODE:
            yield from _hidden_in_submodule(root, entry)


def _missing(entry: _Entry) -> HiddenFile:
    what = f"the file is in the commit but not in this folder, and Git hides this ({_reason(entry)})"
    first = "`git sparse-checkout disable`, or " if entry.tag in "Ss" else ""
    return HiddenFile(
        path=entry.path, what=what, hint=f"{first}{_remedy(entry)}, then `git checkout -- {entry.path}`"
    )


def _reason(entry: _Entry) -> str:
    if entry.tag in "Ss":
        return "skip-worktree, which a sparse checkout sets"
    return "assume-unchanged" if entry.tag.islower() else "`git status` does not report it"


def _remedy(entry: _Entry) -> str:
    flags = [
        *(["--no-skip-worktree"] if entry.tag in "Ss" else []),
        *(["--no-assume-unchanged"] if entry.tag.islower() else []),
    ]
    commands = " and ".join(f"`git update-index {flag} {entry.path}`" for flag in flags)
    return commands or "run `git status` and `git update-index --really-refresh`"


def _changed(root: Path, flagged: Sequence[_Entry]) -> list[_Entry]:
    """Return the entries whose file differs from the index.

    `flagged` are entries that are marked skip-worktree or assume-unchanged. Git itself does not compare their
    files.
    """
    ids = content_ids(root, [entry.path for entry in flagged]) if flagged else {}
    return [entry for entry in flagged if ids.get(entry.path) != entry.sha]


def content_ids(root: Path, paths: Sequence[str]) -> dict[str, str]:
    """Return a map from each path to the object ID of the file's content. Omit files that Git cannot read."""
    usable = [path for path in paths if "\n" not in path and (root / path).is_file()]
    prefix, top = run_git(root, "rev-parse", "--show-prefix"), run_git(root, "rev-parse", "--show-cdup")
    if prefix is None or top is None or prefix.returncode != 0 or "\n" in prefix.stdout.removesuffix("\n"):
        return {}
    folder = prefix.stdout.removesuffix("\n")
    listed = "".join(f"{folder}{path}\n" for path in usable)
    result = run_git(root / top.stdout.strip(), "hash-object", "--stdin-paths", stdin=listed)
    if result is None or result.returncode != 0:
        return {}
    return dict(zip(usable, result.stdout.split(), strict=True))


def _hidden_in_submodule(root: Path, entry: _Entry) -> Iterator[HiddenFile]:
    """Yield the hidden files of a submodule, or the submodule itself if Git cannot compare it."""
    folder = root / entry.path
    if not os.path.lexists(folder / ".git"):
        what = "the submodule is in the commit but not checked out"
        yield HiddenFile(path=entry.path, what=what, hint="`git submodule update --init`")
        return
    status, entries = _status(folder, (".",)), _entries(folder, (".",))
    if status is None or entries is None:
        what = "git cannot compare this submodule with its commit"
        yield HiddenFile(path=entry.path, what=what, hint="`git status` in its folder shows the reason")
        return
    for hidden in _hidden(folder, entries, status):
        yield HiddenFile(
            path=f"{entry.path}/{hidden.path}", what=hidden.what, hint=f"in {entry.path}: {hidden.hint}"
        )


def _tracked_paths(root: Path, entry: _Entry) -> Iterator[str]:
    """Yield the path of the entry; if the entry is a submodule, also yield the paths of its files."""
    yield entry.path
    if entry.mode == _SUBMODULE_MODE:
        yield from (f"{entry.path}/{inner.path}" for inner in _entries(root / entry.path, (".",)) or ())


def _listed_files(root: Path) -> Iterator[str]:
    """Yield the paths of the input files that are directly in `experiments` or `contracts`.

    The files are listed without Git, because `git status` omits some files if `core.ignoreCase` is set.
    """
    for folder in ("experiments", "contracts"):
        try:
            names = sorted(path.name for path in (root / folder).iterdir())
        except OSError:
            continue
        yield from (f"{folder}/{name}" for name in names if name.endswith(_INPUT_SUFFIXES))
