"""Syncs that meet each other, and a replacement that the server won't have."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.faults.two_states import OTHER, make_world
from tests.support.api_proxy import Gate, run_proxy
from tests.support.lab import Lab
from tests.support.paths import REPOSITORY

pytestmark = pytest.mark.live


def start(lab: Lab, *arguments: str, kubeconfig: Path | None = None) -> subprocess.Popen[str]:
    """Run nimlab in a process of its own."""
    command = [sys.executable, "-m", "nimlab", *arguments, "--lab", str(lab.root)]
    return subprocess.Popen(
        [*command, "--kubeconfig", str(kubeconfig or lab.kubeconfig)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )


def ended(processes: Sequence[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """Wait for all of them; return their exit codes and what they said."""
    said = [process.communicate(timeout=120) for process in processes]
    return [(p.returncode, out + err) for p, (out, err) in zip(processes, said, strict=True)]


def release_lock(lab: Lab) -> None:
    """Take the lock from a sync that was killed: it would be held until its time is over."""
    lease = lab.get("Lease", "nimlab-experiments")
    assert lease is not None
    lab.cluster.replace({**lease, "spec": {}})


def test_syncs_at_the_same_time_take_turns(lab: Lab) -> None:
    world = make_world(lab)
    alive = world.sign_of_life()
    goal = "B"
    for _ in range(3):
        world.ask_for(goal)
        results = ended([start(lab, "sync", "--lock-timeout", "60s") for _ in range(3)])
        assert [code for code, _ in results] == [0, 0, 0], results
        world.assert_is(goal)
        goal = OTHER[goal]
    assert world.sign_of_life() == alive
    lease = lab.get("Lease", "nimlab-experiments")
    assert lease is not None
    assert not lease["spec"].get("holderIdentity")


def test_sync_that_may_not_wait_names_who_is_at_work(lab: Lab, tmp_path: Path) -> None:
    world = make_world(lab)
    world.ask_for("B")
    gate = Gate(lambda request: request.is_write and "/statefulsets/" in request.path)

    with run_proxy(lab.kubeconfig, tmp_path) as proxy:
        proxy.fault = gate
        first = start(lab, "sync", kubeconfig=proxy.kubeconfig)
        assert gate.reached.wait(60)
        answer = lab.run("sync")
        gate.opened.set()
        assert answer.code == 1
        assert f"another sync is at work: {os.environ.get('USER', 'unknown')}@" in answer.err
        assert f"(pid {first.pid})" in answer.err
        assert ended([first])[0][0] == 0
    world.assert_is("B")


def test_replacement_that_the_server_refuses_costs_nothing(lab: Lab) -> None:
    """An immutable field changes and another one is wrong: the old object stays, and its peers run on."""
    world = make_world(lab)
    world.ask_for("B")
    template = lab.root / "templates" / "experiment" / "statefulset.yaml.j2"
    text = template.read_text(encoding="utf-8")
    wrong = text.replace("enableServiceLinks: false", "enableServiceLinks: false\n      dnsPolicy: Never")
    assert wrong != text
    template.write_text(wrong, encoding="utf-8")
    before = lab.get("StatefulSet", "nimp2p-exp-red")
    assert before is not None
    for arguments in (("sync", "red", "--dry-run"), ("sync", "red", "--no-wait")):
        answer = lab.run(*arguments)
        assert answer.code == 1, answer.out
        assert "dnsPolicy" in answer.out
        assert "Unsupported value" in answer.out
    after = lab.get("StatefulSet", "nimp2p-exp-red")
    assert after is not None
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert not after["metadata"].get("deletionTimestamp")
    template.write_text(text, encoding="utf-8")
    assert lab.run("sync").code == 0
    world.assert_is("B")
