"""The real control plane: it starts, is repaired after every kind of damage, and leaves nothing behind."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from nimlab.errors import SandboxError
from nimlab.sandbox import (
    PartState,
    SandboxState,
    Step,
    build_programs,
    down,
    find_programs,
    is_up,
    read_state,
    up,
)
from nimlab.sandbox.folder_layout import Layout
from nimlab.sandbox.http_client import SandboxClient
from nimlab.sandbox.saved_processes import load_record
from nimlab.sandbox.start_parts import is_port_free
from nimlab.sandbox.state_values import PART_NAMES
from nimlab.sandbox.wait_until import wait_until
from nimlab.value_cache import default_cache

pytestmark = pytest.mark.live

PODS = "/api/v1/namespaces/default/pods"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
KEPT = f"{CONFIG_MAPS}/kept"


def ignore(_: Step) -> None:
    """Ignore a step of progress."""


@pytest.fixture(scope="module", autouse=True)
def _programs(pytestconfig: pytest.Config) -> None:
    """Skip the test if the programs are not built yet, because building them takes minutes.

    With `--require-live`, the test fails instead.
    """
    cached = find_programs.find_cached(default_cache(), build_programs.find_go_version())
    if find_programs.find_programs(os.environ, cached, ignore) is None:
        reason = "the sandbox's programs are not built: run `nimlab sandbox build` once"
        pytest.fail(reason) if pytestconfig.getoption("--require-live") else pytest.skip(reason)


def connect(home: Path) -> SandboxClient:
    """Return a connection to the API server of a running sandbox."""
    record = load_record(Layout(home=home))
    assert record is not None
    return SandboxClient(Layout(home=home), record.ports["kube-apiserver"])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the folder of a sandbox that contains a ConfigMap (`KEPT`).

    All tests of this module that run in the same worker use it, and leave it running.
    """
    folder = tmp_path_factory.mktemp("a sandbox") / "home"
    up(folder, cache=default_cache(), report=ignore)
    with connect(folder) as connection:
        kept = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept"}}
        assert connection.request("POST", CONFIG_MAPS, kept).ok
    yield folder
    down(folder, report=ignore)
    assert find_processes(folder) == []


@pytest.fixture
def client(home: Path) -> Iterator[SandboxClient]:
    with connect(home) as connection:
        yield connection


@pytest.fixture
def other_home(tmp_path: Path) -> Iterator[Path]:
    """Return a folder for a second sandbox; a flag that is a list would be split at the comma in the path."""
    folder = tmp_path / "an, other" / "home"
    yield folder
    down(folder, report=ignore)


def find_processes(home: Path) -> list[str]:
    """Return the names of the running processes whose command line contains the folder."""
    names = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess):  # other processes may end during the loop
            command = process.cmdline()
            if process.status() != psutil.STATUS_ZOMBIE and f"{home}/" in " ".join(command):
                names.append(Path(command[0]).name)
    return names


def repair(home: Path, nodes: int = 3) -> SandboxState:
    return up(home, nodes=nodes, cache=default_cache(), report=ignore)


def pids(state: SandboxState | None) -> dict[str, int | None]:
    assert state is not None
    return {part.name: part.pid for part in state.parts}


def read_parts(home: Path) -> tuple[PartState, ...]:
    state = read_state(home)
    assert state is not None
    return state.parts


def kill(home: Path, state: SandboxState, *names: str) -> None:
    for part in state.parts:
        if part.name in names:
            assert part.pid is not None
            os.kill(part.pid, signal.SIGKILL)
    wait_until(
        lambda: not any(p.alive for p in read_parts(home) if p.name in names),
        within_s=5.0,
    )


def make_pod(name: str, image: str, **spec: Any) -> Mapping[str, object]:
    containers = [{"name": "main", "image": image}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": containers, **spec},
    }


def read_pod(client: SandboxClient, name: str) -> Any:
    return client.request("GET", f"{PODS}/{name}").body.get("status", {})


@pytest.mark.serial
def test_second_up_changes_nothing_and_is_fast(home: Path) -> None:
    before = read_state(home)
    began = time.monotonic()
    after = repair(home)
    assert time.monotonic() - began < 0.5
    assert before == after
    assert after.running
    assert after.version.startswith("v1.34.")
    assert is_up(home)


