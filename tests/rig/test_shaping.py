"""Link shaping in real pods: the rate is as specified, and a setting that cannot be applied is reported."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.rig.running_rig import Rig, RigLab

PORT = 7000
SECONDS = 6
RECEIVE = f"""
import socket, time
with socket.create_server(("", {PORT})) as server:
    server.settimeout(30)
    peer, _ = server.accept()
    total, first = 0, None
    while data := peer.recv(1 << 16):
        first = first or time.monotonic()
        total += len(data)
    print(total * 8 / (time.monotonic() - first) / 1e6)
"""
SEND = f"""
import socket, time
for attempt in range(50):
    try:
        peer = socket.create_connection(("ADDRESS", {PORT}), timeout=5)
        break
    except OSError:
        time.sleep(0.1)
ends = time.monotonic() + {SECONDS}
while time.monotonic() < ends:
    peer.sendall(bytes(1 << 14))
peer.close()
"""


@pytest.fixture
def plain(lab: RigLab) -> Iterator[None]:
    """Run an experiment without limits, in addition to purple."""
    lab.write(
        "plain",
        "{contract: nimp2p, peers: 2, connectTo: 1, resources: {cpu: 50m, memory: 96Mi}, "
        "network: {method: none}}",
    )
    answer = lab.run("sync", "--timeout", "120s")
    assert answer.code == 0, answer.out + answer.err
    yield
    lab.remove("plain")
    assert lab.run("sync").code == 0


def goodput_mbit_per_s(rig: Rig, source: str, target: str) -> float:
    """Send from one pod to another for some seconds; return the received payload in Mbit/s."""
    pod = next(p for p in rig.pods("dst-lab", target.split("-")[2]) if p["metadata"]["name"] == target)
    outputs: list[str] = []
    listener = threading.Thread(target=lambda: outputs.append(rig.python("dst-lab", target, RECEIVE)))
    listener.start()
    rig.python("dst-lab", source, SEND.replace("ADDRESS", pod["status"]["podIP"]))
    listener.join()
    return float(outputs[0])


@pytest.mark.usefixtures("plain")
def test_a_link_of_16_megabits_carries_16_both_ways(rig: Rig, figure: Callable[[str], None]) -> None:
    shaped, free = "nimp2p-exp-purple-0", "nimp2p-exp-plain-0"
    up = goodput_mbit_per_s(rig, shaped, free)
    down = goodput_mbit_per_s(rig, free, shaped)
    unlimited = goodput_mbit_per_s(rig, free, "nimp2p-exp-plain-1")
    figure(f"rig: with a limit of 16 Mbit/s, {up:.1f} up and {down:.1f} down; without, {unlimited:,.0f}")
    assert 12 <= up <= 17
    assert 12 <= down <= 17
    assert unlimited > 100


def has_netem() -> bool:
    """Return True if this machine's kernel can delay packets."""
    command = ["unshare", "--net", "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def test_a_missing_kernel_feature_is_reported(lab: RigLab, rig: Rig, figure: Callable[[str], None]) -> None:
    lab.write(
        "slow",
        "{contract: nimp2p, peers: 1, connectTo: 1, resources: {cpu: 50m, memory: 96Mi}, "
        "network: {downlink: 16Mbit, uplink: 16Mbit, latency: 20ms}}",
    )
    answer = lab.run("sync", "--timeout", "90s")
    (pod,) = rig.pods("dst-lab", "slow")
    if has_netem():
        assert answer.code == 0, answer.out + answer.err
        figure("rig: this kernel has netem: 20 ms of latency were set")
    else:
        assert answer.code != 0
        assert "no netem" in answer.out + answer.err
        assert "modprobe sch_netem" in answer.out + answer.err
        # No peer may run on a link that is not shaped as specified.
        assert all(not container["ready"] for container in pod["status"]["containerStatuses"])
        figure(f"rig: 20 ms of latency on a kernel without netem: exit code {answer.code}, no peer starts")
    lab.remove("slow")
    assert lab.run("sync").code == 0


def test_the_agents_run_without_unneeded_rights(rig: Rig, lab: RigLab) -> None:
    del lab
    status = rig.python("dst-lab", "nimp2p-exp-purple-0", "print(open('/proc/1/status').read())")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split()[0] == "65534"
    assert int(fields["CapEff"], 16) == 0
    mounts = rig.python("dst-lab", "nimp2p-exp-purple-0", "print(open('/proc/mounts').read())")
    assert any(line.split()[1] == "/" and "ro" in line.split()[3].split(",") for line in mounts.splitlines())
    assert json.loads(rig.logs("dst-lab", "nimp2p-exp-purple-0", "shape")[0])["event"] == "shaped"
