"""Run exporters as processes on loopback, each with its own address in 127.0.0.0/8."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nimlab.sandbox.wait_until import wait_until
from tests.agents.rtt.dns_server import DnsServer
from tests.agents.rtt.exposition import Exposition, read_exposition
from tests.support.paths import REPOSITORY

DOMAIN = "nimp2p-exp-purple.dst-lab.svc.cluster.local"
TIMEOUT_S = 15.0


@dataclass(slots=True, kw_only=True)
class Running:
    """An exporter's process."""

    process: subprocess.Popen[str]
    address: str
    metrics_port: int
    log: Path
    _last: Exposition = field(default_factory=Exposition)

    def fetch(self, path: str, *, method: str = "GET") -> tuple[int, str]:
        """Return the status and the body of a page."""
        connection = http.client.HTTPConnection(self.address, self.metrics_port, timeout=5)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def scrape(self) -> Exposition:
        """Return the metrics, as parsed by the strict parser."""
        status, body = self.fetch("/metrics")
        assert status == 200
        return read_exposition(body)

    def wait_for(self, check: Callable[[Exposition], bool], *, within_s: float = TIMEOUT_S) -> Exposition:
        """Scrape until `check` returns True for the metrics; return these metrics."""

        def holds() -> bool:
            self._last = self.scrape()
            return check(self._last)

        assert wait_until(holds, within_s=within_s), (
            f"not within {within_s} s: {self._last.samples}\n{self.events()}"
        )
        return self._last

    def events(self) -> list[dict[str, Any]]:
        """Return the logged events."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=TIMEOUT_S)


def free_port(address: str = "127.0.0.1") -> int:
    """Return a port that is free for TCP and UDP on this address."""
    while True:
        with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            tcp.bind((address, 0))
            port: int = tcp.getsockname()[1]
            try:
                udp.bind((address, port))
            except OSError:
                continue
            return port


def write_resolv_conf(folder: Path, address: str = "127.0.0.1") -> Path:
    """Write a resolv.conf like the kubelet's."""
    path = folder / "resolv.conf"
    path.write_text(
        f"search dst-lab.svc.cluster.local svc.cluster.local cluster.local\n"
        f"nameserver {address}\noptions ndots:5\n"
    )
    return path


@contextmanager
def run_exporter(
    folder: Path, dns: DnsServer, name: str, address: str, echo_port: int, settings: Mapping[str, object]
) -> Iterator[Running]:
    """Start an exporter with these settings, wait until it listens, and stop it afterwards."""
    log = folder / f"{name}.log"
    environment = settings_of(folder, dns, name, address, echo_port, settings)
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "nimlab.agents.rtt"],
            env={**bare_environment(), **environment},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stderr=stderr,
            text=True,
        )
    try:
        port = wait_for_start(process, log)
        yield Running(process=process, address=address, metrics_port=port, log=log)
    finally:
        process.kill()
        process.wait()


def wait_for_start(process: subprocess.Popen[str], log: Path) -> int:
    """Wait until the exporter listens; return the port of its metrics."""
    started: dict[str, Any] = {}

    def has_started() -> bool:
        for line in log.read_text().splitlines(keepends=True):
            if line.endswith("\n") and (event := json.loads(line))["event"] == "started":
                started.update(event)
        return bool(started) or process.poll() is not None

    assert wait_until(has_started, within_s=TIMEOUT_S)
    assert started, log.read_text()
    port: int = started["metrics_port"]
    return port


def settings_of(
    folder: Path, dns: DnsServer, name: str, address: str, echo_port: int, more: Mapping[str, object]
) -> dict[str, str]:
    """Return the environment of an exporter with short intervals."""
    settings: dict[str, object] = {
        "service": DOMAIN.split(".", 1)[0],
        "pod_name": name,
        "pod_ip": address,
        "metrics_address": address,
        "metrics_port": 0,
        "echo_port": echo_port,
        "interval_s": 0.1,
        "timeout_s": 0.08,
        "jitter_ratio": 0.2,
        "discovery_interval_s": 0.2,
        "resolv_conf": write_resolv_conf(folder, dns.address),
        "dns_port": dns.port,
        "dns_timeout_s": 0.5,
        **more,
    }
    return {key.upper(): str(value) for key, value in settings.items()}


def bare_environment() -> dict[str, str]:
    """Return an environment that contains only PATH and the path of the package."""
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY)}


def stall(duration_s: float) -> None:
    """Block this thread and its event loop."""
    deadline_s = time.monotonic() + duration_s
    while time.monotonic() < deadline_s:
        pass


def measure_connect_s(address: str, port: int, *, count: int) -> list[float]:
    """Return the durations of `count` blocking connect() calls."""
    times = []
    for _ in range(count):
        with socket.socket() as sock:
            started_s = time.perf_counter()
            sock.connect((address, port))
            times.append(time.perf_counter() - started_s)
    return times
