"""What was prepared outside and is used inside: handed over in a file, named by an environment variable."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

HOME: Final = "NIMLAB_RIG"
"""Environment variable that names the rig's folder; there is none outside of its namespaces."""
CONTROL_PLANE: Final = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")


def cgroups() -> list[Path]:
    """Return the roots in which processes are counted: one, or one a controller in the older layout."""
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        return [root]
    return [path for path in sorted(root.iterdir()) if (path / "cgroup.procs").exists()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """Built programs by name, and archives of images."""

    programs: Mapping[str, Path]
    images: tuple[Path, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "programs": {name: str(path) for name, path in self.programs.items()},
            "images": [str(path) for path in self.images],
        }


def home() -> Path | None:
    """Return the rig's folder; None outside of its namespaces."""
    name = os.environ.get(HOME)
    return None if name is None else Path(name)


def read_ready(home: Path) -> Ready:
    """Return what was prepared."""
    said = json.loads((home / "ready.json").read_text(encoding="utf-8"))
    return Ready(
        programs={name: Path(path) for name, path in said["programs"].items()},
        images=tuple(map(Path, said["images"])),
    )
