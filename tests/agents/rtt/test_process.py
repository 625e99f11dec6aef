"""The exporter as a process (`python -m nimlab.agents.rtt`): sockets, metrics, shutdown."""

from __future__ import annotations

import ast
import json
import os
import random
import socket
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import prometheus_client
import pytest

import nimlab.agents.rtt
from nimlab.agents.rtt.metrics import CATALOG
from tests.agents.rtt.dns_server import DnsServer, Mood, Zone, serve_dns
from tests.agents.rtt.exposition import Exposition
from tests.agents.rtt.relay import delay_datagrams
from tests.agents.rtt.world import (
    DOMAIN,
    Running,
    bare_environment,
    free_port,
    measure_connect_s,
    run_exporter,
)
from tests.support.paths import REPOSITORY

pytestmark = [pytest.mark.process, pytest.mark.serial]

PEERS = {f"p-{n}": f"127.0.6.{n + 1}" for n in range(9)}


@pytest.fixture
def zone() -> Zone:
    return Zone(domain=DOMAIN)


@pytest.fixture
def dns(zone: Zone) -> Iterator[DnsServer]:
    with serve_dns(zone) as server:
        yield server


@contextmanager
def peers_running(folder: Path, dns: DnsServer, count: int, **settings: object) -> Iterator[list[Running]]:
    """Start `count` exporters, each listed in the zone."""
    with ExitStack() as stack:
        for name, address in [*PEERS.items()][:count]:
            dns.zone.pods[name] = (address, free_port(address))
        yield [
            stack.enter_context(run_exporter(folder, dns, name, *dns.zone.pods[name], settings))
            for name in [*PEERS][:count]
        ]


def success(read: Exposition, method: str = "tcp") -> float:
    return read.value("nimlab_rtt_probes_total", method=method, result="success")


def has_counted(metric: str, count: float, **labels: str) -> Callable[[Exposition], bool]:
    return lambda read: read.value(metric, **labels) >= count


def loss_of(peer: str, method: str = "tcp") -> Callable[[Exposition], float | None]:
    return lambda read: read.get("nimlab_rtt_peer_loss_ratio", peer=peer, method=method)


def test_peers_probe_each_other_and_a_dead_peer_is_lost_then_removed(
    tmp_path: Path, dns: DnsServer, zone: Zone
) -> None:
    with peers_running(tmp_path, dns, 3, linger_s=1, window_probes=5) as (first, second, third):
        for running in (first, second, third):
            read = running.wait_for(lambda read: success(read) >= 6)
            assert read.value("nimlab_rtt_peers_sampled") == 2
            assert read.value("nimlab_rtt_process_timed_total", method="tcp") == 0
            assert running.fetch("/readyz")[0] == running.fetch("/healthz")[0] == 200
        third.process.kill()
        died = first.wait_for(lambda read: loss_of("p-2")(read) == 1)
        assert loss_of("p-1")(died) == 0
        assert died.get("nimlab_rtt_peer_last_seconds", peer="p-2", method="tcp") is None
        assert died.value("nimlab_rtt_probes_total", method="tcp", result="refused") >= 5
        del zone.pods["p-2"]
        remaining = first.wait_for(lambda read: read.value("nimlab_rtt_peers_sampled") == 1)
        assert loss_of("p-2")(remaining) == 1  # its series remain for the linger time
        removed = first.wait_for(lambda read: loss_of("p-2")(read) is None)
        assert removed.labels_of("nimlab_rtt_peer_loss_ratio", "peer") == {"p-1"}
        assert loss_of("p-1")(removed) == 0


