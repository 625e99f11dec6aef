"""Real peers: from Git to Running, meshed, heard by all of their own and by nobody else."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.rig.cluster import Rig, RigLab, eventually
from tests.rig.conftest import PURPLE

pytestmark = pytest.mark.usefixtures("lab")

SENT = "Sending message at: "
DELIVERED = " milliseconds: "
PEERS = {"purple": 5, "blue": 4}


def degree(rig: Rig, pod: str) -> float:
    """A peer's mesh degree, as it shows it."""
    samples = rig.samples("dst-lab", pod, 8008)
    return next(s.value for s in samples if s.name == "libp2p_gossipsub_peers_per_topic_mesh")


def meshed(rig: Rig, experiment: str, peers: int) -> dict[str, float]:
    """Every peer's mesh degree, once each has one."""

    def look() -> dict[str, float] | None:
        names = [str(pod["metadata"]["name"]) for pod in rig.pods("dst-lab", experiment)]
        degrees = {name: degree(rig, name) for name in names}
        return degrees if len(degrees) == peers and all(degrees.values()) else None

    return eventually(look, within_s=60, what=f"each peer of {experiment} has a mesh")


def heard(rig: Rig, experiment: str) -> tuple[dict[str, set[int]], dict[str, set[int]]]:
    """What each peer has sent, and what each has received, as times in ns."""
    sent: dict[str, set[int]] = {}
    received: dict[str, set[int]] = {}
    for pod in rig.pods("dst-lab", experiment):
        name = str(pod["metadata"]["name"])
        lines = rig.logs("dst-lab", name, "nimp2p")
        sent[name] = {int(line.removeprefix(SENT)) for line in lines if line.startswith(SENT)}
        received[name] = {int(line.split(DELIVERED)[0]) for line in lines if DELIVERED in line}
    return sent, received


def test_from_git_to_running(lab: RigLab, rig: Rig) -> None:
    for name, peers in PEERS.items():
        pods = rig.pods("dst-lab", name)
        assert [pod["metadata"]["name"] for pod in pods] == [f"nimp2p-exp-{name}-{i}" for i in range(peers)]
        assert all(pod["status"]["phase"] == "Running" for pod in pods)
    answer = lab.run("sync", "--dry-run", "--exit-code")
    assert answer.code == 0, answer.out + answer.err  # all that a real kubelet and server fill in is no drift


def test_messages_reach_all_peers_of_their_own_experiment_and_no_other(
    rig: Rig, figure: Callable[[str], None]
) -> None:
    degrees = {name: meshed(rig, name, peers) for name, peers in PEERS.items()}
    from_ns = time.time_ns()
    time.sleep(12)
    until_ns = time.time_ns()
    time.sleep(3)  # what was sent by then has arrived
    heard_by = {name: heard(rig, name) for name in PEERS}
    delays_ms = []
    for name, (sent, received) in heard_by.items():
        counted = {peer: {at for at in times if from_ns < at < until_ns} for peer, times in sent.items()}
        assert all(counted.values()), f"every peer of {name} has sent something: {counted}"
        for sender, times in counted.items():
            for peer, got in received.items():
                if peer != sender:
                    assert times <= got, f"{peer} has heard all that {sender} has sent"
        others = set().union(*(s for n, (sent, _) in heard_by.items() if n != name for s in sent.values()))
        assert others
        assert not others & set().union(*received.values()), f"nothing of another experiment at {name}"
        for pod in received:
            lines = rig.logs("dst-lab", pod, "nimp2p")
            delays_ms += [int(line.split(DELIVERED)[1]) for line in lines if DELIVERED in line]
    for name, found in degrees.items():
        figure(f"rig: mesh degrees of {name}: {sorted(int(value) for value in found.values())}")
    middle = sorted(delays_ms)[len(delays_ms) // 2]
    figure(
        f"rig: {len(delays_ms)} deliveries, median {middle} ms, most {max(delays_ms)} ms; none crossed over"
    )


def test_counters_say_what_logs_say(rig: Rig) -> None:
    pod = "nimp2p-exp-purple-0"

    def look() -> bool | None:
        samples = {s.name: s.value for s in rig.samples("dst-lab", pod, 8008)}
        sent, received = heard(rig, "purple")
        told = (
            samples["libp2p_pubsub_messages_published_total"],
            samples["libp2p_gossipsub_received_total"],
        )
        return True if told == (float(len(sent[pod])), float(len(received[pod]))) else None

    eventually(look, within_s=20, what="the counters of a peer equal its lines")


def test_scaled_to_seven_every_peer_knows_that_they_are_seven(
    lab: RigLab, rig: Rig, synced: Callable[[], None]
) -> None:
    lab.write("purple", PURPLE.replace("peers: 5", "peers: 7"))
    synced()
    pods = rig.pods("dst-lab", "purple")
    assert len(pods) == 7
    for pod in pods:
        (node,) = pod["spec"]["containers"]
        assert {"name": "PEERS", "value": "7"} in node["env"]
    meshed(rig, "purple", 7)
    lab.write("purple", PURPLE)
    synced()
    assert len(rig.pods("dst-lab", "purple")) == 5
    meshed(rig, "purple", 5)


def is_probed(pod: dict[str, Any]) -> bool:
    """Whether the exporter beside a peer runs, and with it the pod's network."""
    states = {one["name"]: one for one in pod["status"].get("initContainerStatuses", ())}
    return bool(states.get("rtt", {}).get("started"))


@pytest.mark.usefixtures("apart")
def test_discovery_yields_peers_of_the_own_experiment_only(rig: Rig) -> None:
    places = {
        "purple": ("dst-lab", "nimp2p-exp-purple-0", "nimp2p-exp-purple"),
        "blue": ("dst-lab", "nimp2p-exp-blue-0", "nimp2p-exp-blue"),
        "green": ("nimp2p-exp-green", "pod-0", "nimp2p-service"),
        "red": ("nimp2p-exp-red", "pod-0", "nimp2p-service"),
    }
    addresses: dict[str, set[str]] = {}
    for name, (namespace, pod, service) in places.items():
        wanted = PEERS.get(name, 3)

        def running(namespace: str = namespace, name: str = name, wanted: int = wanted) -> set[str] | None:
            found = {str(p["status"]["podIP"]) for p in rig.pods(namespace, name) if is_probed(p)}
            return found if len(found) == wanted else None

        own = eventually(running, within_s=60, what=f"pods of {name} have addresses")
        script = f"import socket, json; print(json.dumps(socket.gethostbyname_ex({service!r})[2]))"

        def found(
            namespace: str = namespace, pod: str = pod, script: str = script, own: set[str] = own
        ) -> set[str] | None:
            known = set(json.loads(rig.python(namespace, pod, script)))
            assert known <= own  # never one of another experiment, however early DNS is asked
            return known if known == own else None

        addresses[name] = eventually(found, within_s=40, what=f"DNS knows all peers of {name}")
    assert len(set().union(*addresses.values())) == sum(map(len, addresses.values()))
