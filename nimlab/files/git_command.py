"""Calls of the program `git` in the lab's folder, with a timeout and a clean environment.

In: a folder and arguments. Out: the output of git. nimlab runs the program instead of using a library, so
that it gets the same results as the user.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_TIMEOUT_S: Final = 30
# nimlab removes the variables that `git rev-parse --local-env-vars` lists, and the variables that change how
# Git interprets a path. If a Git hook starts nimlab, these variables can describe another repository.
_DROPPED: Final = frozenset({
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_COMMON_DIR", "GIT_DIR", "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_INTERNAL_SUPER_PREFIX", "GIT_NAMESPACE",
    "GIT_NO_REPLACE_OBJECTS", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX", "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE", "GIT_WORK_TREE", "GIT_GLOB_PATHSPECS", "GIT_ICASE_PATHSPECS",
    "GIT_NOGLOB_PATHSPECS",
})  # fmt: skip


def run_git(root: Path, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str] | None:
    """Run git in a folder and return its result; None if git is missing or exceeds the timeout.

    Bytes that are not UTF-8, for example in a file name, become surrogates. Paths are never interpreted as
    patterns. The file system monitor is disabled, because it can miss changes.
    """
    environment = {
        **{name: value for name, value in os.environ.items() if name not in _DROPPED},
        "LC_ALL": "C",
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
    }
    standard_input = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    try:
        return subprocess.run(  # noqa: S603 -- no shell; arguments of users are checked, or follow `--`
            ["git", "-C", str(root), "-c", "core.fsmonitor=false", *arguments],  # noqa: S607 -- the user's own git
            capture_output=True,
            check=False,
            env=environment,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=_TIMEOUT_S,
            **standard_input,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def git_paths(root: Path, *arguments: str) -> Sequence[str] | None:
    """Run a git command that prints entries terminated by NUL, and return the entries; None on failure."""
    result = run_git(root, *arguments)
    return None if result is None or result.returncode != 0 else result.stdout.split("\0")[:-1]
