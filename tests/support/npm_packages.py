"""Programs from npm, for tests in which third-party programs read nimlab's output."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from nimlab.value_cache import default_cache


def install(name: str, *packages: str, needs: tuple[str, ...] = ()) -> Path:
    """Return the folder of these pinned packages in the user's cache; install them if they are missing.

    If npm or another needed program is missing, the test is skipped, or fails in CI.
    """
    missing = [program for program in ("npm", *needs) if shutil.which(program) is None]
    if missing:
        reason = f"missing on this machine: {', '.join(missing)}"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    folder = default_cache() / name
    if not (folder / "installed").exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), *packages]
        subprocess.run(command, check=True, timeout=300, cwd=folder, stdin=subprocess.DEVNULL)
        (folder / "installed").touch()
    return folder
