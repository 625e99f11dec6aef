"""What a link has to be, and the commands of `tc` and `ip` that make it so. Pure.

What leaves is held by one queue at the interface: tbf for a rate, netem as soon as delay or loss is wanted,
which then holds the rate, too. What arrives can't be queued there; it is sent through a second device (ifb),
as if it left that one. Buckets are small: a bucket of some megabytes lets all of a gossip network's traffic
pass unshaped (kubernetes#90838). But a packet larger than its bucket never leaves it, so each holds one of
the interface's largest; tbf itself cuts what the kernel has joined (GSO) into such packets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

IFB: Final = "ifb0"
LEAST_BIT_PER_S: Final = 1_000  # the kernel counts whole bytes a second: below, a rate would be another one
MOST_BIT_PER_S: Final = 40_000_000_000  # what waits for a faster link overflows the kernel's 32 bits
MOST_DELAY_MS: Final = 60_000
QUEUE_S: Final = 0.4  # longer than that, packets aren't kept
PACKETS: Final = 10_000  # netem's own default of 1,000 would drop within a long delay

_LEAST_BURST_BYTES: Final = 4_000  # a few packets of an ordinary network
_HEADER_BYTES: Final = (
    64  # what a packet has beside its MTU, tags included, and what the kernel's ticks take away
)
_BURST_S: Final = 0.001  # a faster link's bucket: what it sends in this time

Command = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A peer's link; None where nothing is asked. Delay, jitter and loss concern what leaves."""

    interface: str
    uplink_bit_per_s: int | None = None
    downlink_bit_per_s: int | None = None
    latency_ms: int | None = None
    jitter_ms: int | None = None
    loss_ratio: float | None = None

    @property
    def is_disturbed(self) -> bool:
        """True if what leaves is delayed or lost, which needs netem."""
        return bool(self.latency_ms or self.jitter_ms or self.loss_ratio)


def clearing(link: Link) -> tuple[Command, ...]:
    """Return what takes away former shaping; each may fail where there is none."""
    return (
        ("tc", "qdisc", "del", "dev", link.interface, "root"),
        ("tc", "qdisc", "del", "dev", link.interface, "ingress"),
        ("ip", "link", "del", IFB),
    )


def shaping(link: Link, *, mtu_bytes: int) -> Iterator[Command]:
    """Yield what shapes an unshaped link, in order; `mtu_bytes` is the interface's."""
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
    """Return the size of a rate's bucket at an interface: at least one of its largest packets."""
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
