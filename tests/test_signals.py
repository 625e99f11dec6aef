"""SIGINT and SIGTERM, wherever a sync is: what is under way is finished, nothing is begun, exit code 130."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.faults.world import make_world
from tests.live import Lab
from tests.proxy import Broken, Gate, Seen, run_proxy
from tests.test_together import ended, start

pytestmark = pytest.mark.live

BUSY = Broken(status=429, body={"kind": "Status", "message": "busy"}, headers={"Retry-After": "30"})


def await_word(running: subprocess.Popen[str], word: str) -> None:
    """Read what the process says until a line begins with the word."""
    assert running.stderr is not None
    for line in running.stderr:
        if line.startswith(word):
            return
    pytest.fail(f"it ended before it said `{word}`")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_amid_the_writes_ends_them_and_says_what_was_done(
    lab: Lab, tmp_path: Path, number: signal.Signals
) -> None:
    world = make_world(lab)
    world.ask_for("B")
    gate = Gate(
        lambda request: request.is_write and "/services/" in request.path and request.method == "PATCH"
    )

    with run_proxy(lab.kubeconfig, tmp_path) as proxy:
        proxy.fault = gate
        running = start(lab, "sync", kubeconfig=proxy.kubeconfig)
        assert gate.reached.wait(60)
        running.send_signal(number)
        await_word(running, "stopping")
        gate.opened.set()
        ((code, said),) = ended([running])
    assert code == 130, said
    assert "created Service/" in said, "what was under way is finished and told"
    assert "not-attempted" in said
    assert "StatefulSet/" in said
    assert lab.get("StatefulSet", "nimp2p-exp-blue") is not None, "nothing is pruned after that"
    lease = lab.get("Lease", "nimlab-experiments")
    assert lease is not None
    assert not lease["spec"].get("holderIdentity")
    assert lab.run("sync").code == 0
    world.assert_is("B")


@pytest.mark.parametrize("arguments", [("sync",), ("sync", "--dry-run"), ("list",)])
def test_signal_amid_the_look_begins_nothing(lab: Lab, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    world = make_world(lab)
    world.ask_for("B")
    gate = Gate(lambda request: "/services" in request.path)

    with run_proxy(lab.kubeconfig, tmp_path) as proxy:
        proxy.fault = gate
        running = start(lab, *arguments, kubeconfig=proxy.kubeconfig)
        assert gate.reached.wait(60)
        running.send_signal(signal.SIGINT)
        await_word(running, "stopping")
        gate.opened.set()
        ((code, said),) = ended([running])
        assert proxy.writes == []
    assert code == 130, said
    assert "interrupted before anything was changed" in said
    world.ask_for("A")
    world.assert_is("A")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_while_it_waits_for_the_lock_ends_it(lab: Lab, number: signal.Signals) -> None:
    world = make_world(lab)
    world.ask_for("B")
    lease = lab.get("Lease", "nimlab-experiments")
    assert lease is not None
    spec = {"holderIdentity": "ada", "leaseDurationSeconds": 60, "renewTime": "2999-01-01T00:00:00.000000Z"}
    held = lab.cluster.replace({**lease, "spec": spec})
    running = start(lab, "sync", "--lock-timeout", "60s")
    await_word(running, "lock     waiting for ada")
    code, said = interrupt(running, number)
    assert code == 130, said
    assert lab.get("Lease", "nimlab-experiments") == held
    lab.cluster.replace({**held, "spec": {}})
    world.ask_for("A")
    world.assert_is("A")


@pytest.mark.parametrize("path", ["/services?", "/statefulsets/"], ids=["looking", "writing"])
def test_signal_is_heard_while_the_server_asks_for_a_pause(lab: Lab, tmp_path: Path, path: str) -> None:
    world = make_world(lab)
    world.ask_for("B")
    with run_proxy(lab.kubeconfig, tmp_path) as proxy:
        reached = threading.Event()

        def fault(request: Seen) -> Broken | None:
            if path not in request.path or (path == "/statefulsets/" and not request.is_write):
                return None
            reached.set()
            return BUSY

        proxy.fault = fault
        running = start(lab, "sync", "--no-wait", kubeconfig=proxy.kubeconfig)
        assert reached.wait(60)
        code, said = interrupt(running, signal.SIGINT)
    assert code == 130, said
    assert "interrupted" in said
    assert lab.run("sync").code == 0
    world.assert_is("B")


def interrupt(running: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    """Send a signal to what waits for something; it has to end at once, not when that comes."""
    begun_s = time.monotonic()
    running.send_signal(number)
    ((code, said),) = ended([running])
    assert time.monotonic() - begun_s < 15
    return code, said
