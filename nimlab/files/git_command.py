"""Runs of the program `git` in the lab's folder, each bounded in time and unaffected by the environment.

In: a folder and arguments. Out: what git printed. The program `git` is called, since its answers are the ones
that people get.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_TIMEOUT_S: Final = 30
# What `git rev-parse --local-env-vars` lists, and what changes the meaning of a path: a hook sets them for
# another repository.
_DROPPED: Final = frozenset({
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_COMMON_DIR", "GIT_DIR", "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_INTERNAL_SUPER_PREFIX", "GIT_NAMESPACE",
    "GIT_NO_REPLACE_OBJECTS", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX", "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE", "GIT_WORK_TREE", "GIT_GLOB_PATHSPECS", "GIT_ICASE_PATHSPECS",
    "GIT_NOGLOB_PATHSPECS",
})  # fmt: skip


def run_git(root: Path, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str] | None:
    """Run git in a folder and return what it printed; None if it is missing or takes too long.

    Bytes that are not UTF-8, as in names of files and branches, are kept as surrogates. A path is never read
    as a pattern. No file system monitor is asked: its answer is not a proof.
    """
    environment = {
        **{name: value for name, value in os.environ.items() if name not in _DROPPED},
        "LC_ALL": "C",
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
    }
    given = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    try:
        return subprocess.run(  # noqa: S603 -- a list; free arguments are checked or after `--`
            ["git", "-C", str(root), "-c", "core.fsmonitor=false", *arguments],  # noqa: S607 -- the user's own git
            capture_output=True,
            check=False,
            env=environment,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=_TIMEOUT_S,
            **given,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def git_paths(root: Path, *arguments: str) -> Sequence[str] | None:
    """Run a git command that ends every entry with NUL and return the entries; None if it fails."""
    found = run_git(root, *arguments)
    return None if found is None or found.returncode != 0 else found.stdout.split("\0")[:-1]
