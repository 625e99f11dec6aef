"""Programs from npm, for tests that hold our output against somebody else's reader."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from nimlab.value_cache import default_cache


def install(name: str, *packages: str, needs: tuple[str, ...] = ()) -> Path:
    """Return the folder in the user's cache with these pinned packages in it, installing what isn't there.

    Where npm or another program is missing the test is skipped, but fails in CI: Node is no need of a user.
    """
    missing = [program for program in ("npm", *needs) if shutil.which(program) is None]
    if missing:
        why = f"{' and '.join(missing)} missing on this machine"
        pytest.fail(why) if os.environ.get("CI") else pytest.skip(why)
    folder = default_cache() / name
    if not (folder / "installed").exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), *packages]
        subprocess.run(command, check=True, timeout=300, cwd=folder, stdin=subprocess.DEVNULL)
        (folder / "installed").touch()
    return folder
