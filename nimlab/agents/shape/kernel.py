"""Compare the kernel's queues and filters with the requested link. Pure.

The input is the JSON of `tc -json qdisc show` and `tc -json filter show`. It contains rates in bytes per
second, netem times in seconds, tbf times in microseconds, and ratios from 0 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from nimlab.agents.shape.link import IFB, PACKETS, QUEUE_S, Link, burst_bytes

_TOLERANCE: Final = 0.01  # relative; the kernel rounds times to ticks
_REDIRECT: Final = {"kind": "mirred", "mirred_action": "redirect", "direction": "egress", "to_dev": IFB}

Json = Mapping[str, Any]


def differences(
    link: Link, qdiscs: Sequence[Json], filters: Sequence[Json], *, mtu_bytes: int
) -> Iterator[str]:
    """Yield each difference between the kernel and the requested link.

    Args:
        link: the requested link.
        qdiscs: queues of all devices.
        filters: ingress filters of the link's interface.
        mtu_bytes: MTU of the interface.
    """
    up, down = (_root(qdiscs, device) for device in (link.interface, IFB))
    if link.is_disturbed:
        yield from _netem_differences(link, up)
    else:
        yield from _rate_differences(f"uplink at {link.interface}", link.uplink_bit_per_s, up, mtu_bytes)
    yield from _rate_differences(f"downlink at {IFB}", link.downlink_bit_per_s, down, mtu_bytes)
    yield from _redirect_differences(link, qdiscs, filters)


def _root(qdiscs: Sequence[Json], device: str) -> Json:
    return next((qdisc for qdisc in qdiscs if qdisc.get("dev") == device and qdisc.get("root")), {})


def _rate_differences(what: str, rate_bit_per_s: int | None, qdisc: Json, mtu_bytes: int) -> Iterator[str]:
    options = qdisc.get("options") or {}
    if rate_bit_per_s is None:
        if qdisc.get("kind") in ("tbf", "netem"):
            yield f"{what}: the queue is {qdisc['kind']}, but no limit was requested"
        return
    if qdisc.get("kind") != "tbf":
        yield f"{what}: the queue is {qdisc.get('kind', 'none')}, not tbf"
        return
    bucket_bytes = burst_bytes(rate_bit_per_s, mtu_bytes=mtu_bytes)
    yield from _compare(f"{what}: rate, bit/s", rate_bit_per_s, 8 * options.get("rate", 0))
    yield from _compare(f"{what}: burst, bytes", bucket_bytes, options.get("burst", 0))
    yield from _compare(f"{what}: longest wait, ms", 1000 * QUEUE_S, options.get("lat", 0) / 1000)


def _netem_differences(link: Link, qdisc: Json) -> Iterator[str]:
    what = f"uplink at {link.interface}"
    if qdisc.get("kind") != "netem":
        yield f"{what}: the queue is {qdisc.get('kind', 'none')}, not netem"
        return
    options = qdisc.get("options") or {}
    delay, loss, rate = (options.get(name) or {} for name in ("delay", "loss-random", "rate"))
    yield from _compare(f"{what}: delay, ms", link.latency_ms or 0, 1000 * delay.get("delay", 0))
    yield from _compare(f"{what}: jitter, ms", link.jitter_ms or 0, 1000 * delay.get("jitter", 0))
    yield from _compare(f"{what}: loss, %", 100 * (link.loss_ratio or 0), 100 * loss.get("loss", 0))
    yield from _compare(f"{what}: rate, bit/s", link.uplink_bit_per_s or 0, 8 * rate.get("rate", 0))
    yield from _compare(f"{what}: limit, packets", PACKETS, options.get("limit", 0))


def _redirect_differences(link: Link, qdiscs: Sequence[Json], filters: Sequence[Json]) -> Iterator[str]:
    """Yield a difference if incoming traffic is not redirected as requested.

    If a downlink rate is set, exactly one action must redirect the traffic, otherwise none. An action that
    mirrors the traffic instead would limit nothing.
    """
    what = f"incoming traffic at {link.interface}"
    wanted = int(link.downlink_bit_per_s is not None)
    if wanted and not any(q.get("dev") == link.interface and q.get("kind") == "ingress" for q in qdiscs):
        yield f"{what}: the queue is none, not ingress"
    actions = [action for entry in filters for action in (entry.get("options") or {}).get("actions", ())]
    redirected = sum(_REDIRECT.items() <= dict(action).items() for action in actions)
    if redirected != wanted or len(actions) != wanted:
        others = len(actions) - redirected
        yield f"{what} is redirected to {IFB} {redirected} times, not {wanted}; other actions: {others}"


def _compare(what: str, wanted: float, actual: float) -> Iterator[str]:
    if not math.isclose(wanted, actual, rel_tol=_TOLERANCE):
        yield f"{what}: {actual:.6g}, not {wanted:.6g}"
