"""Programs of the rig, built with Go from module files that pin every source by its hash.

In: names. Out: paths in the user's cache. The folder of each program is named after a digest of its sources.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nimlab import sandbox
from nimlab.sandbox.find_programs import VERSION
from nimlab.value_cache import default_cache

CACHE: Final = default_cache() / "rig"

_HERE: Final = Path(__file__).parent
_KUBERNETES: Final = Path(sandbox.__file__).parent / "modules" / "kubernetes"
_MAJOR, _MINOR, _ = VERSION.removeprefix("v").split(".")
_KUBERNETES_VERSION: Final = "k8s.io/component-base/version"
_PROMETHEUS_VERSION: Final = "github.com/prometheus/common/version.Version"
_NOTE_EVERY_S: Final = 20.0
_LOG_CHARACTERS: Final = 2000


class RigError(Exception):
    """The rig cannot run here; the message states the reason and how to fix it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A Go package in the module `folder`, and the variables that the linker sets, such as the version."""

    folder: Path
    package: str
    link_variables: tuple[str, ...] = ()

    def key(self, go_version: str) -> str:
        """Return a digest of everything that the program is built from."""
        digest = hashlib.sha256(repr((go_version, self.package, self.link_variables)).encode())
        for path in sorted(self.folder.rglob("*")):
            if path.name in ("go.mod", "go.sum") or path.suffix == ".go":
                digest.update(path.read_bytes())
        return digest.hexdigest()[:16]


def _kubernetes(name: str) -> Program:
    variables = {"gitVersion": VERSION, "gitMajor": _MAJOR, "gitMinor": _MINOR}
    return Program(
        folder=_KUBERNETES,
        package=f"k8s.io/kubernetes/cmd/{name}",
        link_variables=tuple(
            f"{_KUBERNETES_VERSION}.{variable}={value}" for variable, value in variables.items()
        ),
    )


def _module(name: str, package: str, *link_variables: str) -> Program:
    return Program(folder=_HERE / "modules" / name, package=package, link_variables=link_variables)


PROGRAMS: Final[Mapping[str, Program]] = {
    "kubelet": _kubernetes("kubelet"),
    "kube-proxy": _kubernetes("kube-proxy"),
    "coredns": _module("coredns", "github.com/coredns/coredns"),
    "peer": Program(folder=_HERE / "peer", package="."),
    "pause": Program(folder=_HERE / "peer", package="./cmd/pause"),
    "prometheus": _module(
        "prometheus", "github.com/prometheus/prometheus/cmd/prometheus", f"{_PROMETHEUS_VERSION}=3.13.3"
    ),
    "promtool": _module(
        "prometheus", "github.com/prometheus/prometheus/cmd/promtool", f"{_PROMETHEUS_VERSION}=3.13.3"
    ),
    "node_exporter": _module(
        "node_exporter", "github.com/prometheus/node_exporter", f"{_PROMETHEUS_VERSION}=1.12.1"
    ),
}


def provide(names: Sequence[str], note: Callable[[str], None]) -> dict[str, Path]:
    """Return the programs. Build programs that are not in the cache. Raises RigError."""
    go_version = _go_version()
    paths = {name: CACHE / f"{name}-{PROGRAMS[name].key(go_version)}" / name for name in names}
    missing = [name for name in names if not paths[name].exists()]
    for number, name in enumerate(missing, start=1):
        for progress in _build(name, paths[name]):
            note(f"building {number} of {len(missing)}: {progress}")
    return paths


def _go_version() -> str:
    try:
        result = subprocess.run(
            ["go", "env", "GOVERSION"], capture_output=True, text=True, check=True, cwd="/"
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise RigError("Go is not on PATH: install Go 1.26 or newer") from error
    return result.stdout.strip()


def _build(name: str, path: Path) -> Iterator[str]:
    """Build one program and create its file atomically; yield lines of progress. Raises RigError."""
    program = PROGRAMS[name]
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{name}.{os.getpid()}")
    flags = " ".join(["-s", "-w", *(f"-X {variable}" for variable in program.link_variables)])
    log = path.with_name("build.log")
    with log.open("w", encoding="utf-8") as output:
        build = subprocess.Popen(
            ["go", "build", "-trimpath", "-ldflags", flags, "-o", str(fresh), program.package],
            cwd=program.folder,
            env={**os.environ, "CGO_ENABLED": "0"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        yield from _progress(build, name)
    if build.returncode != 0:
        log_end = log.read_text(encoding="utf-8")[-_LOG_CHARACTERS:]
        raise RigError(f"building {name} failed ({log}):\n{log_end}")
    fresh.replace(path)


def _progress(build: subprocess.Popen[bytes], name: str) -> Iterator[str]:
    """Yield a line at once, and further lines at intervals until the build ends."""
    started_s = time.monotonic()
    yield name
    while True:
        try:
            build.wait(timeout=_NOTE_EVERY_S)
        except subprocess.TimeoutExpired:
            yield f"{name}, {time.monotonic() - started_s:.0f} s"
        else:
            return
