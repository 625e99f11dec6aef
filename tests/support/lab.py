"""A real control plane for the session, and a separate lab for each test.

The sandbox starts once per session (with pytest-xdist: once per worker) in a temporary folder. It uses the
programs in the user's cache and builds the missing ones. Each test gets a copy of the tests' lab in its own
namespace.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from nimlab import sandbox as control_plane
from nimlab.cli import main
from nimlab.cluster.interface import Propagation
from nimlab.cluster.kube import KubeCluster, Target, connect
from nimlab.errors import SandboxError
from nimlab.objects.manifest import Manifest, ObjectKey
from nimlab.value_cache import default_cache
from tests.support.paths import copy_sample_lab


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """The session's control plane."""

    home: Path
    kubeconfig: Path
    server: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Lab:
    """The folder of a lab, its own namespace, and the cluster that it syncs to."""

    root: Path
    namespace: str
    kubeconfig: Path
    cluster: KubeCluster
    capture: pytest.CaptureFixture[str]

    def run(self, *arguments: str) -> Answer:
        """Run a nimlab command in this lab, with the sandbox's kubeconfig if it needs a cluster."""
        flags = ["--lab", str(self.root)]
        if arguments[0] not in ("validate", "render", "rbac"):
            flags += ["--kubeconfig", str(self.kubeconfig)]
        self.capture.readouterr()
        code = main([*arguments, *flags])
        printed = self.capture.readouterr()
        return Answer(code=code, out=printed.out, err=printed.err)

    def write(self, name: str, text: str) -> Path:
        """Write the file of an experiment."""
        path = self.root / "experiments" / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace a text in the file of an experiment, which must contain it."""
        path = self.root / "experiments" / f"{name}.yaml"
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    def get(self, kind: str, name: str, namespace: str | None = None) -> Manifest | None:
        """Read an object in the lab's namespace, or in another one."""
        home = self.namespace if namespace is None else namespace
        return self.cluster.get(ObjectKey(kind, home, name))

    def names(self, kind: str) -> list[str]:
        """Return the names of all objects of a kind in the lab's namespace."""
        items = self.cluster.list_objects(kind, namespace=self.namespace).items
        return sorted(item["metadata"]["name"] for item in items)

    def kubectl(self, *arguments: str) -> str:
        """Run kubectl in the lab's namespace, and return its output. If kubectl fails, so does the test."""
        own = (
            Path(sys.executable).parent / "kubectl"
        )  # from the dev dependencies; kubectl on PATH may have any version
        program = str(own) if own.exists() else shutil.which("kubectl")
        assert program is not None, "there is no kubectl beside Python or on PATH"
        done = subprocess.run(
            [program, "--kubeconfig", str(self.kubeconfig), "-n", self.namespace, *arguments],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.stdout


def _quiet(step: control_plane.Step) -> None:
    """Ignore the progress of the start."""
    del step


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Sandbox]:
    """Start the control plane. If the machine cannot run it, skip the test, or fail with `--require-live`."""
    home = tmp_path_factory.mktemp("sandbox") / ".nimlab" / "sandbox"
    try:
        state = control_plane.up(home, nodes=3, cache=default_cache(), report=_quiet)
    except SandboxError as error:
        if pytestconfig.getoption("--require-live"):
            raise
        pytest.skip(f"no control plane on this machine: {error}")
    try:
        yield Sandbox(home=home, kubeconfig=state.kubeconfig, server=state.server or "")
    finally:
        control_plane.down(home, report=_quiet)


@pytest.fixture(scope="session")
def cluster(sandbox: Sandbox) -> Iterator[KubeCluster]:
    """A connection to the session's control plane with all rights."""
    target = Target(kubeconfig=sandbox.kubeconfig, context=None, name="sandbox", why="a test")
    connected = connect(target, parallel=8)
    yield connected
    connected.close()


@pytest.fixture
def lab(
    sandbox: Sandbox,
    cluster: KubeCluster,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Lab]:
    """A copy of the tests' lab in a random namespace, which is deleted after the test."""
    namespace = f"lab-{secrets.token_hex(4)}"
    root = make_lab(tmp_path / "lab", namespace)
    yield Lab(root, namespace, sandbox.kubeconfig, cluster, capsys)
    remove_namespaces(cluster, [namespace])


@pytest.fixture
def lab_folder(tmp_path: Path) -> Path:
    """A copy of the tests' lab, without a cluster."""
    return make_lab(tmp_path / "lab", "dst-test")


def make_lab(root: Path, namespace: str, experiments: Sequence[str] = ("blue", "purple")) -> Path:
    """Write the tests' lab into a new folder, with these of its experiments and this namespace."""
    copy_sample_lab(root)
    for path in (root / "experiments").iterdir():
        if path.stem not in experiments:
            path.unlink()
    text = (root / "lab.yaml").read_text(encoding="utf-8")
    assert "namespace: dst-lab" in text
    (root / "lab.yaml").write_text(
        text.replace("namespace: dst-lab", f"namespace: {namespace}"), encoding="utf-8"
    )
    return root


def remove_namespaces(cluster: KubeCluster, names: Sequence[str]) -> None:
    """Delete namespaces without waiting for the deletion of their contents."""
    for name in names:
        key = ObjectKey("Namespace", "", name)
        live = cluster.get(key)
        if live is not None:
            cluster.delete(
                key,
                uid=live["metadata"]["uid"],
                resource_version=None,
                propagation=Propagation.BACKGROUND,
            )


def git(root: Path, *arguments: str) -> str:
    """Run git in a folder with an identity for tests and without the settings of the machine."""
    environment = {
        **os.environ,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        "GIT_AUTHOR_NAME": "test",
        "GIT_AUTHOR_EMAIL": "test@example.org",
        "GIT_COMMITTER_NAME": "test",
        "GIT_COMMITTER_EMAIL": "test@example.org",
    }
    done = subprocess.run(
        ["git", *arguments],
        cwd=root,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout.strip()
