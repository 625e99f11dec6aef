"""A real control plane for the session, and a separate lab for each test.

The sandbox is started once per session in a temporary folder, with the programs from the user's cache.
Missing programs are built. Each test gets a copy of the tests' lab with a unique namespace.
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
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Lab:
    """A lab's folder, its namespace, and the cluster to which it is synced."""

    root: Path
    namespace: str
    kubeconfig: Path
    cluster: KubeCluster
    capture: pytest.CaptureFixture[str]

    def run(self, *arguments: str) -> Answer:
        """Run a nimlab command in this lab; commands that use a cluster get the sandbox's kubeconfig."""
        flags = ["--lab", str(self.root)]
        if arguments[0] not in ("validate", "render", "rbac"):
            flags += ["--kubeconfig", str(self.kubeconfig)]
        self.capture.readouterr()
        code = main([*arguments, *flags])
        output = self.capture.readouterr()
        return Answer(code=code, out=output.out, err=output.err)

    def write(self, name: str, text: str) -> Path:
        """Write the file of an experiment."""
        path = self.root / "experiments" / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace a text in an experiment's file; the file must contain the text."""
        path = self.root / "experiments" / f"{name}.yaml"
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    def get(self, kind: str, name: str, namespace: str | None = None) -> Manifest | None:
        """Read an object in the given namespace, by default in the lab's namespace."""
        key = ObjectKey(kind, self.namespace if namespace is None else namespace, name)
        return self.cluster.get(key)

    def names(self, kind: str) -> list[str]:
        """Return the sorted names of all objects of a kind in the lab's namespace."""
        items = self.cluster.list_objects(kind, namespace=self.namespace).items
        return sorted(item["metadata"]["name"] for item in items)

    def kubectl(self, *arguments: str) -> str:
        """Run kubectl in the lab's namespace, as a user would; the test fails if kubectl fails."""
        pinned = Path(sys.executable).parent / "kubectl"  # from the dev extras; PATH may have another version
        program = str(pinned) if pinned.exists() else shutil.which("kubectl")
        assert program is not None, "kubectl is neither in the virtual environment nor on PATH"
        done = subprocess.run(
            [program, "--kubeconfig", str(self.kubeconfig), "-n", self.namespace, *arguments],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.stdout


def _quiet(step: control_plane.Step) -> None:
    """Print nothing about a step."""
    del step


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Sandbox]:
    """Start the control plane; if it cannot start, skip the test, or fail with `--require-live`."""
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
    """Yield an administrator's connection to the session's control plane."""
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
    """Yield a copy of the tests' lab with a random namespace.

    The namespace is kept until the control plane stops, because its deletion costs as much CPU as two syncs.
    It is deleted only if it contains DaemonSets, because their pods occupy ports of the nodes.
    """
    namespace = f"lab-{secrets.token_hex(4)}"
    root = make_lab(tmp_path / "lab", namespace)
    yield Lab(root, namespace, sandbox.kubeconfig, cluster, capsys)
    if cluster.list_objects("DaemonSet", namespace=namespace).items:
        remove_namespaces(cluster, [namespace])


@pytest.fixture
def lab_folder(tmp_path: Path) -> Path:
    """Return a copy of the tests' lab, without a cluster."""
    return make_lab(tmp_path / "lab", "dst-test")


def make_lab(root: Path, namespace: str, experiments: Sequence[str] = ("blue", "purple")) -> Path:
    """Write the tests' lab into a new folder, with this namespace and only these experiments."""
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
    """Delete namespaces without waiting for the deletion of their objects."""
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
    """Run git in a folder with a fixed identity and without the machine's settings."""
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