def test_only_the_owner_can_read_the_files(home: Path) -> None:
    layout = Layout(home=home)
    modes = {
        path: stat.S_IMODE(path.stat().st_mode)
        for path in [home, layout.kubeconfig, layout.record, layout.pki, *layout.pki.iterdir()]
    }
    wrong = {p: oct(m) for p, m in modes.items() if m != (0o700 if p.is_dir() else 0o600)}
    assert wrong == {}
    assert not (layout.pki / "ca.key").exists()


def test_all_ports_are_on_the_loopback_interface(home: Path) -> None:
    state = read_state(home)
    assert state is not None
    listening = [
        connection.laddr.ip
        for pid in pids(state).values()
        for connection in psutil.Process(pid).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert set(listening) == {"127.0.0.1"}


@pytest.mark.parametrize("server", ["kube-apiserver", "etcd"])
def test_servers_and_clients_require_certificates_of_the_sandbox(home: Path, server: str) -> None:
    layout = Layout(home=home)
    record = load_record(layout)
    assert record is not None
    address = ("127.0.0.1", record.ports[server])
    without_ca = http.client.HTTPSConnection(*address, context=ssl.create_default_context())
    with pytest.raises(ssl.SSLCertVerificationError):
        without_ca.request("GET", "/")
    without_client_certificate = ssl.create_default_context(cafile=str(layout.pki / "ca.crt"))
    connection = http.client.HTTPSConnection(*address, context=without_client_certificate)
    try:
        connection.request("GET", "/version")
        assert connection.getresponse().status == 401
    except (OSError, http.client.HTTPException):
        assert server == "etcd"  # etcd closes the connection without a response
    finally:
        connection.close()


def test_the_kubeconfig_is_complete_and_verifies_the_server(home: Path) -> None:
    document = json.loads((home / "kubeconfig").read_text())
    state = read_state(home)
    assert state is not None
    assert document["current-context"] == "nimlab-sandbox"
    assert set(document["clusters"][0]["cluster"]) == {"server", "certificate-authority-data"}
    assert document["clusters"][0]["cluster"]["server"] == state.server


def test_a_pod_runs_with_its_sidecar_ready(client: SandboxClient) -> None:
    init_containers = [
        {"name": "once", "image": "some/init:1"},
        {"name": "sidecar", "image": "some/sidecar:1", "restartPolicy": "Always"},
    ]
    assert client.request("POST", PODS, make_pod("good", "some/image:1", initContainers=init_containers)).ok
    assert wait_until(lambda: read_pod(client, "good").get("phase") == "Running", within_s=10.0)
    status = read_pod(client, "good")
    assert status["podIP"].startswith("198.18.")
    assert [c["ready"] for c in status["containerStatuses"]] == [True]
    once, sidecar = status["initContainerStatuses"]
    assert "terminated" in once["state"]
    assert (sidecar["started"], "running" in sidecar["state"]) == (True, True)
    client.request("DELETE", f"{PODS}/good")
    assert wait_until(lambda: client.request("GET", f"{PODS}/good").status == 404, within_s=10.0)


def test_a_missing_image_is_simulated(client: SandboxClient) -> None:
    assert client.request("POST", PODS, make_pod("bad", "some/image:no-such-image")).ok
    assert wait_until(lambda: "containerStatuses" in read_pod(client, "bad"), within_s=10.0)
    status = read_pod(client, "bad")
    assert status["phase"] == "Pending"
    assert status["containerStatuses"][0]["state"] == {
        "waiting": {
            "reason": "ImagePullBackOff",
            "message": "image some/image:no-such-image not found",
        }
    }
    client.request("DELETE", f"{PODS}/bad")


def test_the_pods_of_a_statefulset_run_and_are_deleted_with_it(client: SandboxClient) -> None:
    sets = "/apis/apps/v1/namespaces/default/statefulsets"
    labels = {"app": "peers"}
    template = {"metadata": {"labels": labels}, "spec": make_pod("x", "some/image:1")["spec"]}
    spec = {
        "serviceName": "peers",
        "replicas": 3,
        "podManagementPolicy": "Parallel",
        "selector": {"matchLabels": labels},
        "template": template,
    }
    body = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "peers"}}
    assert client.request("POST", sets, {**body, "spec": spec}).ok
    peers = f"{PODS}?labelSelector=app%3Dpeers"

    def count_ready() -> int:
        return int(client.request("GET", f"{sets}/peers").body["status"].get("readyReplicas", 0))

    assert wait_until(lambda: count_ready() == 3, within_s=10.0)
    client.request("DELETE", f"{sets}/peers?propagationPolicy=Background")
    assert wait_until(lambda: not client.request("GET", peers).body["items"], within_s=15.0)


