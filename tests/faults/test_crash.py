"""A sync that is killed after any of its writes: the next one ends as if nothing had happened.

The process is killed by the proxy, with SIGKILL, at the moment when the server has done write k and before
the process learns of it; for every k.
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
from tests.faults.two_states import World, make_world
from tests.support.api_proxy import Proxy, Seen, run_proxy
from tests.support.lab import Lab
from tests.support.paths import REPOSITORY

pytestmark = pytest.mark.live

MOST = 80


@dataclass(slots=True)
class Killer:
    """Kills a process after the server has done its write number `after`; None kills nothing."""

    after: int | None
    process: subprocess.Popen[str] | None = None
    writes: int = 0

    def __call__(self, request: Seen, status: int, body: bytes) -> None:
        """Take note of an answer before the process gets it."""
        del status, body
        if not request.is_write:
            return
        self.writes += 1
        if self.writes == self.after and self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


def run_until(world: World, proxy: Proxy, after: int | None) -> tuple[int, int]:
    """Sync in a process of its own, killed after a write; return its exit code and the writes done."""
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
def test_sync_killed_after_any_write_is_finished_by_the_next(
    lab: Lab, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    world = make_world(lab)
    alive = world.sign_of_life()
    points = {"B": 0, "A": 0}
    with run_proxy(lab.kubeconfig, tmp_path) as proxy:
        for after in range(1, MOST):
            ended = [crash_towards(world, proxy, goal, after, points) for goal in points]
            assert world.sign_of_life() == alive, f"after write {after}"
            if all(ended):
                break
    assert all(ended), "it writes without end"
    assert min(points.values()) >= 30
    figure(
        f"crashes: killed after each of the {points['B']} and {points['A']} writes of two syncs: "
        "the next one finished each, 0 left behind, 0 foreign objects touched"
    )


def crash_towards(world: World, proxy: Proxy, goal: str, after: int, points: dict[str, int]) -> bool:
    """Kill a sync towards a state and let the next one finish; True when it had fewer writes than that."""
    world.ask_for(goal)
    code, writes = run_until(world, proxy, after)
    if code == 0:
        assert writes < after
        return True
    assert code == -signal.SIGKILL
    points[goal] += 1
    free_lock(world)
    answer = world.lab.run("sync", "--timeout", "60s")
    assert answer.code == 0, f"after write {after}: {answer.out}{answer.err}"
    world.assert_is(goal)
    return False


@pytest.mark.parametrize("after", range(1, 9))
def test_first_sync_of_all_killed_after_any_write(lab: Lab, tmp_path: Path, after: int) -> None:
    """The namespace, the lock and the parent are made here."""
    with run_proxy(lab.kubeconfig, tmp_path) as proxy:
        world = World(lab, ObjectKey("ConfigMap", lab.namespace, "nobody"))
        code, _ = run_until(world, proxy, after)
        assert code == -signal.SIGKILL
    free_lock(world)
    answer = lab.run("sync")
    assert answer.code == 0, answer.out + answer.err
    assert lab.names("StatefulSet") == ["nimp2p-exp-blue", "nimp2p-exp-purple"]
    assert lab.run("sync", "--dry-run", "--exit-code").code == 0
