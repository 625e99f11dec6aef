"""Where the lab is: the nearest folder with a `lab.yaml`."""

from __future__ import annotations

from pathlib import Path

from nimlab.errors import NimlabError


def start_folder(lab: Path | None) -> Path:
    """Return the folder from which the lab is looked for: the one named, or the working folder.

    Raises NimlabError when the working folder has been deleted, or a link leads in a circle.
    """
    try:
        return (lab or Path.cwd()).resolve()
    except FileNotFoundError as error:
        raise NimlabError(
            "the working folder has been deleted", where=lab, hint="change to another one with `cd`"
        ) from error
    except (OSError, RuntimeError) as error:  # RuntimeError is how Python reports a circle of links
        raise NimlabError(f"the folder can't be found: {error}", where=lab) from error


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
