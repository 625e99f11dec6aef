"""A sync that is killed after any of its writes: the next sync completes the work.

For every k, the proxy kills the process with SIGKILL after the server has done write k and before the process
receives the response.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from nimlab.objects.manifest import ObjectKey
from tests.faults.test_faults import free_lock
from tests.faults.world import World, make_world
from tests.live import REPOSITORY, Lab
from tests.proxy import Proxy, Seen, run_proxy

pytestmark = pytest.mark.live

MAX_WRITES = 80


@dataclass(slots=True)
class Killer:
    """A proxy hook that kills a process after the server has done write number `after`; None never kills."""

    after: int | None
    process: subprocess.Popen[str] | None = None
    writes: int = 0

    def __call__(self, request: Seen, status: int, body: bytes) -> None:
        """Count a write; kill the process before it receives the response."""
        del status, body
        if not request.is_write:
            return
        self.writes += 1
        if self.writes == self.after and self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


def run_until(world: World, proxy: Proxy, after: int | None) -> tuple[int, int]:
    """Sync in a separate process, killed after a write; return its exit code and the number of writes."""
    killer = Killer(after)
    command = [sys.executable, "-m", "nimlab", "sync", "--timeout", "60s", "--lab", str(world.lab.root)]
    proxy.answered = None
    killer.process = subprocess.Popen(
        [*command, "--kubeconfig", str(proxy.kubeconfig)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        text=True,
    )
    proxy.answered = killer
    code = killer.process.wait(timeout=120)
    proxy.answered = None
    return code, killer.writes


@pytest.mark.timeout(2400)
def test_sync_killed_after_any_write_is_completed_by_the_next(
    lab: Lab, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    world = make_world(lab)
    bystander = world.bystander_version()
    crashes = {"B": 0, "A": 0}
    with run_proxy(lab.kubeconfig, tmp_path) as proxy:
        for after in range(1, MAX_WRITES):
            completed = [crash_towards(world, proxy, state, after, crashes) for state in crashes]
            assert world.bystander_version() == bystander, f"after write {after}"
            if all(completed):
                break
    assert all(completed), "the sync does not stop writing"
    assert min(crashes.values()) >= 30
    figure(
        f"crashes: killed after each of the {crashes['B']} and {crashes['A']} writes of two syncs: "
        "the next one completed each, 0 left behind, 0 foreign objects touched"
    )


def crash_towards(world: World, proxy: Proxy, state: str, after: int, crashes: dict[str, int]) -> bool:
    """Kill a sync after write number `after`, then sync again.

    Return True if the first sync ended before that write.
    """
    world.ask_for(state)
    code, writes = run_until(world, proxy, after)
    if code == 0:
        assert writes < after
        return True
    assert code == -signal.SIGKILL
    crashes[state] += 1
    free_lock(world)
    answer = world.lab.run("sync", "--timeout", "60s")
    assert answer.code == 0, f"after write {after}: {answer.out}{answer.err}"
    world.assert_is(state)
    return False


@pytest.mark.parametrize("after", range(1, 9))
def test_first_sync_killed_after_any_write_is_completed_by_the_next(
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
