"""The programs of the rig, built with Go from module files that pin every source by its hash.

In: names. Out: paths in the user's cache, each in a folder named after all that it was built from.
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
from nimlab.cache import default_cache
from nimlab.sandbox.programs import VERSION

CACHE: Final = default_cache() / "rig"

_HERE: Final = Path(__file__).parent
_KUBERNETES: Final = Path(sandbox.__file__).parent / "modules" / "kubernetes"
_MAJOR, _MINOR, _ = VERSION.removeprefix("v").split(".")
_COMPONENT: Final = "k8s.io/component-base/version"
_PROMETHEUS: Final = "github.com/prometheus/common/version.Version"
_STILL_S: Final = 20.0
_LAST_CHARACTERS: Final = 2000


class RigError(Exception):
    """The rig can't be had here; says why, and how to mend it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What is built: a package of the module in `folder`, stamped with its version where it has one."""

    folder: Path
    package: str
    stamps: tuple[str, ...] = ()

    def key(self, go: str) -> str:
        """Return a digest of all that it is made from."""
        digest = hashlib.sha256(repr((go, self.package, self.stamps)).encode())
        for path in sorted(self.folder.rglob("*")):
            if path.name in ("go.mod", "go.sum") or path.suffix == ".go":
                digest.update(path.read_bytes())
        return digest.hexdigest()[:16]


def _kubernetes(name: str) -> Program:
    stamps = {"gitVersion": VERSION, "gitMajor": _MAJOR, "gitMinor": _MINOR}
    return Program(
        folder=_KUBERNETES,
        package=f"k8s.io/kubernetes/cmd/{name}",
        stamps=tuple(f"{_COMPONENT}.{field}={value}" for field, value in stamps.items()),
    )


def _module(name: str, package: str, *stamps: str) -> Program:
    return Program(folder=_HERE / "modules" / name, package=package, stamps=stamps)


PROGRAMS: Final[Mapping[str, Program]] = {
    "kubelet": _kubernetes("kubelet"),
    "kube-proxy": _kubernetes("kube-proxy"),
    "coredns": _module("coredns", "github.com/coredns/coredns"),
    "peer": Program(folder=_HERE / "peer", package="."),
    "pause": Program(folder=_HERE / "peer", package="./cmd/pause"),
    "prometheus": _module(
        "prometheus", "github.com/prometheus/prometheus/cmd/prometheus", f"{_PROMETHEUS}=3.13.3"
    ),
    "promtool": _module(
        "prometheus", "github.com/prometheus/prometheus/cmd/promtool", f"{_PROMETHEUS}=3.13.3"
    ),
    "node_exporter": _module("node_exporter", "github.com/prometheus/node_exporter", f"{_PROMETHEUS}=1.12.1"),
}


def provide(names: Sequence[str], say: Callable[[str], None]) -> dict[str, Path]:
    """Return the programs, building what isn't in the cache. Raises RigError."""
    go = _go_version()
    paths = {name: CACHE / f"{name}-{PROGRAMS[name].key(go)}" / name for name in names}
    missing = [name for name in names if not paths[name].exists()]
    for number, name in enumerate(missing, start=1):
        for text in _build(name, paths[name]):
            say(f"building {number} of {len(missing)}: {text}")
    return paths


def _go_version() -> str:
    try:
        answer = subprocess.run(
            ["go", "env", "GOVERSION"], capture_output=True, text=True, check=True, cwd="/"
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise RigError("Go isn't on PATH: install Go 1.26 or newer") from error
    return answer.stdout.strip()


def _build(name: str, path: Path) -> Iterator[str]:
    """Build one program, saying so; it appears whole or not at all."""
    program = PROGRAMS[name]
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{name}.{os.getpid()}")
    flags = " ".join(["-s", "-w", *(f"-X {stamp}" for stamp in program.stamps)])
    log = path.with_name("build.log")
    with log.open("w", encoding="utf-8") as output:
        build = subprocess.Popen(
            ["go", "build", "-trimpath", "-ldflags", flags, "-o", str(fresh), program.package],
            cwd=program.folder,
            env={**os.environ, "CGO_ENABLED": "0"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        yield from _ticks(build, name)
    if build.returncode != 0:
        tail = log.read_text(encoding="utf-8")[-_LAST_CHARACTERS:]
        raise RigError(f"{name} can't be built ({log}):\n{tail}")
    fresh.replace(path)


def _ticks(build: subprocess.Popen[bytes], name: str) -> Iterator[str]:
    """Yield a line at once, and again as long as the build goes on."""
    started_s = time.monotonic()
    yield name
    while True:
        try:
            build.wait(timeout=_STILL_S)
        except subprocess.TimeoutExpired:
            yield f"{name}, {time.monotonic() - started_s:.0f} s"
        else:
            return