def test_the_median_agrees_with_an_independent_measurement(
    tmp_path: Path, dns: DnsServer, figure: Callable[[str], None]
) -> None:
    with peers_running(tmp_path, dns, 2, interval_s=0.05, timeout_s=0.02) as (first, _):
        place = dns.zone.pods["p-1"]
        seen: list[float] = []
        own: list[float] = []
        for number in range(1, 22):
            read = first.wait_for(
                has_counted("nimlab_rtt_probes_total", number, method="tcp", result="success")
            )
            last_s = read.get("nimlab_rtt_peer_last_seconds", peer="p-1", method="tcp")
            assert last_s is not None
            seen.append(last_s)
            own += measure_connect_s(*place, count=11)
    median_s, own_s = statistics.median(seen), statistics.median(own)
    figure(
        f"rtt: median TCP handshake on loopback {median_s * 1e6:.0f} us by the exporter, "
        f"{own_s * 1e6:.0f} us by connect() in the test"
    )
    assert abs(median_s - own_s) <= max(0.2 * own_s, 50e-6)


def test_udp_measures_a_slow_path(tmp_path: Path, dns: DnsServer, figure: Callable[[str], None]) -> None:
    """A relay delays every datagram by 20 ms, so the RTT through the relay is at least 40 ms."""
    with peers_running(tmp_path, dns, 2, probe_methods="udp", timeout_s=0.08) as (first, _):
        place = dns.zone.pods["p-1"]
        with delay_datagrams(place, delay_s=0.02) as slow_port:
            dns.zone.pods["slow"] = ("127.0.0.1", slow_port)
            first.wait_for(lambda read: loss_of("slow", "udp")(read) is not None)
            read = first.wait_for(lambda read: success(read, "udp") >= 12)
            slow_s = read.value("nimlab_rtt_peer_min_seconds", peer="slow", method="udp")
            near_s = read.value("nimlab_rtt_peer_min_seconds", peer="p-1", method="udp")
            figure(f"rtt: UDP echo {near_s * 1e6:.0f} us directly, {slow_s * 1e3:.1f} ms through 2 x 20 ms")
            assert near_s < 0.01
            assert 0.04 <= slow_s <= 0.04 * 1.2
        lost = first.wait_for(lambda read: (loss_of("slow", "udp")(read) or 0) > 0.5)
        assert loss_of("p-1", "udp")(lost) == 0


def test_a_peer_that_drops_connections_is_a_loss_by_timeout(
    tmp_path: Path, dns: DnsServer, zone: Zone
) -> None:
    """The peer's accept queue is full. The kernel therefore drops each SYN, and every probe times out."""
    with socket.create_server(("127.0.6.50", 0), backlog=0) as deaf:
        zone.pods["deaf"] = deaf.getsockname()
        with socket.create_connection(deaf.getsockname()), peers_running(tmp_path, dns, 1) as (first,):
            read = first.wait_for(lambda read: loss_of("deaf")(read) == 1)
    assert read.value("nimlab_rtt_probes_total", method="tcp", result="timeout") >= 1
    assert success(read) == 0
    assert read.get("nimlab_rtt_peer_last_seconds", peer="deaf", method="tcp") is None


def test_garbage_on_every_port_has_no_effect(tmp_path: Path, dns: DnsServer, zone: Zone) -> None:
    rng = random.Random(4)  # noqa: S311 -- the same garbage in every run
    garbage = [rng.randbytes(rng.randrange(200)) for _ in range(300)]
    with peers_running(tmp_path, dns, 2) as (first, _):
        before = first.wait_for(lambda read: success(read) >= 2)
        address, echo_port = zone.pods["p-0"]
        zone.mood = Mood.GARBAGE
        ignored = {"method": "udp", "treatment": "ignored"}
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for count, data in enumerate(garbage, 1):
                sock.sendto(data, (address, echo_port))
                if count % 50 == 0:  # more would overflow the socket buffer
                    first.wait_for(has_counted("nimlab_rtt_echo_requests_total", count, **ignored))
        for data in garbage[:40]:
            for port in (echo_port, first.metrics_port):
                with socket.create_connection((address, port)) as connection:
                    connection.sendall(data)
        first.wait_for(has_counted("nimlab_rtt_discovery_errors_total", 1, reason="timeout"))
        read = first.wait_for(lambda read: success(read) > success(before) + 3)
        assert read.value("nimlab_rtt_echo_requests_total", **ignored) == 300
        for result in (
            "timeout",
            "unreachable",
            "error",
        ):  # `refused` may occur: the other exporter starts later
            assert read.value("nimlab_rtt_probes_total", method="tcp", result=result) == 0
        assert {event["level"] for event in first.events()} == {"info", "warning"}
        assert first.stop() == 0


