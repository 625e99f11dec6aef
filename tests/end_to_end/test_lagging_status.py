"""If the status of a StatefulSet is outdated, peers that it does not count yet are restarted too."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from nimlab.sandbox.folder_layout import Layout
from nimlab.sandbox.saved_processes import load_record
from nimlab.sandbox.wait_until import wait_until
from tests.end_to_end.test_concurrent_syncs import ended, release_lock, start
from tests.end_to_end.test_orphan import edit, uids
from tests.end_to_end.test_sync import assert_in_sync, synced
from tests.support.api_proxy import Gate, Seen, run_proxy
from tests.support.lab import Lab, Sandbox

pytestmark = pytest.mark.live


@contextmanager
def suspended_controllers(sandbox: Sandbox) -> Iterator[Callable[[], None]]:
    """Suspend the controllers; yield a function that resumes them. The end of the block also resumes them."""
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
    """Return the lab, with one experiment of four peers."""
    (lab.root / "experiments" / "purple.yaml").unlink()
    return lab


def wait_for_peers(lab: Lab, count: int) -> list[str]:
    """Wait until this number of peers exists; return their uids."""
    assert wait_until(lambda: len(uids(lab)) == count, within_s=60), uids(lab)
    return uids(lab)


def change_template(lab: Lab) -> None:
    """Change the template in a way that restarts all peers."""
    edit(lab, "terminationGracePeriodSeconds: 5", "terminationGracePeriodSeconds: 1")


def is_update(request: Seen) -> bool:
    """Return True if the request writes the StatefulSet of blue."""
    return request.is_write and "/statefulsets/nimp2p-exp-blue" in request.path


def test_peers_created_between_observation_and_update_are_restarted(
    blue: Lab, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Two syncs in quick succession: when the second sync observes the cluster, no peer exists yet."""
    gate = Gate(matches=is_update)
    with run_proxy(blue.kubeconfig, tmp_path) as proxy, suspended_controllers(sandbox) as resume:
        synced(blue, "--no-wait")
        change_template(blue)
        proxy.fault = gate
        running = start(blue, "sync", "--timeout", "60s", kubeconfig=proxy.kubeconfig)
        assert gate.reached.wait(60)
        resume()
        before = wait_for_peers(blue, 4)
        gate.opened.set()
        ((code, output),) = ended([running])
    assert code == 0, output
    assert "4 peers of the old revision deleted together" in output
    assert not {*uids(blue)} & {*before}
    assert_in_sync(blue)


def test_outdated_peers_after_a_killed_sync_are_restarted_although_the_controller_lags(
    blue: Lab, sandbox: Sandbox, tmp_path: Path
) -> None:
    synced(blue)
    before = wait_for_peers(blue, 4)
    change_template(blue)

    def kill(request: Seen, status: int, body: bytes) -> None:
        del status, body
        if is_update(request):
            running.kill()

    with run_proxy(blue.kubeconfig, tmp_path) as proxy, suspended_controllers(sandbox) as resume:
        proxy.on_response = kill
        running = start(blue, "sync", kubeconfig=proxy.kubeconfig)
        assert ended([running])[0][0] == -signal.SIGKILL
        release_lock(blue)
        dry_run = blue.run("sync", "--dry-run", "--exit-code")
        assert dry_run.code == 3, dry_run.out
        assert "its controller has not observed the last change yet" in dry_run.out
        assert uids(blue) == before
        proxy.on_response = lambda request, status, body: resume() if is_update(request) else None
        running = start(blue, "sync", "--timeout", "60s", kubeconfig=proxy.kubeconfig)
        ((code, output),) = ended([running])
    assert code == 0, output
    assert len(uids(blue)) == 4
    assert not {*uids(blue)} & {*before}
    assert_in_sync(blue)


def test_controller_that_observes_no_changes_is_reported(
    blue: Lab, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced(blue)
    monkeypatch.setattr("nimlab.cluster.apply.restart_peers._OBSERVED_TIMEOUT_S", 1.0)
    change_template(blue)
    with suspended_controllers(sandbox):
        answer = blue.run("sync")
    assert answer.code == 1, answer.out
    expected = "the StatefulSet controller has not observed the last change of StatefulSet/"
    assert expected in answer.out + answer.err
    synced(blue, "--timeout", "60s")
    assert_in_sync(blue)
