"""A signal in any phase of a command: work in progress is finished, no new work starts, exit code 130."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.end_to_end.test_concurrent_syncs import ended, start
from tests.faults.two_states import make_world
from tests.support.api_proxy import Broken, Gate, Seen, run_proxy
from tests.support.lab import Lab
from tests.support.paths import REPOSITORY

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
BUSY = Broken(status=429, body={"kind": "Status", "message": "busy"}, headers={"Retry-After": "30"})


def await_word(running: subprocess.Popen[str], word: str) -> None:
    """Read the output of the process until a line begins with `word`."""
    assert running.stderr is not None
    for line in running.stderr:
        if line.startswith(word):
            return
    pytest.fail(f"the process ended before it printed `{word}`")


@pytest.mark.live
@pytest.mark.parametrize("number", SIGNALS)
def test_signal_during_the_writes_ends_them_and_the_changes_are_reported(
    lab: Lab, tmp_path: Path, number: signal.Signals
) -> None:
    world = make_world(lab)
    world.write_files("B")
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
        ((code, output),) = ended([running])
    assert code == 130, output
    assert "created Service/" in output, "the write in progress is finished and reported"
    assert "not-attempted" in output
    assert "StatefulSet/" in output
    assert lab.get("StatefulSet", "nimp2p-exp-blue") is not None, "nothing is pruned after the signal"
    lease = lab.get("Lease", "nimlab-experiments")
    assert lease is not None
    assert not lease["spec"].get("holderIdentity")
    assert lab.run("sync").code == 0
    world.assert_is("B")


@pytest.mark.live
@pytest.mark.parametrize("arguments", [("sync",), ("sync", "--dry-run"), ("list",)])
def test_signal_during_the_observation_prevents_all_writes(
    lab: Lab, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    world = make_world(lab)
    world.write_files("B")
    gate = Gate(lambda request: "/services" in request.path)

    with run_proxy(lab.kubeconfig, tmp_path) as proxy:
        proxy.fault = gate
        running = start(lab, *arguments, kubeconfig=proxy.kubeconfig)
        assert gate.reached.wait(60)
        running.send_signal(signal.SIGINT)
        await_word(running, "stopping")
        gate.opened.set()
        ((code, output),) = ended([running])
        assert proxy.writes == []
    assert code == 130, output
    assert "interrupted before anything was changed" in output
    world.write_files("A")
    world.assert_is("A")


@pytest.mark.live
@pytest.mark.parametrize("number", SIGNALS)
def test_signal_ends_the_wait_for_the_lock(lab: Lab, number: signal.Signals) -> None:
    world = make_world(lab)
    world.write_files("B")
    lease = lab.get("Lease", "nimlab-experiments")
    assert lease is not None
    spec = {"holderIdentity": "ada", "leaseDurationSeconds": 60, "renewTime": "2999-01-01T00:00:00.000000Z"}
    held = lab.cluster.replace({**lease, "spec": spec})
    running = start(lab, "sync", "--lock-timeout", "60s")
    await_word(running, "lock     waiting for ada")
    code, output = interrupt(running, number)
    assert code == 130, output
    assert lab.get("Lease", "nimlab-experiments") == held
    lab.cluster.replace({**held, "spec": {}})
    world.write_files("A")
    world.assert_is("A")


@pytest.mark.live
@pytest.mark.parametrize("path", ["/services?", "/statefulsets/"], ids=["looking", "writing"])
def test_signal_ends_a_pause_that_the_server_requested(lab: Lab, tmp_path: Path, path: str) -> None:
    world = make_world(lab)
    world.write_files("B")
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
        code, output = interrupt(running, signal.SIGINT)
    assert code == 130, output
    assert "interrupted" in output
    assert lab.run("sync").code == 0
    world.assert_is("B")


def interrupt(running: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    """Send a signal to a waiting process, which must end at once; return its exit code and output."""
    begun_s = time.monotonic()
    running.send_signal(number)
    ((code, output),) = ended([running])
    assert time.monotonic() - begun_s < 15
    return code, output


@pytest.mark.live
def test_signal_ends_a_followed_log_at_once(lab: Lab, tmp_path: Path) -> None:
    gate = Gate(lambda request: "/log?" in request.path)
    with run_proxy(lab.kubeconfig, tmp_path) as proxy:
        proxy.fault = gate
        running = start(lab, "logs", "blue", "--peer", "0", "--follow", kubeconfig=proxy.kubeconfig)
        assert gate.reached.wait(60)
        code, output = interrupt(running, signal.SIGINT)
        gate.opened.set()
    assert code == 130, output
    assert output.endswith("interrupted\n")


@pytest.mark.live
def test_lock_is_released_although_the_server_fails_after_the_signal(lab: Lab, tmp_path: Path) -> None:
    world = make_world(lab)
    world.write_files("B")
    gate = Gate(lambda request: request.is_write and "/services/" in request.path)
    stumbled = threading.Event()

    def fault(request: Seen) -> Broken | None:
        gate(request)
        if not gate.opened.is_set() or "/leases/" not in request.path or stumbled.is_set():
            return None
        stumbled.set()
        return Broken(status=503, body={"kind": "Status", "message": "a moment"})

    with run_proxy(lab.kubeconfig, tmp_path) as proxy:
        proxy.fault = fault
        running = start(lab, "sync", "--no-wait", kubeconfig=proxy.kubeconfig)
        assert gate.reached.wait(60)
        running.send_signal(signal.SIGHUP)
        await_word(running, "stopping")
        gate.opened.set()
        ((code, output),) = ended([running])
    assert code == 130, output
    assert stumbled.is_set()
    lease = lab.get("Lease", "nimlab-experiments")
    assert lease is not None
    assert not lease["spec"].get("holderIdentity")


def run_program(
    folder: Path, number: signal.Signals, before: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run nimlab after the Python code `before`, which arranges a call of `kill()` to send the signal."""
    head = "import atexit, os, signal, sys\nkill = lambda *_: os.kill(os.getpid(), NUMBER)\n"
    tail = "\nfrom nimlab.cli import entry\nentry()"
    return subprocess.run(
        [sys.executable, "-c", head.replace("NUMBER", str(number.value)) + before + tail, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )


@pytest.mark.process
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    "module",
    [
        "nimlab.cli.streams",
        "nimlab.cli.app",
        "typer",
        "nimlab.errors",
        "nimlab.cli.find_lab_folder",
        "nimlab.files.load",
        "yaml",
    ],
)
def test_signal_during_the_imports_ends_the_process_without_a_traceback(
    lab_folder: Path, module: str, number: signal.Signals
) -> None:
    before = f"""
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            kill()
sys.meta_path.insert(0, Finder())
"""
    done = run_program(lab_folder, number, before, "validate")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


