"""Measure memory and CPU time of an exporter.

Usage: `python -m tests.agents.rtt.cost FOLDER METHODS FANOUT GROUP_RANGE`.

DNS lists 400 peers, and all of them answer. Queries, rounds and scrapes have their usual ratio, but shorter
intervals. The program needs root and its own network namespace. It prints the result of `measure` for an
exporter with group 65534; groups in GROUP_RANGE can send ICMP echoes.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Queue
from typing import Final

from nimlab.agents.rtt.echo import serve_echo
from tests.agents.rtt.dns_server import DnsServer, Zone, serve_dns
from tests.agents.rtt.exposition import Exposition
from tests.agents.rtt.world import DOMAIN, free_port, run_exporter

PEERS: Final = 400
GROUP: Final = 65534
_ROUNDS: Final = 20
_HERE: Final = "127.0.6.1"
_OTHERS: Final = tuple(f"127.0.7.{n}" for n in range(1, 9))


@dataclass(frozen=True, slots=True)
class Cost:
    """Peak memory, CPU time per round, and successful and failed probes by method."""

    memory_mib: float
    cpu_s_per_round: float
    succeeded: Mapping[str, float]
    failed: Mapping[str, float]


def measure(folder: Path, dns: DnsServer, *, methods: str, fanout: int) -> Cost:
    """Measure an exporter over several rounds; its start is not measured."""
    settings = {
        "interval_s": 0.1,  # the usual values are interval_s 5 and discovery_interval_s 20
        "discovery_interval_s": 0.4,
        "probe_methods": methods,
        "fanout": fanout,
        "max_peer_series": max(16, 2 * fanout),
    }
    with ExitStack() as stack:
        port = stack.enter_context(_serve_echoes())
        pods = {f"nimp2p-exp-purple-{n}": (address, port) for n, address in enumerate(_OTHERS * (PEERS // 8))}
        dns.zone.pods = {**pods, "p-0": (_HERE, free_port(_HERE))}
        exporter = stack.enter_context(run_exporter(folder, dns, "p-0", *dns.zone.pods["p-0"], settings))
        before = exporter.wait_for(_has_discovered(fanout))
        used_before_s = _cpu_s(exporter.process.pid)
        rounds = before.value("nimlab_rtt_rounds_total")
        for number in range(1, _ROUNDS + 1):  # about one scrape per round
            after = exporter.wait_for(_has_done(rounds + number))
        used_s = _cpu_s(exporter.process.pid) - used_before_s
        memory_mib = _peak_memory_mib(exporter.process.pid)
    counted = after.value("nimlab_rtt_rounds_total") - rounds
    return Cost(memory_mib, used_s / counted, _probes(after, "success"), _probes(after, "timeout", "refused"))


def _has_discovered(targets: int) -> Callable[[Exposition], bool]:
    return lambda read: (
        read.value("nimlab_rtt_peers_discovered") == PEERS
        and read.value("nimlab_rtt_peers_sampled") == targets
    )


def _has_done(rounds: float) -> Callable[[Exposition], bool]:
    return lambda read: read.value("nimlab_rtt_rounds_total") >= rounds


def _probes(read: Exposition, *results: str) -> dict[str, float]:
    name = "nimlab_rtt_probes_total"
    return {
        method: sum(read.value(name, method=method, result=result) for result in results)
        for method in sorted(read.labels_of(name, "method"))
    }


def _cpu_s(pid: int) -> float:
    """Return the CPU time of a process with a finer resolution than /proc/PID/stat."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def _peak_memory_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


@contextmanager
def _serve_echoes() -> Iterator[int]:
    """Answer probes at all other addresses, in a thread of this process; yield the port."""
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    listening: Queue[int] = Queue()

    async def serve() -> None:
        with ExitStack() as stack:
            listening.put(_listen(stack))
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        yield listening.get(timeout=5)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def _listen(stack: ExitStack) -> int:
    """Listen on the same port of all addresses; try another port if one address has it in use."""
    while True:
        port = free_port(_OTHERS[0])
        with ExitStack() as tried, suppress(OSError):
            for address in _OTHERS:
                tried.enter_context(serve_echo(address, port, lambda *_: None))
            stack.enter_context(tried.pop_all())
            return port


def main(folder: Path, methods: str, fanout: int, group_range: str) -> None:
    """Measure in this network namespace and print the result."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    Path("/proc/sys/net/ipv4/ping_group_range").write_text(group_range)
    os.setgroups([])
    os.setresgid(GROUP, GROUP, GROUP)
    with serve_dns(Zone(domain=DOMAIN)) as dns:
        print(json.dumps(asdict(measure(folder, dns, methods=methods, fanout=fanout))))  # noqa: T201 -- a program


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4])
