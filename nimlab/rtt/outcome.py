"""What can become of a probe, and which error of the system means what.

In: an OSError, or a time taken. Out: an `Outcome`. Pure. Not done here: probing and counting.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final


class Method(Enum):
    """How a peer is probed. `libp2p` is reserved for nodes that ping over their own connections."""

    TCP = "tcp"  # the handshake, timed by the kernel
    UDP = "udp"  # a datagram and its echo
    ICMP = "icmp"  # an echo request, answered by the peer's kernel


class Result(Enum):
    """What became of a probe. All but SUCCESS and ERROR are losses."""

    SUCCESS = "success"
    TIMEOUT = "timeout"  # no answer in time, or only after the kernel had sent the handshake again
    REFUSED = "refused"  # the peer's machine answers, its exporter doesn't listen
    UNREACHABLE = "unreachable"  # no route, or a policy forbids it
    ERROR = "error"  # our own failure (such as no free descriptor): says nothing about the peer


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One probe's end. `rtt_s` is there exactly when it succeeded.

    `kernel_timed`: the kernel took the time, so that waiting for this process's turn is not in it.
    """

    result: Result
    rtt_s: float | None = None
    kernel_timed: bool = False


Prober = Callable[[str, int], Awaitable[Outcome]]  # address and port -> what became of it

_RESULT_OF: Final[Mapping[int | None, Result]] = {
    errno.ETIMEDOUT: Result.TIMEOUT,
    errno.ECONNREFUSED: Result.REFUSED,
    errno.ECONNRESET: Result.REFUSED,
    errno.EHOSTUNREACH: Result.UNREACHABLE,
    errno.EHOSTDOWN: Result.UNREACHABLE,
    errno.ENETUNREACH: Result.UNREACHABLE,
    errno.ENETDOWN: Result.UNREACHABLE,
    errno.EACCES: Result.UNREACHABLE,  # a filter on this machine, or a route of type `prohibit`
    errno.EPERM: Result.UNREACHABLE,  # the same, for datagrams
}


def failed(error: OSError) -> Outcome:
    """Return what the system's error means for a probe."""
    if isinstance(error, TimeoutError):  # asyncio's has no number
        return Outcome(result=Result.TIMEOUT)
    return Outcome(result=_RESULT_OF.get(error.errno, Result.ERROR))


def succeeded(*, kernel_s: float | None, elapsed_s: float) -> Outcome:
    """Return a success with the kernel's time where it can be believed, else with our own.

    Our own includes all of the kernel's, so a greater one is a mistake (a wall clock that was set meanwhile).
    """
    if kernel_s is not None and 0 < kernel_s <= elapsed_s:
        return Outcome(result=Result.SUCCESS, rtt_s=kernel_s, kernel_timed=True)
    return Outcome(result=Result.SUCCESS, rtt_s=elapsed_s)