def test_sigterm_ends_the_exporter_cleanly(tmp_path: Path, dns: DnsServer) -> None:
    with peers_running(tmp_path, dns, 2) as (first, _):
        with socket.create_connection((first.address, first.metrics_port)) as idle:
            idle.sendall(b"GET /metrics")
            first.wait_for(lambda read: success(read) >= 1)
            assert first.stop() == 0
        assert [event["event"] for event in first.events()] == ["started", "peers", "stopped"]


@pytest.mark.parametrize(
    ("environment", "code", "event"),
    [
        ({}, 2, "bad-setting"),
        ({"SERVICE": "x", "POD_NAME": "x-0", "POD_IP": "127.0.6.60"}, 1, "cannot-listen"),
    ],
)
def test_startup_failures_are_logged_with_their_exit_code(
    environment: dict[str, str], code: int, event: str
) -> None:
    with socket.create_server(("127.0.6.60", 0)) as taken:
        place = {"ECHO_PORT": str(taken.getsockname()[1])}
        answer = subprocess.run(
            [sys.executable, "-m", "nimlab.agents.rtt"],
            env={**bare_environment(), **place, **environment},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    assert answer.returncode == code
    assert {json.loads(line)["event"] for line in answer.stderr.splitlines()} == {event}
    assert answer.stdout == ""


def test_the_exporter_loads_only_prometheus_client_and_the_standard_library(tmp_path: Path) -> None:
    """The image contains only Python, prometheus_client and the agents."""
    program = "import sys, nimlab.agents.rtt.__main__\nprint(*sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", program],
        env=bare_environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    other_modules = {
        name
        for name in loaded
        if name.split(".")[0] not in {*sys.stdlib_module_names, "__main__", "prometheus_client"}
        and name not in ("nimlab", "nimlab.agents")
        and not name.startswith("nimlab.agents.rtt")
    }
    site = {
        name
        for name in other_modules
        if name.startswith(("_distutils_hack", "__editable__", "sitecustomize"))
    }
    assert other_modules == site
    assert [name for name in loaded if name.startswith("nimlab.agents.rtt.")]


def test_no_module_imports_the_rest_of_nimlab() -> None:
    """Imports inside functions are not allowed either."""
    folder = Path(nimlab.agents.rtt.__file__).parent
    for module in folder.glob("*.py"):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nimlab"):
                own = (node.module or "").startswith("nimlab.agents.rtt.")
                version = node.module == "nimlab" and [name.name for name in node.names] == ["__version__"]
                assert own or version, f"{module.name}:{node.lineno}"
            if isinstance(node, ast.Import):
                assert not [name for name in node.names if name.name.startswith("nimlab")]


def test_the_exporter_runs_from_a_folder_without_the_rest_of_nimlab(tmp_path: Path) -> None:
    package = tmp_path / "nimlab"
    for name in ("__init__.py", "agents/__init__.py"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text((REPOSITORY / "nimlab" / name).read_text())
    (package / "agents/rtt").mkdir()
    for module in (REPOSITORY / "nimlab/agents/rtt").glob("*.py"):
        (package / "agents/rtt" / module.name).write_text(module.read_text())
    site_packages = str(Path(prometheus_client.__file__).parents[1])
    answer = subprocess.run(
        [sys.executable, "-I", "-S", "-c",
         f"import sys; sys.path[0:0] = [{str(tmp_path)!r}, {site_packages!r}]\n"
         "from nimlab.agents.rtt.__main__ import main; sys.exit(main([], {}))"],
        env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answer.returncode == 2
    assert "SERVICE is not set" in answer.stderr


def test_every_metric_of_the_catalog_is_exposed(tmp_path: Path, dns: DnsServer) -> None:
    with peers_running(tmp_path, dns, 2) as (first, _):
        read = first.wait_for(lambda read: success(read) >= 1)
    assert {metric.name for metric in CATALOG} == {*read.types}
