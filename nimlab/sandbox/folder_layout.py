"""The files and folders of one sandbox: their paths, their permissions, and their exclusion from Git.

Only the standard library is imported, because every start of the CLI imports this module.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

OWN_FOLDER: Final = ".nimlab"
"""Name of the folder that nimlab creates in a lab."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The paths in the sandbox's folder."""

    home: Path

    @property
    def record(self) -> Path:
        """The saved ports and processes."""
        return self.home / "state.json"

    @property
    def kubeconfig(self) -> Path:
        """The user's kubeconfig, with administrator rights."""
        return self.home / "kubeconfig"

    @property
    def pki(self) -> Path:
        """Keys, certificates and the kubeconfigs of the control plane's parts."""
        return self.home / "pki"

    @property
    def data(self) -> Path:
        """The data folder of etcd."""
        return self.home / "etcd"

    @property
    def logs(self) -> Path:
        """The folder with one log file for each part of the control plane."""
        return self.home / "logs"

    @property
    def stages(self) -> Path:
        """The configuration of kwok: how simulated nodes and pods change their status."""
        return self.home / "stages.yaml"

    @property
    def scheduler(self) -> Path:
        """The configuration of the scheduler."""
        return self.home / "scheduler.yaml"

    @property
    def own_names(self) -> frozenset[str]:
        """Every name that nimlab creates in the folder, even temporarily; all other names are foreign."""
        files = {p.name for p in (self.record, self.kubeconfig, self.stages, self.scheduler)}
        files.add(".gitignore")
        folders = {p.name for p in (self.pki, self.data, self.logs)}
        return frozenset(name + suffix for name in files | folders for suffix in ("", ".new"))

    def log(self, part: str) -> Path:
        """Return the path of the part's log file."""
        return self.logs / f"{part}.log"


def make_layout(home: Path) -> Layout:
    """Return the layout with an absolute path, because the parts' command lines contain it."""
    return Layout(home=home.parent.resolve() / home.name)


def write_private(path: Path, content: bytes) -> None:
    """Write a file atomically, readable by its owner only."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    fresh.replace(path)


def exclude_from_git(layout: Layout) -> None:
    """Write a `.gitignore` that excludes `.nimlab` from Git, unless the folder has one with the pattern `*`.

    If the sandbox's folder is not in `.nimlab`, the file is written into the sandbox's folder itself, because
    the parent folder belongs to the user.
    """
    parent = layout.home.parent
    folder = parent if parent.name == OWN_FOLDER else layout.home
    if folder.is_symlink() or not folder.is_dir():
        return
    ignore = folder / ".gitignore"
    if ignore.is_symlink() or not ignore.is_file() or b"*" not in ignore.read_bytes().split():
        write_private(ignore, b"*\n")
    if folder == parent:
        folder.chmod(0o700)


def restrict_permissions(layout: Layout) -> None:
    """Make the sandbox's folders, keys and kubeconfigs accessible to their owner only."""
    for folder in (layout.home, layout.pki, layout.logs, layout.data):
        if folder.is_dir() and not folder.is_symlink():
            folder.chmod(0o700)
    for path in (layout.kubeconfig, layout.record, *sorted(layout.pki.glob("*"))):
        if path.is_file() and not path.is_symlink():
            path.chmod(0o600)