@pytest.mark.process
@pytest.mark.parametrize("number", SIGNALS)
def test_signal_after_the_first_line_ends_the_command_in_order(
    lab_folder: Path, number: signal.Signals
) -> None:
    before = "import nimlab.workflow.session as session\nsession.read_desired_lab = kill"
    done = run_program(lab_folder, number, before, "sync", "--kubeconfig", "nowhere")
    assert done.returncode == 130
    first, *rest = done.stderr.splitlines()
    assert first.startswith("cluster  ")
    assert rest == ["interrupted"]


@pytest.mark.process
def test_signal_that_python_swallows_is_sent_again(lab_folder: Path) -> None:
    before = """
import nimlab.cli.find_lab_folder as root
class Last:
    def __del__(self):
        kill()
def find_root(start):
    Last()
    while True:
        signal.pause()
root.find_root = find_root
"""
    done = run_program(lab_folder, signal.SIGTERM, before, "validate")
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


@pytest.mark.process
@pytest.mark.parametrize("number", SIGNALS)
def test_signal_after_the_end_changes_nothing(lab_folder: Path, number: signal.Signals) -> None:
    done = run_program(lab_folder, number, "atexit.register(kill)", "validate")
    assert (done.returncode, done.stdout, done.stderr) == (0, "2 experiments, no problems\n", "")


@pytest.mark.process
@pytest.mark.parametrize("number", SIGNALS)
def test_signal_during_the_start_of_the_sandbox_ends_it_in_order(
    lab_folder: Path, number: signal.Signals
) -> None:
    before = "import nimlab.sandbox.build_programs as build\nbuild.find_go_version = kill"
    done = run_program(lab_folder, number, before, "sandbox", "up")
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


@pytest.mark.process
@pytest.mark.parametrize("number", SIGNALS)
def test_signal_during_an_edit_leaves_the_file_unchanged(lab_folder: Path, number: signal.Signals) -> None:
    path = lab_folder / "experiments" / "blue.yaml"
    text = path.read_bytes()
    before = "import nimlab.files.safe_write as writing\nwriting.os.fsync = kill"
    done = run_program(lab_folder, number, before, "scale", "blue", "--peers", "9")
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
    assert path.read_bytes() == text
    assert sorted(p.name for p in path.parent.iterdir()) == ["blue.yaml", "purple.yaml"]
