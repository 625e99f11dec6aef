"""Where the lab is: the nearest folder with a `lab.yaml`."""

from __future__ import annotations

from pathlib import Path

from nimlab.errors import NimlabError


def find_root(start: Path) -> Path:
    """Return the lab's folder: the nearest one, from `start` upwards, that has a `lab.yaml`."""
    for folder in (start, *start.parents):
        if (folder / "lab.yaml").is_file():
            return folder
    raise NimlabError(
        "there is no lab here: no `lab.yaml` in this folder or above",
        where=start,
        hint="go to your lab's folder, or name it with `--lab DIR`",
    )
