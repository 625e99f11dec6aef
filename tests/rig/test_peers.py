"""Real peers run, form a mesh, and exchange messages within their own experiment only."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import pytest

from tests.rig.conftest import PURPLE
from tests.rig.running_rig import Rig, RigLab, eventually

pytestmark = pytest.mark.usefixtures("lab")

SENT = "Sending message at: "
DELIVERED = " milliseconds: "


class Location(NamedTuple):
    """An experiment's namespace, the prefix of its pods' names, its Service, and its number of peers."""

    namespace: str
    pods: str
    service: str
    peers: int


SHARED_NAMESPACE = {
    "purple": Location("dst-lab", "nimp2p-exp-purple", "nimp2p-exp-purple", 5),
    "blue": Location("dst-lab", "nimp2p-exp-blue", "nimp2p-exp-blue", 4),
}
OWN_NAMESPACE = {
    "green": Location("nimp2p-exp-green", "pod", "nimp2p-service", 3),
    "red": Location("nimp2p-exp-red", "pod", "nimp2p-service", 3),
}
ALL = SHARED_NAMESPACE | OWN_NAMESPACE


def degree(rig: Rig, namespace: str, pod: str) -> float:
    """Return the mesh degree that a peer's metrics report."""
    samples = rig.samples(namespace, pod, 8008)
    return next(s.value for s in samples if s.name == "libp2p_gossipsub_peers_per_topic_mesh")


def wait_for_mesh(rig: Rig, experiment: str, peers: int | None = None) -> list[int]:
    """Wait until every peer has a mesh; return the sorted mesh degrees."""
    location = ALL[experiment]

    def degrees_if_meshed() -> list[int] | None:
        names = [str(pod["metadata"]["name"]) for pod in rig.pods(location.namespace, experiment)]
        degrees = sorted(int(degree(rig, location.namespace, name)) for name in names)
        return degrees if len(degrees) == (peers or location.peers) and all(degrees) else None

    return eventually(degrees_if_meshed, within_s=60, what=f"each peer of {experiment} has a mesh")


@dataclass(frozen=True, slots=True)
class MessageLog:
    """The messages and the delays that the logs of all peers of an experiment contain.

    `sent` and `received` map a peer's name to its messages. The sending time in ns identifies a message.
    """

    sent: dict[str, set[int]]
    received: dict[str, set[int]]
    delays_ms: list[int]


def read_message_log(rig: Rig, experiment: str) -> MessageLog:
    """Return the messages in the logs of an experiment's peers."""
    messages = MessageLog({}, {}, [])
    namespace = ALL[experiment].namespace
    for pod in rig.pods(namespace, experiment):
        name = str(pod["metadata"]["name"])
        lines = rig.logs(namespace, name, "nimp2p")
        delivered = [line.split(DELIVERED) for line in lines if DELIVERED in line]
        messages.sent[name] = {int(line.removeprefix(SENT)) for line in lines if line.startswith(SENT)}
        messages.received[name] = {int(sent) for sent, _ in delivered}
        messages.delays_ms.extend(int(delay) for _, delay in delivered)
    return messages


def test_synced_peers_run_and_are_in_sync(lab: RigLab, rig: Rig) -> None:
    for name, location in SHARED_NAMESPACE.items():
        pods = rig.pods(location.namespace, name)
        expected = [f"{location.pods}-{i}" for i in range(location.peers)]
        assert [pod["metadata"]["name"] for pod in pods] == expected
        assert all(pod["status"]["phase"] == "Running" for pod in pods)
    answer = lab.run("sync", "--dry-run", "--exit-code")
    # Fields that the kubelet or the server has set are not drift.
    assert answer.code == 0, answer.out + answer.err


