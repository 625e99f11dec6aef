"""The requested link, and the `tc` and `ip` commands that configure it. Pure.

Outgoing traffic passes one queue at the interface. It is tbf if only a rate is set. It is netem, which also
limits the rate, if delay or loss is set. Incoming traffic cannot be queued at the interface. It is redirected
to a second device (ifb) and limited as it leaves that device. Buckets are small, because a bucket of some
megabytes lets all traffic of a gossip network pass unshaped (kubernetes#90838). A packet that is larger than
the bucket never passes, so a bucket holds at least one packet of the interface's MTU. tbf splits packets that
the kernel merged (GSO).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

IFB: Final = "ifb0"
LEAST_BIT_PER_S: Final = (
    1_000  # lower rates would be inexact, because the kernel rounds to whole bytes per second
)
MOST_BIT_PER_S: Final = 40_000_000_000  # the queue size of a faster link overflows 32 bits in the kernel
MOST_DELAY_MS: Final = 60_000
QUEUE_S: Final = 0.4  # longest time that a packet waits in a queue
PACKETS: Final = 10_000  # netem's default of 1,000 would drop packets during a long delay

_LEAST_BURST_BYTES: Final = 4_000  # a few packets of 1,500 bytes
_HEADER_BYTES: Final = 64  # link headers with tags, and rounding to ticks
_BURST_S: Final = 0.001  # the bucket of a fast link holds the traffic of this period

Command = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """The requested link; None means no limit. Delay, jitter and loss apply to outgoing traffic."""

    interface: str
    uplink_bit_per_s: int | None = None
    downlink_bit_per_s: int | None = None
    latency_ms: int | None = None
    jitter_ms: int | None = None
    loss_ratio: float | None = None

    @property
    def is_disturbed(self) -> bool:
        """Return True if delay or loss is requested; both require netem."""
        return bool(self.latency_ms or self.jitter_ms or self.loss_ratio)


def clearing(link: Link) -> tuple[Command, ...]:
    """Return commands that remove earlier shaping; a command fails if there is nothing to remove."""
    return (
        ("tc", "qdisc", "del", "dev", link.interface, "root"),
        ("tc", "qdisc", "del", "dev", link.interface, "ingress"),
        ("ip", "link", "del", IFB),
    )


def shaping(link: Link, *, mtu_bytes: int) -> Iterator[Command]:
    """Yield the commands that shape an unshaped link, in order; `mtu_bytes` is the MTU of its interface."""
    if link.is_disturbed:
        yield ("tc", "qdisc", "add", "dev", link.interface, "root", "netem", *_disturbance(link))
    elif link.uplink_bit_per_s is not None:
        yield (
            "tc",
            "qdisc",
            "add",
            "dev",
            link.interface,
            "root",
            *_bucket(link.uplink_bit_per_s, mtu_bytes),
        )
    if link.downlink_bit_per_s is not None:
        yield ("ip", "link", "add", IFB, "type", "ifb")
        yield ("ip", "link", "set", IFB, "up")
        yield ("tc", "qdisc", "add", "dev", IFB, "root", *_bucket(link.downlink_bit_per_s, mtu_bytes))
        yield ("tc", "qdisc", "add", "dev", link.interface, "handle", "ffff:", "ingress")
        everything = ("protocol", "all", "u32", "match", "u32", "0", "0")
        redirect = ("action", "mirred", "egress", "redirect", "dev", IFB)
        yield ("tc", "filter", "add", "dev", link.interface, "parent", "ffff:", *everything, *redirect)


def burst_bytes(rate_bit_per_s: int, *, mtu_bytes: int) -> int:
    """Return the bucket size for a rate, which is at least the size of the largest packet."""
    return max(_LEAST_BURST_BYTES, mtu_bytes + _HEADER_BYTES, int(rate_bit_per_s / 8 * _BURST_S))


def _bucket(rate_bit_per_s: int, mtu_bytes: int) -> Command:
    burst = f"{burst_bytes(rate_bit_per_s, mtu_bytes=mtu_bytes)}b"
    return ("tbf", "rate", f"{rate_bit_per_s}bit", "burst", burst, "latency", f"{QUEUE_S * 1000:.0f}ms")


def _disturbance(link: Link) -> Iterator[str]:
    if link.latency_ms or link.jitter_ms:
        yield from ("delay", f"{link.latency_ms or 0}ms")
        if link.jitter_ms:
            yield from (f"{link.jitter_ms}ms", "distribution", "normal")
    if link.loss_ratio:
        yield from ("loss", f"{link.loss_ratio * 100:.6g}%")
    if link.uplink_bit_per_s is not None:
        yield from ("rate", f"{link.uplink_bit_per_s}bit")
    yield from ("limit", str(PACKETS))
