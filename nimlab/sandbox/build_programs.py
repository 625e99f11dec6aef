"""Build the control plane's programs with Go, from module files that pin every source by its hash.

In: the cache folder. Out: a folder in the cache with all five programs, created atomically. If two builds are
started at the same time, the second waits and uses the result of the first. The build log contains the full
output of `go`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

from nimlab.errors import SandboxError
from nimlab.sandbox import find_programs, folder_lock
from nimlab.sandbox.build_progress import Progress, count_new_packages, is_download, is_package
from nimlab.sandbox.find_programs import SOURCES, VERSION, Source
from nimlab.sandbox.state_values import Phase, Step

# Go 1.24 is the first version that supports `tool` directives. If go.mod requires a newer version, `go`
# itself reports it.
_OLDEST_GO: Final = (1, 24)
_GO_HINT: Final = (
    "install Go 1.26 or newer, or set KUBEBUILDER_ASSETS to a folder with etcd, kube-apiserver, "
    "kube-controller-manager, kube-scheduler and kwok"
)
_LOG_LINES: Final = 12
_LIST_FORMAT: Final = (
    "{{.ImportPath}}@{{with .Module}}{{.Version}}{{end}}"  # identifies a package across modules
)
_BUILD_PREFIX: Final = "building-"

_MAJOR, _MINOR, _ = VERSION.removeprefix("v").split(".")
# Without _LINK_FLAGS, the programs report the version v0.0.0-master.
_VERSION_PACKAGE: Final = "k8s.io/component-base/version"
_LINK_FLAGS: Final = (
    f"-s -w -X {_VERSION_PACKAGE}.gitVersion={VERSION}"
    f" -X {_VERSION_PACKAGE}.gitMajor={_MAJOR} -X {_VERSION_PACKAGE}.gitMinor={_MINOR}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _BuildContext:
    """The folder, the log and the progress callback of one build."""

    folder: Path
    log: TextIO
    log_path: Path
    report: Callable[[Step], None]


def find_go_version() -> str | None:
    """Return the version of the installed Go, such as `go1.26.1`; None if Go is not installed."""
    try:
        result = subprocess.run(
            ["go", "env", "GOVERSION"],  # noqa: S607 -- the user's Go, from PATH
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            text=True,
            cwd="/",  # a go.mod in the current folder could select another version
            env=_make_environment(),
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() or None


def build_programs(
    cache: Path, go_version: str | None, *, log_path: Path, report: Callable[[Step], None]
) -> Path:
    """Build all five programs and return their folder. Raises SandboxError.

    If another process has built them in the meantime, use its result.
    """
    version = _check_go(go_version)
    sets = cache / "sandbox"
    sets.mkdir(parents=True, exist_ok=True)
    text = "another nimlab process is building the programs; waiting for it"
    waiting = Step(phase=Phase.NOTE, text=text)
    with folder_lock.lock_folder(sets, on_wait=lambda: report(waiting)):
        if (cached := find_programs.find_cached(cache, version)) is not None:
            return cached
        for abandoned in sets.glob(f"{_BUILD_PREFIX}*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with (
            log_path.open("w", encoding="utf-8") as log,
            tempfile.TemporaryDirectory(
                prefix=_BUILD_PREFIX, dir=sets, ignore_cleanup_errors=True
            ) as temporary,
        ):
            build = _BuildContext(folder=Path(temporary), log=log, log_path=log_path, report=report)
            _build_all(build)
            finished = sets / find_programs.name_set(version)
            shutil.rmtree(finished, ignore_errors=True)  # if the folder exists, it is incomplete
            (build.folder / "bin").rename(finished)
    return finished


def _check_go(go_version: str | None) -> str:
    reason = f"building Kubernetes {VERSION} for this machine needs Go 1.26 or newer"
    if go_version is None:
        raise SandboxError(f"{reason}, but Go is not on PATH", hint=_GO_HINT)
    number = re.match(r"go(\d+)\.(\d+)", go_version)
    if number is not None and (int(number[1]), int(number[2])) < _OLDEST_GO:
        raise SandboxError(f"{reason}, but PATH has {go_version}", hint=_GO_HINT)
    return go_version


def _build_all(build: _BuildContext) -> None:
    text = f"building Kubernetes {VERSION} for this machine, first time only"
    build.report(Step(phase=Phase.BUILD, text=text, log=build.log_path))
    for module in {source.module for source in SOURCES}:
        (build.folder / module).mkdir()
        for file in ("go.mod", "go.sum"):
            content = find_programs.read_module(module).joinpath(file).read_bytes()
            (build.folder / module / file).write_bytes(content)
    progress = Progress(totals=count_new_packages(tuple(_list_packages(build))))
    started = time.monotonic()
    for index, source in enumerate(SOURCES):
        progress = progress.next_program() if index else progress
        progress = _build_program(build, source, progress, started)


def _list_packages(build: _BuildContext) -> Iterator[frozenset[str]]:
    """Yield the packages that each program needs. Meanwhile, `go` downloads missing sources."""
    downloads = 0
    for source in SOURCES:
        packages = set()
        for line in _run_go(build, source, ["list", "-deps", "-f", _LIST_FORMAT, source.package]):
            if is_download(line):
                downloads += 1
                build.report(Step(phase=Phase.DOWNLOAD, text="downloading sources", done=downloads))
            elif is_package(line):
                packages.add(line)
        yield frozenset(packages)


def _build_program(build: _BuildContext, source: Source, progress: Progress, started: float) -> Progress:
    target = build.folder / "bin" / source.name
    arguments = ["build", "-v", "-ldflags", _LINK_FLAGS, "-o", str(target), source.package]
    for line in _run_go(build, source, arguments):
        if not is_package(line):
            continue
        progress = progress.add_package()
        build.report(
            Step(
                phase=Phase.COMPILE,
                text=source.name,
                done=progress.done,
                total=progress.total,
                eta_s=progress.eta_s(time.monotonic() - started),
            )
        )
    done = Step(phase=Phase.COMPILE, text=source.name, done=progress.total, total=progress.total)
    build.report(done)
    return progress


def _run_go(build: _BuildContext, source: Source, arguments: Sequence[str]) -> Iterator[str]:
    """Run `go` in the module's folder, log its output and yield the lines. Raises SandboxError."""
    build.log.write(f"$ go {' '.join(arguments)}\n")
    last_lines: list[str] = []
    with _start_go(arguments, build.folder / source.module) as process:
        for raw in process.stdout or ():
            build.log.write(raw)
            line = raw.rstrip("\n")
            last_lines = [*last_lines[1 - _LOG_LINES :], line]
            yield line
    build.log.flush()
    if process.returncode != 0:
        quoted = "".join(f"\n    {line}" for line in last_lines)
        raise SandboxError(
            f"building {source.name} failed; the last lines of the log are:{quoted}",
            where=build.log_path,
            hint="fix the cause and run the command again; compiled packages are reused",
        )


@contextmanager
def _start_go(arguments: Sequence[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Start `go`. When the `with` block ends, even by an exception, `go` has exited."""
    with subprocess.Popen(  # noqa: S603 -- our own arguments
        ["go", *arguments],  # noqa: S607 -- the user's Go, from PATH
        cwd=folder,
        env=_make_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        try:
            yield process
        except BaseException:
            process.terminate()
            raise


def _make_environment() -> Mapping[str, str]:
    """Return the user's environment without the variables that would change the result of the build."""
    fixed = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false", "GOWORK": "off"}
    dropped = ("GOOS", "GOARCH", "GOEXPERIMENT", "GO111MODULE")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return {**kept, **fixed}
