"""Programs and images that were prepared before the rig's namespaces were entered.

They are passed in a file in the rig's folder. An environment variable contains the path of the folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

HOME: Final = "NIMLAB_RIG"
"""Environment variable with the rig's folder; it is set only inside the rig's namespaces."""
CONTROL_PLANE: Final = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")


def cgroup_roots() -> list[Path]:
    """Return the roots of the cgroup hierarchies: one in version 2, one per controller in version 1."""
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        return [root]
    return [path for path in sorted(root.iterdir()) if (path / "cgroup.procs").exists()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Built programs by name, and image archives."""

    programs: Mapping[str, Path]
    images: tuple[Path, ...]

    def to_json(self) -> dict[str, Any]:
        """Return a value that `json` can write."""
        return {
            "programs": {name: str(path) for name, path in self.programs.items()},
            "images": [str(path) for path in self.images],
        }


def find_home() -> Path | None:
    """Return the rig's folder; None outside its namespaces."""
    name = os.environ.get(HOME)
    return None if name is None else Path(name)


def read_prepared(home: Path) -> Prepared:
    """Return the prepared programs and images."""
    document = json.loads((home / "prepared.json").read_text(encoding="utf-8"))
    return Prepared(
        programs={name: Path(path) for name, path in document["programs"].items()},
        images=tuple(map(Path, document["images"])),
    )
