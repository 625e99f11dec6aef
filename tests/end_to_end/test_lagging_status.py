"""A StatefulSet's status is behind its pods: peers that nobody has counted yet are restarted all the same."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from nimlab.sandbox.folder_layout import Layout
from nimlab.sandbox.poll import wait_until
from nimlab.sandbox.record import load_record
from tests.end_to_end.test_concurrent_syncs import ended, release_lock, start
from tests.end_to_end.test_orphan import edit, uids
from tests.end_to_end.test_sync import assert_in_sync, synced
from tests.support.api_proxy import Gate, Seen, run_proxy
from tests.support.lab import Lab, Sandbox

pytestmark = pytest.mark.live


@contextmanager
def sleeping(sandbox: Sandbox) -> Iterator[Callable[[], None]]:
    """Hold the controllers still; gives what wakes it, which the end does in any case."""
    record = load_record(Layout(home=sandbox.home))
    assert record is not None
    process = psutil.Process(record.daemons["kube-controller-manager"].pid)
    process.send_signal(signal.SIGSTOP)
    try:
        yield lambda: process.send_signal(signal.SIGCONT)
    finally:
        process.send_signal(signal.SIGCONT)


@pytest.fixture
def blue(lab: Lab) -> Lab:
    """The lab with one experiment of four peers."""
    (lab.root / "experiments" / "purple.yaml").unlink()
    return lab


def wait_for_peers(lab: Lab, count: int) -> list[str]:
    """Wait until so many are there; return who they are."""
    assert wait_until(lambda: len(uids(lab)) == count, within_s=60), uids(lab)
    return uids(lab)


def change_template(lab: Lab) -> None:
    """Ask for what restarts all peers."""
    edit(lab, "terminationGracePeriodSeconds: 5", "terminationGracePeriodSeconds: 1")


def is_update(request: Seen) -> bool:
    """True for the apply of the experiment's StatefulSet."""
    return request.is_write and "/statefulsets/nimp2p-exp-blue" in request.path


def test_peers_made_between_the_look_and_the_update_are_restarted(
    blue: Lab, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Two syncs in quick succession: at the second one's look there is no peer that could restart."""
    gate = Gate(fits=is_update)
    with run_proxy(blue.kubeconfig, tmp_path) as proxy, sleeping(sandbox) as wake:
        synced(blue, "--no-wait")
        change_template(blue)
        proxy.fault = gate
        running = start(blue, "sync", "--timeout", "60s", kubeconfig=proxy.kubeconfig)
        assert gate.reached.wait(60)
        wake()
        before = wait_for_peers(blue, 4)
        gate.opened.set()
        ((code, said),) = ended([running])
    assert code == 0, said
    assert "4 peers of the old revision deleted together" in said
    assert not {*uids(blue)} & {*before}
    assert_in_sync(blue)


def test_peers_that_a_killed_sync_has_left_are_restarted_though_their_controller_hasnt_seen_it(
    blue: Lab, sandbox: Sandbox, tmp_path: Path
) -> None:
    synced(blue)
    before = wait_for_peers(blue, 4)
    change_template(blue)

    def kill(request: Seen, status: int, body: bytes) -> None:
        del status, body
        if is_update(request):
            running.kill()

    with run_proxy(blue.kubeconfig, tmp_path) as proxy, sleeping(sandbox) as wake:
        proxy.answered = kill
        running = start(blue, "sync", kubeconfig=proxy.kubeconfig)
        assert ended([running])[0][0] == -signal.SIGKILL
        release_lock(blue)
        said = blue.run("sync", "--dry-run", "--exit-code")
        assert said.code == 3, said.out
        assert "its controller has not observed the last change yet" in said.out
        assert uids(blue) == before
        proxy.answered = lambda request, status, body: wake() if is_update(request) else None
        running = start(blue, "sync", "--timeout", "60s", kubeconfig=proxy.kubeconfig)
        ((code, said_then),) = ended([running])
    assert code == 0, said_then
    assert len(uids(blue)) == 4
    assert not {*uids(blue)} & {*before}
    assert_in_sync(blue)


def test_controller_that_sees_nothing_any_more_is_told(
    blue: Lab, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced(blue)
    monkeypatch.setattr("nimlab.cluster.apply.write_object._OBSERVED_S", 1.0)
    change_template(blue)
    with sleeping(sandbox):
        said = blue.run("sync")
    assert said.code == 1, said.out
    assert "the StatefulSet controller hasn't seen StatefulSet/" in said.out + said.err
    synced(blue, "--timeout", "60s")
    assert_in_sync(blue)
