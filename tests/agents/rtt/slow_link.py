"""Measure an exporter over a slow link: `python -m tests.agents.rtt.slow_link FOLDER DELAY_S permit`.

Run as root in a new network namespace (`unshare --net`). The far peer is behind a TUN device. This program
reads every packet that the kernel sends to the device, waits, swaps the two addresses and writes the packet
back. The kernel therefore communicates with itself over a slow path, by TCP, UDP and ICMP. The program prints
the metrics of an exporter that probes the far peer and a near peer, and the duration of its own connect()
calls.
"""

from __future__ import annotations

import fcntl
import heapq
import json
import os
import select
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.agents.rtt.dns_server import Zone, serve_dns
from tests.agents.rtt.exposition import Exposition
from tests.agents.rtt.world import DOMAIN, measure_connect_s, run_exporter

HERE = "198.18.0.1"  # RFC 2544: reserved addresses, used only inside this namespace
FAR = "198.18.0.2"
NEAR = "127.0.0.2"
ECHO_PORT = 9106
_TUNSETIFF = 0x400454CA
_IFF_TUN_NO_PI = 0x1001


def open_tun() -> int:
    """Create the device and the addresses; return the device's descriptor."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", b"far0", _IFF_TUN_NO_PI))
    for command in (
        "ip link set lo up",
        f"ip address add {HERE}/30 dev far0",
        "ip link set far0 up",
    ):
        subprocess.run(command.split(), check=True)
    return descriptor


def mirror(tun: int, delay_s: float) -> None:
    """Write each IPv4 packet back after the delay, with swapped addresses; the checksums stay valid."""
    held: list[tuple[float, bytes]] = []
    while True:
        timeout_s = max(0.0, held[0][0] - time.monotonic()) if held else None
        readable, _, _ = select.select([tun], [], [], timeout_s)
        if readable:
            packet = os.read(tun, 2048)
            if packet[0] >> 4 == 4:
                swapped = packet[:12] + packet[16:20] + packet[12:16] + packet[20:]
                heapq.heappush(held, (time.monotonic() + delay_s, swapped))
        while held and held[0][0] <= time.monotonic():
            os.write(tun, heapq.heappop(held)[1])


def is_settled(read: Exposition, connect_s: float) -> bool:
    """Return True if each method has enough probes, and its fastest probe had no local delay."""
    methods = read.labels_of("nimlab_rtt_probes_total", "method")
    counts = [read.value("nimlab_rtt_probes_total", method=m, result="success") for m in methods]
    far_s = [read.get("nimlab_rtt_peer_min_seconds", peer="far", method=m) for m in methods]
    return min(counts) >= 20 and all(rtt_s is not None and rtt_s <= connect_s * 1.2 for rtt_s in far_s)


def main(folder: Path, delay_s: float, *, permit_icmp: bool) -> None:
    """Probe a near peer and a far peer several times by each method, and print the metrics."""
    threading.Thread(target=mirror, args=(open_tun(), delay_s), daemon=True).start()
    group_range = "0 2147483647" if permit_icmp else "1 0"
    Path("/proc/sys/net/ipv4/ping_group_range").write_text(group_range)
    zone = Zone(domain=DOMAIN)
    zone.pods = {"far": (FAR, ECHO_PORT), "near": (NEAR, ECHO_PORT), "here": (HERE, ECHO_PORT)}
    settings = {"probe_methods": "tcp,udp,icmp", "timeout_s": 0.08, "window_probes": 1000}
    with (
        serve_dns(zone) as dns,
        run_exporter(folder, dns, "near", NEAR, ECHO_PORT, settings),
        run_exporter(folder, dns, "here", HERE, ECHO_PORT, settings) as exporter,
    ):
        connect_s = min(measure_connect_s(FAR, ECHO_PORT, count=10))
        exporter.wait_for(lambda read: is_settled(read, connect_s))
        result = {
            "metrics": exporter.fetch("/metrics")[1],
            "events": exporter.events(),
            "connect_s": connect_s,
        }
    print(json.dumps(result))  # noqa: T201 -- this is a program


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), permit_icmp=sys.argv[3] == "permit")
