"""What a link has to be, and the commands of `tc` and `ip` that make it so. Pure.

What leaves is held by one queue at the interface: tbf for a rate, netem as soon as delay or loss is wanted,
which then holds the rate, too. What arrives can't be queued there; it is sent through a second device (ifb),
as if it left that one. Buckets are small: a bucket of some megabytes lets all of a gossip network's traffic
pass unshaped (kubernetes#90838).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

IFB: Final = "ifb0"

_LEAST_BURST_BYTES: Final = 4_000  # more than any packet of an ordinary network
_BURST_S: Final = 0.001  # a faster link's bucket: what it sends in this time
_QUEUE_S: Final = 0.4  # longer than that, packets aren't kept
_PACKETS: Final = 10_000  # netem's own default of 1,000 would drop within a long delay

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


def shaping(link: Link) -> Iterator[Command]:
    """Yield what shapes an unshaped link, in order."""
    if link.is_disturbed:
        yield ("tc", "qdisc", "add", "dev", link.interface, "root", "netem", *_disturbance(link))
    elif link.uplink_bit_per_s is not None:
        yield ("tc", "qdisc", "add", "dev", link.interface, "root", *_bucket(link.uplink_bit_per_s))
    if link.downlink_bit_per_s is not None:
        yield ("ip", "link", "add", IFB, "type", "ifb")
        yield ("ip", "link", "set", IFB, "up")
        yield ("tc", "qdisc", "add", "dev", IFB, "root", *_bucket(link.downlink_bit_per_s))
        yield ("tc", "qdisc", "add", "dev", link.interface, "handle", "ffff:", "ingress")
        everything = ("protocol", "all", "u32", "match", "u32", "0", "0")
        redirect = ("action", "mirred", "egress", "redirect", "dev", IFB)
        yield ("tc", "filter", "add", "dev", link.interface, "parent", "ffff:", *everything, *redirect)


def burst_bytes(rate_bit_per_s: int) -> int:
    """Return the size of a rate's bucket."""
    return max(_LEAST_BURST_BYTES, int(rate_bit_per_s / 8 * _BURST_S))


def _bucket(rate_bit_per_s: int) -> Command:
    burst = f"{burst_bytes(rate_bit_per_s)}b"
    return ("tbf", "rate", f"{rate_bit_per_s}bit", "burst", burst, "latency", f"{_QUEUE_S * 1000:.0f}ms")


def _disturbance(link: Link) -> Iterator[str]:
    if link.latency_ms or link.jitter_ms:
        yield from ("delay", f"{link.latency_ms or 0}ms")
        if link.jitter_ms:
            yield from (f"{link.jitter_ms}ms", "distribution", "normal")
    if link.loss_ratio:
        yield from ("loss", f"{link.loss_ratio * 100:.6g}%")
    if link.uplink_bit_per_s is not None:
        yield from ("rate", f"{link.uplink_bit_per_s}bit")
    yield from ("limit", str(_PACKETS))
