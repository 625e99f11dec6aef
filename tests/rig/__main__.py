"""Run the rig's tests (`python -m tests.rig [arguments of pytest]`) in new Linux namespaces.

The rig has its own network, mount and process namespaces. When its first process ends, for any reason, the
kernel removes its pods, interfaces, rules and mounts. `python -m tests.rig shell` opens a shell with a
running rig instead.
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

from nimlab.errors import SandboxError
from nimlab.sandbox.build_programs import find_go_version
from nimlab.sandbox.find_programs import find_cached
from nimlab.sandbox.lifecycle import provide_programs
from nimlab.value_cache import default_cache
from tests.rig.node_images import make_images
from tests.rig.node_programs import PROGRAMS, RigError, provide
from tests.rig.prepared import CONTROL_PLANE, HOME, Prepared, cgroup_roots

_PACKAGES: Final = {  # required program: its Debian package
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
    """Prepare the rig, run the tests or the shell in it, and clean up; return the exit code."""
    try:
        _check_requirements()
        prepared = _prepare()
    except (RigError, SandboxError) as error:
        print(f"rig  cannot be started: {error}", file=sys.stderr)
        return 1
    _remove_abandoned()
    with _temporary_home() as home:
        (home / "prepared.json").write_text(json.dumps(prepared.to_json()), encoding="utf-8")
        module = ["tests.rig.shell"] if arguments == ["shell"] else ["pytest", "tests/rig", *arguments]
        return _enter(home, [sys.executable, "-m", *module])


def _enter(home: Path, command: list[str]) -> int:
    """Run a command in new namespaces; return its exit code after all processes in them have ended.

    The first process is a shell, because a shell reaps orphaned processes such as the shims of pods.
    """
    flags = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    shell = ["bash", "-c", 'mount --make-rshared / && "$@"; exit $?', "rig", *command]
    library = ctypes.CDLL(None)
    with subprocess.Popen(
        ["unshare", *flags, *shell],
        env={**os.environ, HOME: str(home)},
        # If this process is killed, the kernel kills the rig too.
        preexec_fn=lambda: library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),
    ) as child:
        while True:
            try:
                return child.wait()
            except KeyboardInterrupt:  # the child process also received the signal, and ends by itself
                continue


@contextmanager
def _temporary_home() -> Iterator[Path]:
    """Yield a temporary folder, and remove it after the kernel has removed all mounts in it."""
    home = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    try:
        yield home
    finally:
        _remove(home)


def _remove_abandoned() -> None:
    """Remove the folders of rigs that were killed."""
    for home in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        pid = home.name.removeprefix(_PREFIX).partition("-")[0]
        if not Path("/proc", pid).exists():
            _remove(home)


def _remove(home: Path) -> None:
    for root in cgroup_roots():
        for folder in sorted((root / home.name).glob("**/"), key=lambda path: -len(path.parts)):
            with suppress(OSError):  # the cgroup still contains processes
                folder.rmdir()
    shutil.rmtree(home, ignore_errors=True)


def _check_requirements() -> None:
    """Raise RigError with all missing requirements."""
    missing = []
    if sys.platform != "linux":
        missing.append("Linux")
    elif os.geteuid() != 0:
        missing.append("root rights for namespaces and containers")
    packages = sorted({package for name, package in _PACKAGES.items() if shutil.which(name) is None})
    if packages:
        missing.append(f"these packages: {' '.join(packages)}")
    if missing:
        raise RigError(f"a real node needs {'; and '.join(missing)}")


def _prepare() -> Prepared:
    def note(text: str) -> None:
        print(f"rig  {text}", flush=True)

    with tempfile.TemporaryDirectory(prefix="nimlab-build-") as home:
        provide_programs(Path(home) / "sandbox", cache=default_cache(), report=lambda step: note(step.text))
    cached = find_cached(default_cache(), find_go_version())
    if cached is None:
        raise RigError(
            "the control plane's programs are not in the cache; "
            "the rig does not use those in KUBEBUILDER_ASSETS or PATH: remove them, then run this again"
        )
    programs = provide(tuple(PROGRAMS), note)
    images = make_images(programs, note)
    return Prepared(
        programs={**programs, **{name: cached / name for name in CONTROL_PLANE}}, images=tuple(images)
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
