from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nimlab.sandbox import daemon_process, down
from nimlab.sandbox.folder_layout import Layout
from nimlab.sandbox.saved_processes import Daemon, Record, save_record
from nimlab.sandbox.start_parts import find_free_ports, is_port_free
from nimlab.sandbox.wait_until import wait_until


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    home = tmp_path / "a sandbox"
    home.mkdir()
    return Layout(home=home)


@pytest.fixture
def sleeper(layout: Layout) -> Iterator[Daemon]:
    daemon = daemon_process.start(["sleep", "300"], log=layout.home.parent / "log", folder=layout.home)
    assert daemon is not None
    yield daemon
    daemon_process.stop([daemon], grace_s=5.0)


def fake_part(folder: Path, name: str, *arguments: str, niceness: int = 0) -> Daemon:
    """Start a copy of the shell that sleeps, with the name and arguments of a part."""
    program = folder / name
    shutil.copy("/bin/sh", program)
    script = "while sleep 0.1; do :; done"
    daemon = daemon_process.start(
        [str(program), "-c", script, *arguments], log=folder / "log", folder=folder, niceness=niceness
    )
    assert daemon is not None
    return daemon


def record_of(daemon: Daemon) -> Record:
    return Record(version="v1", nodes=0, ports={"kube-apiserver": 1}, daemons={"etcd": daemon})


@pytest.mark.process
def test_a_daemon_runs_until_it_is_stopped(sleeper: Daemon) -> None:
    assert daemon_process.is_alive(sleeper)
    daemon_process.stop([sleeper], grace_s=5.0)
    assert not daemon_process.is_alive(sleeper)


@pytest.mark.process
def test_a_process_that_ignores_sigterm_is_killed(layout: Layout) -> None:
    script = 'trap "" TERM; echo ready; while :; do sleep 0.1; done'
    log = layout.home.parent / "log"
    daemon = daemon_process.start(["/bin/sh", "-c", script], log=log, folder=layout.home)
    assert daemon is not None
    assert wait_until(lambda: "ready" in log.read_text(), within_s=5.0)
    daemon_process.stop([daemon], grace_s=0.3)
    assert not daemon_process.is_alive(daemon)


@pytest.mark.process
def test_a_reused_pid_is_not_signalled(layout: Layout, sleeper: Daemon) -> None:
    stale = replace(sleeper, started=sleeper.started - 60)
    assert not daemon_process.is_alive(stale)
    save_record(layout, record_of(stale))
    assert down(layout.home, report=lambda _: None)
    assert daemon_process.is_alive(sleeper)
    assert not layout.home.exists()


@pytest.mark.process
def test_a_daemon_gets_a_minimal_environment(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETCD_NAME", "evil")
    log = layout.home.parent / "log"
    daemon_process.start(["/bin/sh", "-c", "env; echo end"], log=log, folder=layout.home)
    assert wait_until(lambda: "end" in log.read_text(), within_s=5.0)
    assert "ETCD_NAME" not in log.read_text()


@pytest.mark.process
def test_unrecorded_processes_are_found_by_name_and_folder(layout: Layout, tmp_path: Path) -> None:
    stray = fake_part(tmp_path, "kwok", f"--kubeconfig={layout.pki}/kwok.kubeconfig", niceness=7)
    neighbour = fake_part(tmp_path, "etcd", f"--cert-file={layout.home}2/pki/etcd.crt")
    reader = fake_part(tmp_path, "kubectl", f"--kubeconfig={layout.pki}/kwok.kubeconfig")
    try:
        assert daemon_process.find_strays(layout.pki, ()) == (stray,)
        assert daemon_process.find_strays(layout.pki, [stray]) == ()
        assert down(layout.home, report=lambda _: None)
        alive = [daemon_process.is_alive(d) for d in (stray, neighbour, reader)]
        assert alive == [False, True, True]
    finally:
        daemon_process.stop([stray, neighbour, reader], grace_s=5.0)


@pytest.mark.process
def test_unrecorded_processes_are_found_without_their_folder(tmp_path: Path) -> None:
    folder = tmp_path / "programs"
    folder.mkdir()
    removed = Layout(home=tmp_path / "gone" / "sandbox")
    stray = fake_part(folder, "etcd", f"--cert-file={removed.pki}/etcd.crt")
    assert down(removed.home, report=lambda _: None)
    assert not daemon_process.is_alive(stray)


def test_a_port_in_use_is_not_free() -> None:
    first, second = find_free_ports(2)
    assert first != second
    assert is_port_free(first)
    with socket.create_server(("127.0.0.1", first)):
        assert not is_port_free(first)