def test_nodes_are_added_and_removed(home: Path, client: SandboxClient) -> None:
    def list_names() -> list[str]:
        return [n["metadata"]["name"] for n in client.request("GET", "/api/v1/nodes").body["items"]]

    assert repair(home, nodes=5).nodes == 5
    assert list_names() == [f"sim-{i}" for i in range(1, 6)]
    assert repair(home, nodes=3).nodes == 3
    assert list_names() == [f"sim-{i}" for i in range(1, 4)]
    with pytest.raises(SandboxError):
        repair(home, nodes=0)


@pytest.mark.parametrize("names", [*((n,) for n in PART_NAMES), PART_NAMES], ids="+".join)
def test_only_killed_parts_are_restarted(home: Path, client: SandboxClient, names: tuple[str, ...]) -> None:
    before = read_state(home)
    assert before is not None
    credentials = (home / "kubeconfig").read_bytes()
    kill(home, before, *names)
    broken = read_state(home)
    assert broken is not None
    assert not broken.running
    assert {p.name for p in broken.parts if not p.alive} >= set(names)
    assert not is_up(home)
    after = repair(home)
    assert after.running
    assert {n for n in PART_NAMES if pids(after)[n] != pids(before)[n]} >= set(names)
    if "kube-apiserver" not in names:  # the controller-manager may exit without the API server
        assert {n for n in PART_NAMES if pids(after)[n] != pids(before)[n]} == set(names)
    assert (home / "kubeconfig").read_bytes() == credentials
    assert client.request("GET", KEPT).ok


def test_users_have_priority_over_servers_and_servers_over_controllers(home: Path) -> None:
    """Without priorities, thousands of starting pods would leave no CPU time for a user's `list`."""
    state = read_state(home)
    assert state is not None
    own, lowest = os.getpriority(os.PRIO_PROCESS, 0), 19
    servers = {"etcd", "kube-apiserver"}
    expected = {n: {min(lowest, own + (5 if n in servers else 15))} for n in PART_NAMES}

    def read_niceness() -> dict[str, set[int]]:
        return {
            name: {os.getpriority(os.PRIO_PROCESS, thread.id) for thread in psutil.Process(pid).threads()}
            for name, pid in pids(state).items()
            if pid is not None
        }

    # On a busy machine, `nice` may not have run yet for a part that the previous test restarted.
    wait_until(lambda: read_niceness() == expected, within_s=5.0)
    assert read_niceness() == expected
    for name, pid in pids(state).items():
        share = Path(f"/proc/{pid}/autogroup")
        if share.exists() and os.access(share, os.W_OK):  # only if the kernel uses autogroups
            assert share.read_text().split()[-2:] == ["nice", "5" if name in servers else "15"]


def test_requests_of_controllers_are_queued_and_those_of_users_are_not(client: SandboxClient) -> None:
    """Without the queue, a user's `list` would wait behind hundreds of the controllers' requests."""

    def count_requests() -> dict[str, int]:
        matches = re.findall(
            r'^apiserver_flowcontrol_dispatched_requests_total\{flow_schema="([^"]+)".*\} ([0-9]+)$',
            client.request("GET", "/metrics").body,
            re.MULTILINE,
        )
        return {flow: int(count) for flow, count in matches}

    before = count_requests()
    assert client.request("POST", PODS, make_pod("waits", "some/image:1")).ok
    assert wait_until(lambda: read_pod(client, "waits").get("phase") == "Running", within_s=10.0)
    assert client.request("DELETE", f"{PODS}/waits").ok
    grown = {flow for flow, count in count_requests().items() if count > before.get(flow, 0)}
    # `probes` counts health checks, which any program may send.
    assert grown - {"probes"} == {"exempt", "nimlab-sandbox-controllers"}


