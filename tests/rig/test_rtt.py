"""The RTT exporter in real pods: it is accurate, reveals slow and dead peers, and uses few resources."""

from __future__ import annotations

import json
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.rig.conftest import PURPLE
from tests.rig.running_rig import Rig, RigLab, Sample, eventually, parse_samples

pytestmark = pytest.mark.usefixtures("lab")

MEASURE = """
import json, socket, struct, time
times = []
for _ in range(200):
    with socket.create_connection(("ADDRESS", 9106), timeout=2) as peer:
        facts = peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        times.append(struct.unpack_from("I", facts, 68)[0])
    time.sleep(0.05)
print(json.dumps(times))
"""
FLOOD = """
import socket, time
peer = socket.create_connection(("ADDRESS", 7001), timeout=5)
ends = time.monotonic() + SECONDS
while time.monotonic() < ends:
    peer.sendall(bytes(1 << 14))
"""
SINK = """
import socket
with socket.create_server(("", 7001)) as server:
    peer, _ = server.accept()
    while peer.recv(1 << 16):
        pass
"""


def address_of(rig: Rig, name: str) -> str:
    """Return the address of a pod of purple or blue."""
    pods = rig.pods("dst-lab", name.split("-")[2])
    return next(str(pod["status"]["podIP"]) for pod in pods if pod["metadata"]["name"] == name)


def gauge(rig: Rig, pod: str, metric: str) -> dict[str, float]:
    """Return the values of a gauge of the exporter in `pod`, by the name of the probed peer."""
    samples = rig.samples("dst-lab", pod, 9105)
    return {s.labels["peer"]: s.value for s in samples if s.name == f"nimlab_rtt_peer_{metric}"}


def watch(rig: Rig, pod: str, peer: str, seconds: float) -> list[float]:
    """Return the RTTs in µs that the exporter in `pod` reports for a peer, read once per second."""
    times_us = []
    deadline_s = time.monotonic() + seconds
    while time.monotonic() < deadline_s:
        value = gauge(rig, pod, "last_seconds").get(peer)
        if value is not None:
            times_us.append(value * 1e6)
        time.sleep(1)
    return times_us


def test_the_exporter_agrees_with_an_independent_measurement(rig: Rig, figure: Callable[[str], None]) -> None:
    source, target = "nimp2p-exp-purple-0", "nimp2p-exp-purple-1"
    script = MEASURE.replace("ADDRESS", address_of(rig, target))
    outputs: list[str] = []
    measuring = threading.Thread(target=lambda: outputs.append(rig.python("dst-lab", source, script)))
    measuring.start()
    exporter_us = statistics.median(watch(rig, source, target, 25))
    measuring.join()
    own_us = statistics.median(json.loads(outputs[0]))
    figure(f"rig: round trip of a pair: {exporter_us:.0f} us by the exporter, {own_us:.0f} us by the test")
    assert abs(exporter_us - own_us) <= max(50, 0.2 * own_us)


def test_a_slow_pair_is_visible(rig: Rig, figure: Callable[[str], None]) -> None:
    busy, sink = "nimp2p-exp-purple-2", "nimp2p-exp-blue-0"
    flood = FLOOD.replace("ADDRESS", address_of(rig, sink)).replace("SECONDS", "20")
    threads = [threading.Thread(target=lambda: rig.python("dst-lab", sink, SINK))]
    threads[0].start()
    time.sleep(1)
    threads.append(threading.Thread(target=lambda: rig.python("dst-lab", busy, flood)))
    threads[1].start()
    time.sleep(4)
    times: dict[str, list[float]] = {}
    for _ in range(12):
        for peer, value in gauge(rig, "nimp2p-exp-purple-0", "last_seconds").items():
            times.setdefault(peer, []).append(value * 1e6)
        time.sleep(1)
    for thread in threads:
        thread.join()
    medians = {peer: statistics.median(values) for peer, values in times.items()}
    slow = medians.pop(busy)
    others = max(medians.values())
    figure(f"rig: RTT to a peer with a full uplink {slow:.0f} us, to the other peers at most {others:.0f} us")
    assert slow > 5 * others


@contextmanager
def cut_off(address: str) -> Iterator[None]:
    """Drop all packets to and from a pod."""
    rules = [["PREROUTING", direction, address, "-j", "DROP"] for direction in ("-s", "-d")]
    for rule in rules:
        subprocess.run(["iptables", "-t", "raw", "-I", *rule], check=True)
    try:
        yield
    finally:
        for rule in rules:
            subprocess.run(["iptables", "-t", "raw", "-D", *rule], check=True)


def test_a_dead_peer_has_full_loss_and_its_series_end(
    lab: RigLab, rig: Rig, synced: Callable[[], None], figure: Callable[[str], None]
) -> None:
    observer, dead = "nimp2p-exp-purple-0", "nimp2p-exp-purple-4"
    assert gauge(rig, observer, "loss_ratio")[dead] == 0
    with cut_off(address_of(rig, dead)):
        began_s = time.monotonic()
        eventually(
            lambda: True if gauge(rig, observer, "loss_ratio").get(dead) == 1 else None,
            within_s=40,
            what="the loss of a peer without responses is 1",
        )
        lost_s = time.monotonic() - began_s
    assert all(v == 0 for peer, v in gauge(rig, observer, "loss_ratio").items() if peer != dead)
    # Only the workload is scaled: a change of the pod template would restart the other exporters too.
    rig.kubectl("-n", "dst-lab", "scale", "statefulset", "nimp2p-exp-purple", "--replicas", "4")
    began_s = time.monotonic()
    eventually(
        lambda: True if dead not in gauge(rig, observer, "loss_ratio") else None,
        within_s=120,
        what="the series of a removed peer end",
    )
    ended_s = time.monotonic() - began_s
    figure(f"rig: the loss of a dead peer is 1 after {lost_s:.0f} s; its series end {ended_s:.0f} s after it")
    lab.write("purple", PURPLE)
    synced()


def usage(rig: Rig, pod: str, metric: str) -> Sample:
    """Return the kubelet's sample of an exporter's resource usage, with its time."""
    labels = {"pod": pod, "container": "rtt"}.items()
    name = f"container_{metric}"

    def find_sample() -> Sample | None:
        text = rig.node.get("/api/v1/nodes/node1/proxy/metrics/cadvisor").decode()
        return next((s for s in parse_samples(text) if s.name == name and labels <= s.labels.items()), None)

    return eventually(find_sample, within_s=60, what=f"the kubelet reports {name}")


def test_the_exporter_uses_few_resources(rig: Rig, figure: Callable[[str], None]) -> None:
    pod = "nimp2p-exp-purple-0"
    first = usage(rig, pod, "cpu_usage_seconds_total")
    time.sleep(40)
    last = usage(rig, pod, "cpu_usage_seconds_total")
    assert first.at_s is not None
    assert last.at_s is not None
    share = (last.value - first.value) / (last.at_s - first.at_s)
    memory_mib = usage(rig, pod, "memory_working_set_bytes").value / 2**20
    figure(f"rig: the exporter uses {memory_mib:.0f} MiB and {share:.2%} of a core at 4 probes per second")
    assert memory_mib <= 40
    assert share <= 0.02
