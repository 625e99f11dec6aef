"""For each write of a sync: if the sync is killed after this write, the next sync completes the work.

For every k, the proxy kills the process with SIGKILL after the server has executed write k and before the
process receives the response.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nimlab.cluster.kube import KubeCluster
from nimlab.objects.manifest import ObjectKey
from tests.faults.test_faults import free_lock
from tests.faults.two_states import World, find_world, make_world
from tests.support.api_proxy import Proxy, Seen, run_proxy
from tests.support.lab import Lab, Sandbox, make_lab, remove_namespaces
from tests.support.paths import REPOSITORY

pytestmark = pytest.mark.live

LEAST = 30
MOST = 40


@dataclass(slots=True)
class Killer:
    """A proxy hook that kills a process after the server has executed write number `after` (None: never)."""

    after: int | None
    process: subprocess.Popen[str] | None = None
    writes: int = 0

    def __call__(self, request: Seen, status: int, body: bytes) -> None:
        """Count a write; if it is number `after`, kill the process before it receives the response."""
        del status, body
        if not request.is_write:
            return
        self.writes += 1
        if self.writes == self.after and self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


def run_until(world: World, proxy: Proxy, after: int | None) -> tuple[int, int]:
    """Sync in a process that is killed after write number `after`; return its exit code and its writes."""
    killer = Killer(after)
    command = [sys.executable, "-m", "nimlab", "sync", "--timeout", "60s", "--lab", str(world.lab.root)]
    proxy.on_response = None
    killer.process = subprocess.Popen(
        [*command, "--kubeconfig", str(proxy.kubeconfig)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        text=True,
    )
    proxy.on_response = killer
    code = killer.process.wait(timeout=120)
    proxy.on_response = None
    return code, killer.writes


@pytest.fixture(scope="module")
def folder(cluster: KubeCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """Yield the folder and the namespace of the lab that all crash tests of this test worker use."""
    namespace = f"lab-{secrets.token_hex(4)}"
    yield make_lab(tmp_path_factory.mktemp("crash") / "lab", namespace), namespace
    remove_namespaces(cluster, [namespace])


@pytest.fixture
def world(
    folder: tuple[Path, str], sandbox: Sandbox, cluster: KubeCluster, capsys: pytest.CaptureFixture[str]
) -> World:
    """Yield the lab for the crash tests of this test worker, in state A."""
    root, namespace = folder
    lab = Lab(root, namespace, sandbox.kubeconfig, cluster, capsys)
    if not (root / ".git").exists():
        return make_world(lab)
    world = find_world(lab)
    world.write_files("A")
    free_lock(world)
    answer = lab.run("sync", "--timeout", "60s")
    assert answer.code == 0, answer.out + answer.err
    return world


@pytest.mark.parametrize("after", range(1, MOST + 1))
def test_sync_killed_after_any_write_is_completed_by_the_next_sync(
    world: World, tmp_path: Path, counts: dict[str, Counter[str]], after: int
) -> None:
    alive = world.bystander_version()
    with run_proxy(world.lab.kubeconfig, tmp_path) as proxy:
        for goal in ("B", "A"):
            was_killed = crash_towards(world, proxy, goal, after)
            counts["crashes"][goal] += was_killed
            assert was_killed or after > LEAST, "the sync sends fewer writes than this test expects"
            assert not was_killed or after < MOST, "the sync sends more writes than this test covers"
    assert world.bystander_version() == alive


def crash_towards(world: World, proxy: Proxy, goal: str, after: int) -> bool:
    """Kill a sync to the state `goal` after write number `after`; complete the work by another sync.

    Return False if the first sync ended before this write.
    """
    world.write_files(goal)
    code, writes = run_until(world, proxy, after)
    if code == 0:
        assert writes < after
        return False
    assert code == -signal.SIGKILL
    free_lock(world)
    answer = world.lab.run("sync", "--timeout", "60s")
    assert answer.code == 0, f"after write {after}: {answer.out}{answer.err}"
    world.assert_is(goal)
    return True


@pytest.mark.parametrize("after", range(1, 9))
def test_first_sync_killed_after_any_write_is_completed_by_the_next_sync(
    lab: Lab, tmp_path: Path, after: int
) -> None:
    """The first sync creates the namespace, the lock and the parent."""
    with run_proxy(lab.kubeconfig, tmp_path) as proxy:
        world = World(lab, ObjectKey("ConfigMap", lab.namespace, "none"))
        code, _ = run_until(world, proxy, after)
        assert code == -signal.SIGKILL
    free_lock(world)
    answer = lab.run("sync")
    assert answer.code == 0, answer.out + answer.err
    assert lab.names("StatefulSet") == ["nimp2p-exp-blue", "nimp2p-exp-purple"]
    assert lab.run("sync", "--dry-run", "--exit-code").code == 0
