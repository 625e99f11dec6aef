"""Results of probes, and the mapping from system errors to results. Pure."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final


class Method(Enum):
    """The method of a probe.

    The value `libp2p` is reserved for nodes that ping over their own connections.
    """

    TCP = "tcp"  # the handshake; the kernel measures its time
    UDP = "udp"  # a datagram and its echo
    ICMP = "icmp"  # an echo request; the peer's kernel answers it


class Result(Enum):
    """Result of a probe. All except SUCCESS and ERROR count as loss."""

    SUCCESS = "success"
    TIMEOUT = "timeout"  # no answer in time, or an answer only after the kernel retransmitted the handshake
    REFUSED = "refused"  # the peer's kernel answers, but its exporter does not listen
    UNREACHABLE = "unreachable"  # there is no route, or a network policy forbids the connection
    ERROR = "error"  # a local failure (such as no free descriptor), unrelated to the peer


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Outcome of one probe. `rtt_s` is set if and only if the probe succeeded.

    `kernel_timed`: the kernel took the time, so it contains no scheduling delay of this process.
    """

    result: Result
    rtt_s: float | None = None
    kernel_timed: bool = False


Prober = Callable[[str, int], Awaitable[Outcome]]  # address and port -> outcome

_RESULT_OF: Final[Mapping[int | None, Result]] = {
    errno.ETIMEDOUT: Result.TIMEOUT,
    errno.ECONNREFUSED: Result.REFUSED,
    errno.ECONNRESET: Result.REFUSED,
    errno.EHOSTUNREACH: Result.UNREACHABLE,
    errno.EHOSTDOWN: Result.UNREACHABLE,
    errno.ENETUNREACH: Result.UNREACHABLE,
    errno.ENETDOWN: Result.UNREACHABLE,
    errno.EACCES: Result.UNREACHABLE,  # a filter on this machine, or a route of type `prohibit`
    errno.EPERM: Result.UNREACHABLE,  # the same causes, for datagrams
}


def failed(error: OSError) -> Outcome:
    """Return the outcome of a probe that failed with a system error."""
    if isinstance(error, TimeoutError):  # asyncio's TimeoutError has no errno
        return Outcome(result=Result.TIMEOUT)
    return Outcome(result=_RESULT_OF.get(error.errno, Result.ERROR))


def succeeded(*, kernel_s: float | None, elapsed_s: float) -> Outcome:
    """Return a successful outcome with the kernel's time if it is plausible, otherwise with the elapsed time.

    The elapsed time includes the kernel's time. A greater kernel time is therefore wrong: the wall clock was
    changed during the probe.
    """
    if kernel_s is not None and 0 < kernel_s <= elapsed_s:
        return Outcome(result=Result.SUCCESS, rtt_s=kernel_s, kernel_timed=True)
    return Outcome(result=Result.SUCCESS, rtt_s=elapsed_s)
