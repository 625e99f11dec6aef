"""Syncs that run concurrently, and a replacement that the server rejects."""

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
    """Start nimlab in a separate process."""
    command = [sys.executable, "-m", "nimlab", *arguments, "--lab", str(lab.root)]
    return subprocess.Popen(
        [*command, "--kubeconfig", str(kubeconfig or lab.kubeconfig)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )


def ended(processes: Sequence[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """Wait for all processes; return their exit codes and outputs."""
    outputs = [process.communicate(timeout=120) for process in processes]
    return [(process.returncode, out + err) for process, (out, err) in zip(processes, outputs, strict=True)]


def release_lock(lab: Lab) -> None:
    """Release the lock of a killed sync; otherwise, it would be held until it expires."""
    lease = lab.get("Lease", "nimlab-experiments")
    assert lease is not None
    lab.cluster.replace({**lease, "spec": {}})


def test_concurrent_syncs_run_one_after_another(lab: Lab) -> None:
    world = make_world(lab)
    before = world.bystander_version()
    state = "B"
    for _ in range(3):
        world.write_files(state)
        results = ended([start(lab, "sync", "--lock-timeout", "60s") for _ in range(3)])
        assert [code for code, _ in results] == [0, 0, 0], results
        world.assert_is(state)
        state = OTHER[state]
    assert world.bystander_version() == before
    lease = lab.get("Lease", "nimlab-experiments")
    assert lease is not None
    assert not lease["spec"].get("holderIdentity")


def test_sync_without_lock_timeout_names_the_holder_of_the_lock(lab: Lab, tmp_path: Path) -> None:
    world = make_world(lab)
    world.write_files("B")
    gate = Gate(lambda request: request.is_write and "/statefulsets/" in request.path)

    with run_proxy(lab.kubeconfig, tmp_path) as proxy:
        proxy.fault = gate
        first = start(lab, "sync", kubeconfig=proxy.kubeconfig)
        assert gate.reached.wait(60)
        answer = lab.run("sync")
        gate.opened.set()
        assert answer.code == 1
        assert f"another sync is running: {os.environ.get('USER', 'unknown')}@" in answer.err
        assert f"(pid {first.pid})" in answer.err
        assert ended([first])[0][0] == 0
    world.assert_is("B")


def test_replacement_that_the_server_rejects_deletes_nothing(lab: Lab) -> None:
    """The new object changes an immutable field and is invalid. The old object and its peers are kept."""
    world = make_world(lab)
    world.write_files("B")
    template = lab.root / "templates" / "experiment" / "statefulset.yaml.j2"
    text = template.read_text(encoding="utf-8")
    invalid = text.replace("enableServiceLinks: false", "enableServiceLinks: false\n      dnsPolicy: Never")
    assert invalid != text
    template.write_text(invalid, encoding="utf-8")
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
