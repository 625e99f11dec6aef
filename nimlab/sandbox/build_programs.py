"""The programs, built with Go from module files that pin every source by its hash.

In: the cache's folder. Out: a folder in it with five programs, which appears whole or not at all;
two builds at once are one. All that `go` says is kept in the build's log.
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
from nimlab.sandbox import folder_lock as lock
from nimlab.sandbox import programs
from nimlab.sandbox.build_progress import Progress, count_new_packages, is_download, is_package
from nimlab.sandbox.programs import SOURCES, VERSION, Source
from nimlab.sandbox.state import Phase, Step

_OLDEST_GO: Final = (
    1,
    24,
)  # the first with `tool` lines; go.mod may ask for more, which `go` then says
_GO_HINT: Final = (
    "install Go 1.26 or newer, or set KUBEBUILDER_ASSETS to a folder with etcd, kube-apiserver, "
    "kube-controller-manager, kube-scheduler and kwok"
)
_LAST_LINES: Final = 12
_LISTED: Final = "{{.ImportPath}}@{{with .Module}}{{.Version}}{{end}}"  # what is compiled only once
_BUILD_PREFIX: Final = "building-"

_MAJOR, _MINOR, _ = VERSION.removeprefix("v").split(".")
_STAMP: Final = "k8s.io/component-base/version"  # unstamped, the server says v0.0.0-master
_LINK_FLAGS: Final = (
    f"-s -w -X {_STAMP}.gitVersion={VERSION} -X {_STAMP}.gitMajor={_MAJOR} -X {_STAMP}.gitMinor={_MINOR}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Workshop:
    """What every step of one build needs."""

    folder: Path
    log: TextIO
    log_path: Path
    report: Callable[[Step], None]


def find_go_version() -> str | None:
    """Return what Go calls itself, such as `go1.26.1`; None if there is no Go."""
    try:
        answer = subprocess.run(
            ["go", "env", "GOVERSION"],  # noqa: S607 -- the user's own, from PATH
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            text=True,
            cwd="/",  # the Go that is installed, not one that a go.mod here asks for
            env=_make_environment(),
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None


def build_programs(
    cache: Path, go_version: str | None, *, log_path: Path, report: Callable[[Step], None]
) -> Path:
    """Build all five programs unless another process has just done it; return their folder.

    Raises SandboxError.
    """
    version = _check_go(go_version)
    sets = cache / "sandbox"
    sets.mkdir(parents=True, exist_ok=True)
    waiting = Step(phase=Phase.NOTE, text="another nimlab is building the programs; waiting for it")
    with lock.hold(sets, on_wait=lambda: report(waiting)):
        if (there := programs.find_cached(cache, version)) is not None:
            return there
        for left_behind in sets.glob(f"{_BUILD_PREFIX}*"):
            shutil.rmtree(left_behind, ignore_errors=True)
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with (
            log_path.open("w", encoding="utf-8") as log,
            tempfile.TemporaryDirectory(
                prefix=_BUILD_PREFIX, dir=sets, ignore_cleanup_errors=True
            ) as temporary,
        ):
            shop = _Workshop(folder=Path(temporary), log=log, log_path=log_path, report=report)
            _build_all(shop)
            finished = sets / programs.name_set(version)
            shutil.rmtree(finished, ignore_errors=True)  # an incomplete one
            (shop.folder / "bin").rename(finished)
    return finished


def _check_go(go_version: str | None) -> str:
    what = f"Kubernetes {VERSION} has to be built for this machine, and that needs Go"
    if go_version is None:
        raise SandboxError(f"{what}, which isn't on PATH", hint=_GO_HINT)
    number = re.match(r"go(\d+)\.(\d+)", go_version)
    if number is not None and (int(number[1]), int(number[2])) < _OLDEST_GO:
        raise SandboxError(f"{what} 1.26 or newer; PATH has {go_version}", hint=_GO_HINT)
    return go_version


def _build_all(shop: _Workshop) -> None:
    text = f"building Kubernetes {VERSION} for this machine, first time only"
    shop.report(Step(phase=Phase.BUILD, text=text, log=shop.log_path))
    for module in {source.module for source in SOURCES}:
        (shop.folder / module).mkdir()
        for file in ("go.mod", "go.sum"):
            content = programs.read_module(module).joinpath(file).read_bytes()
            (shop.folder / module / file).write_bytes(content)
    progress = Progress(totals=count_new_packages(tuple(_list_packages(shop))))
    started = time.monotonic()
    for index, source in enumerate(SOURCES):
        progress = progress.next_program() if index else progress
        progress = _build_one(shop, source, progress, started)


def _list_packages(shop: _Workshop) -> Iterator[frozenset[str]]:
    """Yield the packages of each program, fetching the sources if need be."""
    fetched = 0
    for source in SOURCES:
        listed = set()
        for line in _run_go(shop, source, ["list", "-deps", "-f", _LISTED, source.package]):
            if is_download(line):
                fetched += 1
                shop.report(Step(phase=Phase.DOWNLOAD, text="fetching sources", done=fetched))
            elif is_package(line):
                listed.add(line)
        yield frozenset(listed)


def _build_one(shop: _Workshop, source: Source, progress: Progress, started: float) -> Progress:
    target = shop.folder / "bin" / source.name
    arguments = ["build", "-v", "-ldflags", _LINK_FLAGS, "-o", str(target), source.package]
    for line in _run_go(shop, source, arguments):
        if not is_package(line):
            continue
        progress = progress.one_more()
        shop.report(
            Step(
                phase=Phase.COMPILE,
                text=source.name,
                done=progress.done,
                total=progress.total,
                eta_s=progress.eta_s(time.monotonic() - started),
            )
        )
    done = Step(phase=Phase.COMPILE, text=source.name, done=progress.total, total=progress.total)
    shop.report(done)
    return progress


def _run_go(shop: _Workshop, source: Source, arguments: Sequence[str]) -> Iterator[str]:
    """Run `go` in the module's folder and yield its lines, logging them. Raises SandboxError."""
    shop.log.write(f"$ go {' '.join(arguments)}\n")
    last: list[str] = []
    with _started(arguments, shop.folder / source.module) as process:
        for raw in process.stdout or ():
            shop.log.write(raw)
            line = raw.rstrip("\n")
            last = [*last[1 - _LAST_LINES :], line]
            yield line
    shop.log.flush()
    if process.returncode != 0:
        tail = "".join(f"\n    {line}" for line in last)
        raise SandboxError(
            f"{source.name} can't be built; the last lines of the log are:{tail}",
            where=shop.log_path,
            hint="mend what they say and run it again: what is compiled stays compiled",
        )


@contextmanager
def _started(arguments: Sequence[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Start `go`; however the block is left, it is over afterwards."""
    with subprocess.Popen(  # noqa: S603 -- our own arguments
        ["go", *arguments],  # noqa: S607 -- the user's own, from PATH
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
    """Return the user's environment, less what would make the build another one."""
    ours = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false", "GOWORK": "off"}
    dropped = ("GOOS", "GOARCH", "GOEXPERIMENT", "GO111MODULE")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return {**kept, **ours}
