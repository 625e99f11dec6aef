"""Which five programs, in which versions, and where they are found.

Looked for in KUBEBUILDER_ASSETS, PATH and the cache, in this order. One from the first two is taken
only if it says itself that its version fits. The cache holds complete sets; a set's folder is named
after all that it was built from.
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

from nimlab.sandbox.state import PART_NAMES, Phase, Step

VERSION: Final = "v1.34.4"

_VERSION_TIMEOUT_S: Final = 20.0
_NUMBER: Final = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a program is built from, and which minor versions of it made elsewhere will do."""

    name: str
    module: str  # folder in modules/
    package: str
    fitting: tuple[tuple[int, int], ...]


_KUBERNETES: Final = ((1, 34),)

SOURCES: Final = (  # in the order of building, the one that shares least with the others last
    Source(
        name="etcd",
        module="kubernetes",
        package="go.etcd.io/etcd/server/v3",
        fitting=((3, 5), (3, 6)),
    ),
    *(
        Source(
            name=name,
            module="kubernetes",
            package=f"k8s.io/kubernetes/cmd/{name}",
            fitting=_KUBERNETES,
        )
        for name in ("kube-apiserver", "kube-scheduler", "kube-controller-manager")
    ),
    Source(name="kwok", module="kwok", package="sigs.k8s.io/kwok/cmd/kwok", fitting=((0, 8),)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """Where each part's program is, and the version that the API server says it has."""

    paths: Mapping[str, Path]
    version: str


def find_programs(
    environment: Mapping[str, str], cached: Path | None, report: Callable[[Step], None]
) -> Programs | None:
    """Return the programs, taking from `cached` (a complete set) what isn't elsewhere.

    None if something is found nowhere: then all have to be built.
    """
    found: dict[str, Path] = {}
    version = VERSION
    for source in SOURCES:
        path, said = _find_fitting(source, environment, report)
        if path is None:
            path, said = (None, VERSION) if cached is None else (cached / source.name, VERSION)
        if path is None:
            return None
        found[source.name] = path
        version = said if source.name == "kube-apiserver" else version
    return Programs(paths=found, version=version)


def find_cached(cache: Path, go_version: str | None) -> Path | None:
    """Return the cache's complete set built by this Go; by any if there is no Go now."""
    sets = cache / "sandbox"
    if go_version is not None:
        chosen = sets / name_set(go_version)
        return chosen if is_complete(chosen) else None
    complete = [p for p in sets.glob(name_set("*")) if is_complete(p)]
    return max(complete, key=lambda p: p.stat().st_mtime, default=None)


def is_complete(folder: Path) -> bool:
    """Tell whether the folder has all five programs."""
    return all((folder / name).is_file() for name in PART_NAMES)


def name_set(go_version: str) -> str:
    """Return the name of the folder for what this Go builds from our module files."""
    digest = hashlib.sha256()
    for module in sorted({source.module for source in SOURCES}):
        for file in ("go.mod", "go.sum"):
            digest.update(read_module(module).joinpath(file).read_bytes())
    return f"{VERSION}-{digest.hexdigest()[:12]}-{go_version}"


def read_module(module: str) -> Traversable:
    """Return the folder that has the module's go.mod and go.sum."""
    return resources.files("nimlab.sandbox") / "modules" / module


def _find_fitting(
    source: Source, environment: Mapping[str, str], report: Callable[[Step], None]
) -> tuple[Path | None, str]:
    """Return the first program elsewhere whose version fits, and its version."""
    for variable in ("KUBEBUILDER_ASSETS", "PATH"):
        folders = environment.get(variable)
        candidate = shutil.which(source.name, path=folders) if folders else None
        if candidate is None:
            continue
        said = _ask_version(candidate)
        number = _NUMBER.search(said)
        if number is not None and (int(number[1]), int(number[2])) in source.fitting:
            return Path(candidate).absolute(), number[0]
        wanted = " or ".join(f"{major}.{minor}" for major, minor in source.fitting)
        text = f"{candidate} isn't used: it is {number[0] if number else 'unknown'}, not {wanted}"
        report(Step(phase=Phase.NOTE, text=text))
    return None, VERSION


def _ask_version(program: str) -> str:
    try:
        answer = subprocess.run(  # noqa: S603 -- found where the user put it
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
    return answer.stdout
