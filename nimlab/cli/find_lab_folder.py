"""Find the lab: the nearest folder with a `lab.yaml`."""

from __future__ import annotations

from pathlib import Path

from nimlab.errors import NimlabError


def start_folder(lab: Path | None) -> Path:
    """Return the folder where the search for the lab starts: `lab`, or the working directory if it is None.

    Raises NimlabError if the working directory was deleted, or if symbolic links form a loop.
    """
    try:
        return (lab or Path.cwd()).resolve()
    except FileNotFoundError as error:
        raise NimlabError(
            "the working directory was deleted", where=lab, hint="change to another one with `cd`"
        ) from error
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of symbolic links
        raise NimlabError(f"the folder cannot be found: {error}", where=lab) from error


def find_root(start: Path) -> Path:
    """Return the lab's folder: `start` or the nearest parent with a `lab.yaml`. Raises NimlabError."""
    for folder in (start, *start.parents):
        if (folder / "lab.yaml").is_file():
            return folder
    raise NimlabError(
        "no lab found: neither this folder nor a parent contains a `lab.yaml`",
        where=start,
        hint="change to your lab's folder, or name it with `--lab DIR`",
    )
