"""The commands for a requested link, and the comparison of the link with the kernel's state."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from nimlab.agents.shape.kernel import differences
from nimlab.agents.shape.link import Link, burst_bytes, shaping

MTU_BYTES = 1500
TBF = Link(interface="eth0", uplink_bit_per_s=16_000_000, downlink_bit_per_s=8_000_000)
NETEM = Link(interface="eth0", uplink_bit_per_s=16_000_000, latency_ms=50, jitter_ms=10, loss_ratio=0.01)


def text(link: Link) -> list[str]:
    """Return the commands as a user would type them in a shell."""
    return [" ".join(command) for command in shaping(link, mtu_bytes=MTU_BYTES)]


def differences_of(link: Link, qdiscs: list[dict[str, Any]], filters: list[dict[str, Any]]) -> list[str]:
    """Return the differences at an interface with an MTU of 1,500 bytes."""
    return [*differences(link, qdiscs, filters, mtu_bytes=MTU_BYTES)]


def test_an_empty_link_needs_no_commands() -> None:
    assert text(Link(interface="eth0")) == []


def test_rates_get_small_buckets_in_both_directions() -> None:
    assert text(TBF) == [
        "tc qdisc add dev eth0 root tbf rate 16000000bit burst 4000b latency 400ms",
        "ip link add ifb0 type ifb",
        "ip link set ifb0 up",
        "tc qdisc add dev ifb0 root tbf rate 8000000bit burst 4000b latency 400ms",
        "tc qdisc add dev eth0 handle ffff: ingress",
        "tc filter add dev eth0 parent ffff: protocol all u32 match u32 0 0 "
        "action mirred egress redirect dev ifb0",
    ]


@pytest.mark.parametrize(
    ("rate_bit_per_s", "mtu_bytes", "bucket_bytes"),
    [
        (16_000_000, 1500, 4_000),
        (16_000_000, 9000, 9_064),  # tbf drops packets that are larger than its bucket
        (16_000_000, 65_536, 65_600),
        (10**9, 9000, 125_000),
    ],
)
def test_a_bucket_holds_the_largest_packet(rate_bit_per_s: int, mtu_bytes: int, bucket_bytes: int) -> None:
    assert burst_bytes(rate_bit_per_s, mtu_bytes=mtu_bytes) == bucket_bytes
    assert bucket_bytes >= mtu_bytes + 18  # Ethernet's header with a tag
    link = Link(interface="eth0", uplink_bit_per_s=rate_bit_per_s, downlink_bit_per_s=rate_bit_per_s)
    buckets = [c[c.index("burst") + 1] for c in shaping(link, mtu_bytes=mtu_bytes) if "burst" in c]
    assert buckets == [f"{bucket_bytes}b"] * 2


def test_a_bucket_for_another_mtu_is_reported() -> None:
    reported = [*differences(TBF, QDISCS, FILTERS, mtu_bytes=9000)]
    assert [words.split(": ", 1)[1] for words in reported] == ["burst, bytes: 4000, not 9064"] * 2


def test_delay_loss_and_rate_share_one_queue() -> None:
    assert text(NETEM) == [
        "tc qdisc add dev eth0 root netem delay 50ms 10ms distribution normal loss 1% rate 16000000bit "
        "limit 10000"
    ]
    assert text(Link(interface="eth0", loss_ratio=0.005)) == [
        "tc qdisc add dev eth0 root netem loss 0.5% limit 10000"
    ]


def bucket(device: str, rate_bytes: int) -> dict[str, Any]:
    """Return a tbf queue as tc prints it."""
    options = {"rate": rate_bytes, "burst": 4000, "lat": 400_001}
    return {"kind": "tbf", "dev": device, "root": True, "options": options}


QDISCS: list[dict[str, Any]] = [
    bucket("eth0", 2_000_000),
    bucket("ifb0", 1_000_000),
    {"kind": "ingress", "dev": "eth0"},
]
FILTERS: list[dict[str, Any]] = [
    {"kind": "u32"},
    {"kind": "u32", "options": {"fh": "800:"}},
    {
        "kind": "u32",
        "options": {
            "actions": [
                {"kind": "mirred", "mirred_action": "redirect", "direction": "egress", "to_dev": "ifb0"}
            ]
        },
    },
]
DELAYED: dict[str, Any] = {
    "kind": "netem",
    "dev": "eth0",
    "root": True,
    "options": {
        "delay": {"delay": 0.05, "jitter": 0.01},
        "loss-random": {"loss": 0.01},
        "rate": {"rate": 2_000_000},
        "limit": 10_000,
    },
}


def test_a_link_as_requested_has_no_differences() -> None:
    assert differences_of(TBF, QDISCS, FILTERS) == []
    assert differences_of(NETEM, [DELAYED], []) == []
    assert (
        differences_of(Link(interface="eth0"), [{"kind": "noqueue", "dev": "eth0", "root": True}], []) == []
    )


@pytest.mark.parametrize(
    ("place", "value", "what"),
    [
        ((0, "options", "rate"), 1_900_000, "rate, bit/s: 1.52e+07, not 1.6e+07"),
        ((0, "options", "burst"), 536_870_912, "burst, bytes"),
        ((0, "options", "lat"), 60_000_000, "longest wait, ms: 60000, not 400"),
        ((0, "kind"), "noqueue", "the queue is noqueue, not tbf"),
        ((1, "options", "rate"), 2_000_000, "downlink at ifb0"),
        ((1, "root"), False, "the queue is none, not tbf"),
        ((2, "kind"), "clsact", "incoming traffic at eth0: the queue is none, not ingress"),
        ((2, "dev"), "eth1", "incoming traffic at eth0: the queue is none, not ingress"),
    ],
)
def test_each_difference_of_a_bucket_is_reported(place: tuple[Any, ...], value: Any, what: str) -> None:
    qdiscs = copy.deepcopy(QDISCS)
    *above, last = place
    inner: Any = qdiscs
    for part in above:
        inner = inner[part]
    inner[last] = value
    (message,) = differences_of(TBF, qdiscs, FILTERS)
    assert what in message


@pytest.mark.parametrize("filters", [[], FILTERS[:2], FILTERS + FILTERS])
def test_incoming_traffic_must_be_redirected_exactly_once(filters: list[dict[str, Any]]) -> None:
    (message,) = differences_of(TBF, QDISCS, filters)
    assert "redirected to ifb0" in message


@pytest.mark.parametrize(
    ("name", "value"),
    [("mirred_action", "mirror"), ("direction", "ingress"), ("to_dev", "ifb1"), ("kind", "gact")],
)
def test_an_action_that_does_not_redirect_is_reported(name: str, value: str) -> None:
    filters = copy.deepcopy(FILTERS)
    filters[2]["options"]["actions"][0][name] = value
    assert differences_of(TBF, QDISCS, filters) == [
        "incoming traffic at eth0 is redirected to ifb0 0 times, not 1; other actions: 1"
    ]


def test_an_additional_action_is_reported() -> None:
    filters = copy.deepcopy(FILTERS)
    filters[2]["options"]["actions"].append({"kind": "gact", "control_action": {"type": "drop"}})
    (message,) = differences_of(TBF, QDISCS, filters)
    assert "1 times, not 1; other actions: 1" in message


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("delay", "delay", 0.04),
        ("delay", "jitter", 0.0),
        ("loss-random", "loss", 0.1),
        ("rate", "rate", 10**9),
    ],
)
def test_each_difference_of_a_delay_or_loss_is_reported(part: str, name: str, value: float) -> None:
    qdiscs = copy.deepcopy(DELAYED)
    qdiscs["options"][part][name] = value
    assert len(differences_of(NETEM, [qdiscs], [])) == 1


def test_a_small_queue_for_delayed_packets_is_reported() -> None:
    qdiscs = copy.deepcopy(DELAYED)
    qdiscs["options"]["limit"] = 1000
    assert differences_of(NETEM, [qdiscs], []) == ["uplink at eth0: limit, packets: 1000, not 10000"]


def test_unrequested_shaping_is_reported() -> None:
    assert len(differences_of(Link(interface="eth0"), QDISCS, [])) == 2
    assert len(differences_of(Link(interface="eth0"), [], FILTERS)) == 1
    assert len(differences_of(NETEM, QDISCS[:1], [])) == 1
