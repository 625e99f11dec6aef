"""Measure the RTT of a TCP handshake: read it from the kernel's `TCP_INFO`.

The time does not include the scheduling delays of the two processes. No data is sent.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Final

from nimlab.agents.rtt.clock import Clock
from nimlab.agents.rtt.outcome import Outcome, Result, failed, succeeded

# struct tcp_info of linux/tcp.h: 8 bytes of small fields, then u32s. New fields are only appended.
_TCP_INFO_BYTES: Final = 104
_RTT_AT: Final = 68  # tcpi_rtt, microseconds
_TOTAL_RETRANS_AT: Final = 100  # tcpi_total_retrans, a count
_U32: Final = struct.Struct("@I")

_RESET_ON_CLOSE: Final = struct.pack("@ii", 1, 0)  # struct linger: closing leaves no TIME_WAIT


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """Kernel data about a new connection. `rtt_s` is None if the kernel has no measurement."""

    rtt_s: float | None
    retransmitted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpProber:
    """A prober that connects, reads the kernel's time and resets the connection."""

    timeout_s: float
    clock: Clock

    async def __call__(self, address: str, port: int) -> Outcome:
        """Probe once."""
        loop = asyncio.get_running_loop()
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
                sock.settimeout(0)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                started_s = self.clock.monotonic_s()
                in_time = await _connect(loop.sock_connect(sock, (address, port)), self.timeout_s)
                elapsed_s = self.clock.monotonic_s() - started_s
                handshake = read_handshake(sock)
        except OSError as error:
            return failed(error)
        # The handshake may have completed in time although this process was scheduled too late.
        in_time = in_time or (handshake.rtt_s is not None and handshake.rtt_s <= self.timeout_s)
        # A retransmission means that a packet was lost; the time then includes the retransmission timer.
        if handshake.retransmitted or not in_time:
            return Outcome(result=Result.TIMEOUT)
        return succeeded(kernel_s=handshake.rtt_s, elapsed_s=elapsed_s)


async def _connect(connecting: Awaitable[None], timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            await connecting
    except TimeoutError:
        return False
    return True


def read_handshake(sock: socket.socket) -> Handshake:
    """Return the kernel's data about a connection. Without TCP_INFO, `rtt_s` is None."""
    option = getattr(socket, "TCP_INFO", None)
    if option is None:
        return Handshake(rtt_s=None, retransmitted=False)
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, option, _TCP_INFO_BYTES)
    except OSError:
        return Handshake(rtt_s=None, retransmitted=False)
    return parse_tcp_info(info)


def parse_tcp_info(info: bytes) -> Handshake:
    """Read the round-trip time and whether a segment was retransmitted. Pure.

    The time is None if it is 0. If `info` is too short, the time is None and `retransmitted` is False.
    """
    if len(info) < _TCP_INFO_BYTES:
        return Handshake(rtt_s=None, retransmitted=False)
    (rtt_us,) = _U32.unpack_from(info, _RTT_AT)
    (retransmissions,) = _U32.unpack_from(info, _TOTAL_RETRANS_AT)
    return Handshake(rtt_s=rtt_us / 1e6 if rtt_us else None, retransmitted=retransmissions > 0)
