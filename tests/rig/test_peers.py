"""Real peers: from Git to Running, meshed, heard by all of their own and by nobody else."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import pytest

from tests.rig.cluster import Rig, RigLab, eventually
from tests.rig.conftest import PURPLE

pytestmark = pytest.mark.usefixtures("lab")

SENT = "Sending message at: "
DELIVERED = " milliseconds: "


class Place(NamedTuple):
    """Where an experiment's peers are, how their names begin, and through which Service they find others."""

    namespace: str
    pods: str
    service: str
    peers: int


TOGETHER = {
    "purple": Place("dst-lab", "nimp2p-exp-purple", "nimp2p-exp-purple", 5),
    "blue": Place("dst-lab", "nimp2p-exp-blue", "nimp2p-exp-blue", 4),
}
APART = {
    "green": Place("nimp2p-exp-green", "pod", "nimp2p-service", 3),
    "red": Place("nimp2p-exp-red", "pod", "nimp2p-service", 3),
}
ALL = TOGETHER | APART


def degree(rig: Rig, namespace: str, pod: str) -> float:
    """A peer's mesh degree, as it shows it."""
    samples = rig.samples(namespace, pod, 8008)
    return next(s.value for s in samples if s.name == "libp2p_gossipsub_peers_per_topic_mesh")


def meshed(rig: Rig, experiment: str, peers: int | None = None) -> list[int]:
    """Every peer's mesh degree, once each has one; sorted."""
    place = ALL[experiment]

    def look() -> list[int] | None:
        names = [str(pod["metadata"]["name"]) for pod in rig.pods(place.namespace, experiment)]
        degrees = sorted(int(degree(rig, place.namespace, name)) for name in names)
        return degrees if len(degrees) == (peers or place.peers) and all(degrees) else None

    return eventually(look, within_s=60, what=f"each peer of {experiment} has a mesh")


@dataclass(frozen=True, slots=True)
class Heard:
    """What each peer of an experiment has sent and received, as times in ns, and after how many ms."""

    sent: dict[str, set[int]]
    received: dict[str, set[int]]
    delays_ms: list[int]


def heard(rig: Rig, experiment: str) -> Heard:
    """What an experiment's peers have logged so far."""
    found = Heard({}, {}, [])
    namespace = ALL[experiment].namespace
    for pod in rig.pods(namespace, experiment):
        name = str(pod["metadata"]["name"])
        lines = rig.logs(namespace, name, "nimp2p")
        delivered = [line.split(DELIVERED) for line in lines if DELIVERED in line]
        found.sent[name] = {int(line.removeprefix(SENT)) for line in lines if line.startswith(SENT)}
        found.received[name] = {int(sent) for sent, _ in delivered}
        found.delays_ms.extend(int(delay) for _, delay in delivered)
    return found


def test_from_git_to_running(lab: RigLab, rig: Rig) -> None:
    for name, place in TOGETHER.items():
        pods = rig.pods(place.namespace, name)
        assert [pod["metadata"]["name"] for pod in pods] == [f"{place.pods}-{i}" for i in range(place.peers)]
        assert all(pod["status"]["phase"] == "Running" for pod in pods)
    answer = lab.run("sync", "--dry-run", "--exit-code")
    assert answer.code == 0, answer.out + answer.err  # all that a real kubelet and server fill in is no drift


@pytest.mark.usefixtures("apart")
def test_messages_reach_all_peers_of_their_own_experiment_and_no_other(
    rig: Rig, figure: Callable[[str], None]
) -> None:
    degrees = {name: meshed(rig, name) for name in ALL}
    from_ns = time.time_ns()
    time.sleep(25)  # each of five has had its turn twice
    until_ns = time.time_ns()
    time.sleep(3)  # what was sent by then has arrived
    found = {name: heard(rig, name) for name in ALL}
    for name, own in found.items():
        counted = {peer: {at for at in times if from_ns < at < until_ns} for peer, times in own.sent.items()}
        assert all(counted.values()), f"every peer of {name} has sent something: {counted}"
        for sender, times in counted.items():
            for peer, got in own.received.items():
                if peer != sender:
                    assert times <= got, f"{peer} of {name} has heard all that {sender} has sent"
        others = set().union(*(s for n, other in found.items() if n != name for s in other.sent.values()))
        assert others
        assert not others & set().union(*own.received.values()), f"nothing of another experiment at {name}"
    for name, one in degrees.items():
        figure(f"rig: mesh degrees of {name}: {one}")
    delays_ms = sorted(delay for own in found.values() for delay in own.delays_ms)
    figure(
        f"rig: {len(delays_ms)} deliveries, median {delays_ms[len(delays_ms) // 2]} ms, "
        f"most {delays_ms[-1]} ms; none crossed over"
    )


def test_counters_say_what_logs_say(rig: Rig) -> None:
    pod = "nimp2p-exp-purple-0"

    def look() -> bool | None:
        samples = {s.name: s.value for s in rig.samples("dst-lab", pod, 8008)}
        logged = heard(rig, "purple")
        told = (
            samples["libp2p_pubsub_messages_published_total"],
            samples["libp2p_gossipsub_received_total"],
        )
        return True if told == (float(len(logged.sent[pod])), float(len(logged.received[pod]))) else None

    eventually(look, within_s=20, what="the counters of a peer equal its lines")


def test_scaled_to_seven_every_peer_knows_that_they_are_seven(
    lab: RigLab, rig: Rig, synced: Callable[[], None], figure: Callable[[str], None]
) -> None:
    lab.write("purple", PURPLE.replace("peers: 5", "peers: 7"))
    synced()
    pods = rig.pods("dst-lab", "purple")
    assert len(pods) == 7
    for pod in pods:
        (node,) = pod["spec"]["containers"]
        assert {"name": "PEERS", "value": "7"} in node["env"]
    figure(f"rig: scaled to 7, PEERS is 7 at all {len(pods)}; mesh degrees {meshed(rig, 'purple', 7)}")
    lab.write("purple", PURPLE)
    synced()
    assert len(rig.pods("dst-lab", "purple")) == 5
    meshed(rig, "purple", 5)


@pytest.mark.usefixtures("apart")
def test_discovery_yields_peers_of_the_own_experiment_only(rig: Rig, figure: Callable[[str], None]) -> None:
    addresses: dict[str, set[str]] = {}
    for name, place in ALL.items():
        own = {str(pod["status"]["podIP"]) for pod in rig.pods(place.namespace, name)}
        assert len(own) == place.peers
        script = f"import socket, json; print(json.dumps(socket.gethostbyname_ex({place.service!r})[2]))"

        def found(place: Place = place, script: str = script, own: set[str] = own) -> set[str] | None:
            known = set(json.loads(rig.python(place.namespace, f"{place.pods}-0", script)))
            assert known <= own  # never one of another experiment, however early DNS is asked
            return known if known == own else None

        addresses[name] = eventually(found, within_s=40, what=f"DNS knows all peers of {name}")
    assert len(set().union(*addresses.values())) == sum(map(len, addresses.values()))
    counts = ", ".join(f"{len(found)} for {name}" for name, found in addresses.items())
    figure(f"rig: addresses that DNS gives, none to two experiments: {counts}")
