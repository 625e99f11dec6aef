"""The five programs of the control plane: their sources, their supported versions, and where to find them.

This module searches KUBEBUILDER_ASSETS, PATH and the cache, in this order. A program from KUBEBUILDER_ASSETS
or PATH is used only if its `--version` output shows a supported version. Each folder in the cache contains a
complete set of programs. Its name contains a digest of the module files and the version of Go.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from nimlab.sandbox.state_values import PART_NAMES, Phase, Step

VERSION: Final = "v1.34.4"

_VERSION_TIMEOUT_S: Final = 20.0
_NUMBER: Final = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The Go source of a program, and the minor versions that are supported if nimlab did not build it."""

    name: str
    module: str  # folder in modules/
    package: str
    supported: tuple[tuple[int, int], ...]


_KUBERNETES: Final = ((1, 34),)

SOURCES: Final = (  # in build order; the program that shares the fewest packages with the others comes last
    Source(
        name="etcd",
        module="kubernetes",
        package="go.etcd.io/etcd/server/v3",
        supported=((3, 5), (3, 6)),
    ),
    *(
        Source(
            name=name,
            module="kubernetes",
            package=f"k8s.io/kubernetes/cmd/{name}",
            supported=_KUBERNETES,
        )
        for name in ("kube-apiserver", "kube-scheduler", "kube-controller-manager")
    ),
    Source(name="kwok", module="kwok", package="sigs.k8s.io/kwok/cmd/kwok", supported=((0, 8),)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """The path of each program, and the version of kube-apiserver."""

    paths: Mapping[str, Path]
    version: str


def find_programs(
    environment: Mapping[str, str], cached: Path | None, report: Callable[[Step], None]
) -> Programs | None:
    """Return the installed programs; programs that are not installed are taken from `cached`.

    Returns None if a program is not installed and `cached` is None; then all programs must be built.
    """
    paths: dict[str, Path] = {}
    server_version = VERSION
    for source in SOURCES:
        path, version = _find_supported(source, environment, report)
        if path is None:
            path, version = (None, VERSION) if cached is None else (cached / source.name, VERSION)
        if path is None:
            return None
        paths[source.name] = path
        server_version = version if source.name == "kube-apiserver" else server_version
    return Programs(paths=paths, version=server_version)


def find_cached(cache: Path, go_version: str | None) -> Path | None:
    """Return the cache folder with the programs that this version of Go built; None if there is none.

    If Go is not installed, return the newest folder that contains all programs.
    """
    sets = cache / "sandbox"
    if go_version is not None:
        folder = sets / name_set(go_version)
        return folder if is_complete(folder) else None
    complete = [path for path in sets.glob(name_set("*")) if is_complete(path)]
    return max(complete, key=lambda path: path.stat().st_mtime, default=None)


def is_complete(folder: Path) -> bool:
    """Return True if the folder contains all five programs."""
    return all((folder / name).is_file() for name in PART_NAMES)


def name_set(go_version: str) -> str:
    """Return the name of the folder for the programs built by this Go version; `*` matches any version."""
    digest = hashlib.sha256()
    for module in sorted({source.module for source in SOURCES}):
        for file in ("go.mod", "go.sum"):
            digest.update(read_module(module).joinpath(file).read_bytes())
    return f"{VERSION}-{digest.hexdigest()[:12]}-{go_version}"


def read_module(module: str) -> Traversable:
    """Return the folder that contains the module's go.mod and go.sum."""
    return resources.files("nimlab.sandbox") / "modules" / module


def _find_supported(
    source: Source, environment: Mapping[str, str], report: Callable[[Step], None]
) -> tuple[Path | None, str]:
    """Return the path and version of the first installed program that has a supported version."""
    for variable in ("KUBEBUILDER_ASSETS", "PATH"):
        folders = environment.get(variable)
        candidate = shutil.which(source.name, path=folders) if folders else None
        if candidate is None:
            continue
        number = _NUMBER.search(_read_version(candidate))
        if number is not None and (int(number[1]), int(number[2])) in source.supported:
            return Path(candidate).absolute(), number[0]
        supported = " or ".join(f"{major}.{minor}" for major, minor in source.supported)
        version = f"version {number[0]}" if number else "an unknown version"
        text = f"{candidate} is not used: it has {version}, but {supported} is required"
        report(Step(phase=Phase.NOTE, text=text))
    return None, VERSION


def _read_version(program: str) -> str:
    try:
        result = subprocess.run(  # noqa: S603 -- a program that the user installed
            [program, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_VERSION_TIMEOUT_S,
            check=True,
            text=True,
            errors="replace",
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return result.stdout