@pytest.mark.serial
def test_pods_run_soon_after_kwok_was_killed(home: Path, client: SandboxClient) -> None:
    before = read_state(home)
    assert before is not None
    kill(home, before, "kwok")
    repair(home)
    assert client.request("POST", PODS, make_pod("later", "some/image:1")).ok
    assert wait_until(lambda: read_pod(client, "later").get("phase") == "Running", within_s=10.0)
    client.request("DELETE", f"{PODS}/later")


@pytest.mark.parametrize("server", ["kube-apiserver", "etcd"])
def test_a_server_whose_port_was_taken_moves_to_another_port(home: Path, server: str) -> None:
    before = load_record(Layout(home=home))
    state = read_state(home)
    assert before is not None
    assert state is not None
    kill(home, state, server)
    port = before.ports[server]
    assert wait_until(
        lambda: is_port_free(port), within_s=5.0
    )  # the killed process may occupy it for a moment
    with socket.create_server(("127.0.0.1", port)):
        after = repair(home)
    record = load_record(Layout(home=home))
    assert record is not None
    assert after.running
    assert record.ports[server] != before.ports[server]
    document = json.loads((home / "kubeconfig").read_text())
    assert document["clusters"][0]["cluster"]["server"] == after.server
    with connect(home) as client:
        assert client.request("GET", KEPT).ok


def test_an_unrecorded_process_is_replaced(home: Path) -> None:
    """Simulate that `up` was killed between the start of a process and its record."""
    layout = Layout(home=home)
    document = json.loads(layout.record.read_text())
    del document["daemons"]["kwok"]
    layout.record.write_text(json.dumps(document))
    assert repair(home).running
    assert sorted(find_processes(home)) == sorted(PART_NAMES)


def test_up_completes_an_up_that_was_killed(other_home: Path) -> None:
    """Run `up` in a process that kills itself after the first part has started, then run `up` and `down`."""
    code = (
        "import os, sys; from pathlib import Path\n"
        "from nimlab.value_cache import default_cache; from nimlab.sandbox import up\n"
        "def report(step):\n"
        "    if step.text == 'kube-apiserver': os.kill(os.getpid(), 9)\n"
        "up(Path(sys.argv[1]), cache=default_cache(), report=report)"
    )
    result = subprocess.run([sys.executable, "-c", code, str(other_home)], check=False)
    assert result.returncode == -signal.SIGKILL
    partial = read_state(other_home)
    assert partial is not None
    assert not partial.running
    assert [p.name for p in partial.parts if p.alive] == ["etcd"]
    complete = repair(other_home)
    assert complete.running
    assert pids(complete)["etcd"] == pids(partial)["etcd"]
    assert down(other_home, report=ignore)
    assert list(other_home.parent.iterdir()) == []
    assert find_processes(other_home) == []
    assert not down(other_home, report=ignore)


def test_missing_credentials_are_replaced_and_the_data_is_kept(home: Path) -> None:
    (home / "pki" / "admin.key").unlink()
    assert read_state(home) is not None
    assert repair(home).running
    with connect(home) as client:
        assert client.request("GET", KEPT).ok


def test_two_concurrent_ups_create_one_sandbox(home: Path) -> None:
    before = read_state(home)
    assert before is not None
    kill(home, before, "kube-scheduler", "kwok")
    states: list[SandboxState] = []
    threads = [threading.Thread(target=lambda: states.append(repair(home))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert states[0] == states[1]
    assert len(find_processes(home)) == len(PART_NAMES)


def test_a_part_that_cannot_start_is_reported_with_the_end_of_its_log(
    tmp_path: Path, other_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "assets" / "etcd"
    program.parent.mkdir()
    program.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo etcd Version: 3.6.4 && exit\n'
        "echo the disk is made of cheese >&2\nexit 1\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(program.parent))
    with pytest.raises(SandboxError, match=r"etcd exited while .*\n.*made of cheese") as caught:
        repair(other_home)
    assert caught.value.where == str(other_home / "logs" / "etcd.log")
    assert down(other_home, report=ignore)
    assert not other_home.exists()


def test_a_foreign_folder_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    with pytest.raises(SandboxError, match=r"thesis\.tex"):
        repair(tmp_path / "home")
    with pytest.raises(SandboxError, match=r"thesis\.tex"):
        down(tmp_path / "home", report=ignore)
    assert (tmp_path / "home" / "thesis.tex").read_text() == "years of work"
