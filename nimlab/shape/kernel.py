"""What the kernel says that a link is, against what it has to be. Pure.

In: the JSON of `tc -json qdisc show` and `filter show`. Out: differences in words, none if all is so. tc says
rates in bytes a second, times in seconds, shares from 0 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from nimlab.shape.link import IFB, Link, burst_bytes

_TOLERANCE: Final = 0.01  # the kernel counts in ticks

Json = Mapping[str, Any]


def differences(link: Link, qdiscs: Sequence[Json], filters: Sequence[Json]) -> Iterator[str]:
    """Yield what isn't as the link has to be; `qdiscs` are those of all devices."""
    root = _root(qdiscs, link.interface)
    if link.is_disturbed:
        yield from _disturbed(link, root)
    else:
        yield from _limited(f"uplink at {link.interface}", link.uplink_bit_per_s, root)
    yield from _limited(f"downlink at {IFB}", link.downlink_bit_per_s, _root(qdiscs, IFB))
    redirected = sum(
        a.get("to_dev") == IFB for one in filters for a in one.get("options", {}).get("actions", ())
    )
    wanted = int(link.downlink_bit_per_s is not None)
    if redirected != wanted:
        yield f"what arrives at {link.interface} is led through {IFB} {redirected} times, not {wanted}"


def _root(qdiscs: Sequence[Json], device: str) -> Json:
    return next((one for one in qdiscs if one.get("dev") == device and one.get("root")), {})


def _limited(what: str, rate_bit_per_s: int | None, qdisc: Json) -> Iterator[str]:
    options = qdisc.get("options") or {}
    if rate_bit_per_s is None:
        if qdisc.get("kind") in ("tbf", "netem"):
            yield f"{what}: there is a {qdisc['kind']} queue, and no limit is asked for"
        return
    if qdisc.get("kind") != "tbf":
        yield f"{what}: the queue is {qdisc.get('kind', 'none')}, not tbf"
        return
    yield from _compare(f"{what}: rate, bit/s", rate_bit_per_s, 8 * options.get("rate", 0))
    yield from _compare(f"{what}: burst, bytes", burst_bytes(rate_bit_per_s), options.get("burst", 0))


def _disturbed(link: Link, qdisc: Json) -> Iterator[str]:
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


def _compare(what: str, wanted: float, found: float) -> Iterator[str]:
    if not math.isclose(wanted, found, rel_tol=_TOLERANCE):
        yield f"{what}: {found:.6g}, not {wanted:.6g}"
