"""Paths of the repository and of the tests' own lab.

The tests' lab uses the contracts, schema and templates of the repository, but its own `lab.yaml` and
experiments, which are kept in `lab_files/`. The tests therefore pass with any experiments in the repository.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).parents[2]
LAB_FILES: Final = Path(__file__).with_name("lab_files")
SHARED_FOLDERS: Final = ("contracts", "schema", "templates")


def copy_sample_lab(folder: Path) -> Path:
    """Write the tests' lab into a new folder, and return the folder."""
    shutil.copytree(LAB_FILES, folder)
    for name in SHARED_FOLDERS:
        shutil.copytree(REPOSITORY / name, folder / name)
    return folder


def _make_sample_lab() -> Path:
    """Write the lab that this process reads, and remove it when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="nimlab-tests-"))
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # forked processes run this function too
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return copy_sample_lab(folder / "lab")


SAMPLE_LAB: Final = _make_sample_lab()
"""The tests' lab. No test may change it; a test that writes uses the fixture `lab_folder`."""
