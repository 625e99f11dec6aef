"""Each failure of `tc` and `ip` has its own message with the cause and the fix."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nimlab.agents.shape.explain import explain
from nimlab.agents.shape.link import Command, Link, shaping

LIMITED = Link(interface="eth0", uplink_bit_per_s=16_000_000, downlink_bit_per_s=16_000_000)
DELAYED = Link(interface="eth0", latency_ms=50, jitter_ms=10, uplink_bit_per_s=16_000_000)


def commands() -> Iterator[Command]:
    """Yield one example of each kind of command with which a link is shaped."""
    yield from shaping(DELAYED, mtu_bytes=1500)
    yield from shaping(LIMITED, mtu_bytes=1500)


NETEM, TBF, IFB, IFB_UP, IFB_TBF, INGRESS, FILTER = commands()
LOOK = ("ip", "-json", "link", "show", "dev", "eth7")
UNKNOWN = "Error: Specified qdisc kind is unknown."
OLD = "RTNETLINK answers: No such file or directory"  # an old kernel reports this for any missing module
TALKING = "\nWe have an error talking to the kernel"
NO_NETEM = (
    "the node's kernel has no netem: run `modprobe sch_netem` on the node, "
    "or remove `latency`, `jitter` and `loss`"
)
NO_TBF = "the node's kernel has no tbf: run `modprobe sch_tbf` on the node, or remove `uplink` and `downlink`"
NO_IFB = "the node's kernel has no ifb devices: run `modprobe ifb` on the node, or remove `downlink`"
NO_INGRESS = (
    "the node's kernel has no ingress queue: run `modprobe sch_ingress` on the node, or remove `downlink`"
)
NO_U32 = "the node's kernel has no u32 filters: run `modprobe cls_u32` on the node, or remove `downlink`"
NO_MIRRED = (
    "the node's kernel has no mirred actions: run `modprobe act_mirred` on the node, or remove `downlink`"
)
NO_EITHER = (
    "the node's kernel has no u32 filters or mirred actions: run `modprobe -a cls_u32 act_mirred` "
    "on the node, or remove `downlink`"
)
NO_TABLE = (
    "the image lacks the normal distribution (`normal.dist`): install all of iproute2 or remove `jitter`"
)
NO_RIGHT = "this container lacks the capability NET_ADMIN"
NO_DEVICE = "the interface does not exist"


@pytest.mark.parametrize(
    ("command", "output", "meaning"),
    [
        (NETEM, UNKNOWN, NO_NETEM),
        (NETEM, OLD, NO_NETEM),
        (
            NETEM,
            "No distribution data for normal (/usr/lib/tc//normal.dist: No such file or directory)",
            NO_TABLE,
        ),
        (TBF, UNKNOWN, NO_TBF),
        (TBF, OLD, NO_TBF),
        (IFB_TBF, UNKNOWN, NO_TBF),
        (IFB, "Error: Unknown device type.", NO_IFB),
        (IFB, "RTNETLINK answers: Operation not supported", NO_IFB),
        (INGRESS, UNKNOWN, NO_INGRESS),
        (INGRESS, OLD, NO_INGRESS),
        (INGRESS, "Error: Cannot find ingress queue for specified device.", NO_INGRESS),
        (FILTER, "Error: TC classifier not found." + TALKING, NO_U32),
        (FILTER, "Error: Failed to load TC action module." + TALKING, NO_MIRRED),
        (FILTER, OLD + TALKING, NO_EITHER),
        (TBF, "RTNETLINK answers: Operation not permitted", NO_RIGHT),
        (IFB, "RTNETLINK answers: Operation not permitted", NO_RIGHT),
        (LOOK, 'Device "eth7" does not exist.', NO_DEVICE),
        (TBF, 'Cannot find device "eth0"', NO_DEVICE),
        (IFB, "RTNETLINK answers: File exists", "unexpected error"),
        (IFB_UP, "RTNETLINK answers: Cannot allocate memory", "unexpected error"),
        (TBF, "", "unexpected error"),
    ],
)
def test_each_failure_has_its_message(command: Command, output: str, meaning: str) -> None:
    assert explain(command, output) == f"{meaning} (`{' '.join(command)}`: {' '.join(output.split())})"