@pytest.mark.usefixtures("apart")
def test_messages_reach_all_peers_of_their_own_experiment_and_no_other(
    rig: Rig, figure: Callable[[str], None]
) -> None:
    degrees = {name: wait_for_mesh(rig, name) for name in ALL}
    from_ns = time.time_ns()
    time.sleep(25)  # each of five peers sends twice
    until_ns = time.time_ns()
    time.sleep(3)  # messages sent before `until_ns` arrive in this time
    messages = {name: read_message_log(rig, name) for name in ALL}
    for name, own in messages.items():
        counted = {peer: {at for at in times if from_ns < at < until_ns} for peer, times in own.sent.items()}
        assert all(counted.values()), f"every peer of {name} has sent a message: {counted}"
        for sender, times in counted.items():
            for peer, received in own.received.items():
                if peer != sender:
                    assert times <= received, f"{peer} of {name} has received all messages of {sender}"
        others = set().union(
            *(sent for n, other in messages.items() if n != name for sent in other.sent.values())
        )
        assert others
        assert not others & set().union(*own.received.values()), f"{name} received no foreign message"
    for name, mesh_degrees in degrees.items():
        figure(f"rig: mesh degrees of {name}: {mesh_degrees}")
    delays_ms = sorted(delay for own in messages.values() for delay in own.delays_ms)
    figure(
        f"rig: {len(delays_ms)} deliveries, median {delays_ms[len(delays_ms) // 2]} ms, "
        f"maximum {delays_ms[-1]} ms; none between experiments"
    )


def test_counters_equal_the_numbers_of_log_lines(rig: Rig) -> None:
    pod = "nimp2p-exp-purple-0"

    def are_equal() -> bool | None:
        samples = {s.name: s.value for s in rig.samples("dst-lab", pod, 8008)}
        logged = read_message_log(rig, "purple")
        counters = (
            samples["libp2p_pubsub_messages_published_total"],
            samples["libp2p_gossipsub_received_total"],
        )
        return True if counters == (float(len(logged.sent[pod])), float(len(logged.received[pod]))) else None

    eventually(are_equal, within_s=20, what="a peer's counters equal the numbers of its log lines")


def test_after_scaling_to_seven_every_peer_has_peers_set_to_seven(
    lab: RigLab, rig: Rig, synced: Callable[[], None], figure: Callable[[str], None]
) -> None:
    lab.write("purple", PURPLE.replace("peers: 5", "peers: 7"))
    synced()
    pods = rig.pods("dst-lab", "purple")
    assert len(pods) == 7
    for pod in pods:
        (node,) = pod["spec"]["containers"]
        assert {"name": "PEERS", "value": "7"} in node["env"]
    degrees = wait_for_mesh(rig, "purple", 7)
    figure(f"rig: scaled to 7, PEERS is 7 at all {len(pods)}; mesh degrees {degrees}")
    lab.write("purple", PURPLE)
    synced()
    assert len(rig.pods("dst-lab", "purple")) == 5
    wait_for_mesh(rig, "purple", 5)


@pytest.mark.usefixtures("apart")
def test_discovery_returns_peers_of_the_own_experiment_only(rig: Rig, figure: Callable[[str], None]) -> None:
    addresses: dict[str, set[str]] = {}
    for name, location in ALL.items():
        own = {str(pod["status"]["podIP"]) for pod in rig.pods(location.namespace, name)}
        assert len(own) == location.peers
        script = f"import socket, json; print(json.dumps(socket.gethostbyname_ex({location.service!r})[2]))"

        def resolve(
            location: Location = location, script: str = script, own: set[str] = own
        ) -> set[str] | None:
            resolved = set(json.loads(rig.python(location.namespace, f"{location.pods}-0", script)))
            # DNS never returns a peer of another experiment, not even in the first seconds.
            assert resolved <= own
            return resolved if resolved == own else None

        addresses[name] = eventually(resolve, within_s=40, what=f"DNS returns all peers of {name}")
    assert len(set().union(*addresses.values())) == sum(map(len, addresses.values()))
    counts = ", ".join(f"{len(resolved)} for {name}" for name, resolved in addresses.items())
    figure(f"rig: addresses from DNS, none shared by two experiments: {counts}")
