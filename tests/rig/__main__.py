"""`python -m tests.rig [pytest's arguments]`: prepare, enter namespaces of its own, run the tests there.

The network, the mounts and the processes are the rig's own: when the first of them ends, however it ends, the
kernel removes pods, interfaces, rules and mounts. `python -m tests.rig shell` opens a shell beside a running
rig instead.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from nimlab.cache import default_cache
from nimlab.errors import SandboxError
from nimlab.sandbox.build_programs import find_go_version
from nimlab.sandbox.control import provide_programs
from nimlab.sandbox.programs import find_cached
from tests.rig.images import make_images
from tests.rig.programs import PROGRAMS, RigError, provide
from tests.rig.ready import CONTROL_PLANE, HOME, Ready, cgroups

_NEEDED: Final = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "ip": "iproute2",
    "tc": "iproute2",
    "conntrack": "conntrack",
    "unshare": "util-linux",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "go": "golang, 1.26 or newer",
}
_PR_SET_PDEATHSIG: Final = 1
_PREFIX: Final = "nimlab-rig-"


def main(arguments: list[str]) -> int:
    """Prepare, enter, clear away; return the exit code."""
    try:
        _check()
        ready = _prepare()
    except (RigError, SandboxError) as error:
        print(f"rig  can't be started: {error}", file=sys.stderr)
        return 1
    _sweep()
    with _home() as home:
        (home / "ready.json").write_text(json.dumps(ready.to_json()), encoding="utf-8")
        run = ["tests.rig.inside"] if arguments == ["shell"] else ["pytest", "tests/rig", *arguments]
        return _enter(home, [sys.executable, "-m", *run])


def _enter(home: Path, command: list[str]) -> int:
    """Run a command in new namespaces, and return its exit code when all in them has ended.

    Its first process is a shell, which takes in those whose parents have ended, as pods' shims do.
    """
    flags = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    first = ["bash", "-c", 'mount --make-rshared / && "$@"; exit $?', "rig", *command]
    library = ctypes.CDLL(None)
    with subprocess.Popen(
        ["unshare", *flags, *first],
        env={**os.environ, HOME: str(home)},
        preexec_fn=lambda: library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),  # who kills us kills the rig
    ) as child:
        while True:
            try:
                return child.wait()
            except KeyboardInterrupt:  # it was told so itself
                continue


@contextmanager
def _home() -> Iterator[Path]:
    """A folder that goes with everything in it: what was mounted there isn't any more."""
    home = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    try:
        yield home
    finally:
        _remove(home)


def _sweep() -> None:
    """Remove what rigs have left whose end was too sudden."""
    for home in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        pid = home.name.removeprefix(_PREFIX).partition("-")[0]
        if not Path("/proc", pid).exists():
            _remove(home)


def _remove(home: Path) -> None:
    for controller in cgroups():
        for folder in sorted((controller / home.name).glob("**/"), key=lambda path: -len(path.parts)):
            with suppress(OSError):  # not empty: then it is not over yet
                folder.rmdir()
    shutil.rmtree(home, ignore_errors=True)


def _check() -> None:
    """Say at once everything that is missing. Raises RigError."""
    missing = []
    if sys.platform != "linux":
        missing.append("Linux")
    elif os.geteuid() != 0:
        missing.append("root: namespaces and containers need it")
    packages = sorted({package for name, package in _NEEDED.items() if shutil.which(name) is None})
    if packages:
        missing.append(f"these packages: {' '.join(packages)}")
    if missing:
        raise RigError(f"a real node needs {'; and '.join(missing)}")


def _prepare() -> Ready:
    def say(text: str) -> None:
        print(f"rig  {text}", flush=True)

    with tempfile.TemporaryDirectory(prefix="nimlab-build-") as home:
        provide_programs(Path(home) / "sandbox", cache=default_cache(), report=lambda step: say(step.text))
    cached = find_cached(default_cache(), find_go_version())
    if cached is None:
        raise RigError("the control plane's programs aren't in the cache")
    programs = provide(tuple(PROGRAMS), say)
    images = make_images(programs, say)
    return Ready(
        programs={**programs, **{name: cached / name for name in CONTROL_PLANE}}, images=tuple(images)
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
