"""Constraints for pip that pin each dependency to its lowest supported version.

Usage: `python -m tests.support.lowest_versions pyproject.toml`. This program runs before anything is
installed. It therefore uses only the standard library.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

_REQUIREMENT: Final = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(\[[^]]*\])?>=(?P<version>[^,;\s]+)")


def lowest_versions(project: dict[str, Any]) -> Iterator[str]:
    """Yield one constraint per dependency, including the dependencies of the extras.

    Raises:
        ValueError: a dependency has no lower bound.
    """
    extras: Iterable[list[str]] = project["optional-dependencies"].values()
    for requirement in (*project["dependencies"], *(item for extra in extras for item in extra)):
        if requirement.startswith(f"{project['name']}["):
            continue
        match = _REQUIREMENT.match(requirement)
        if match is None:
            message = f"{requirement} has no lower bound; hint: write {requirement}>=VERSION"
            raise ValueError(message)
        yield f"{match['name']}=={match['version']}"


if __name__ == "__main__":
    document = tomllib.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    print("\n".join(lowest_versions(document["project"])))
