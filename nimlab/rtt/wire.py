"""Datagrams on a connected socket: wait until there is one, and send one and take the time to its answer.

In: a connected, non-blocking socket. Out: an `Outcome`. Whatever else arrives is passed over, and no flood of
it keeps the other tasks from their turn. Not done here: what a request looks like, and opening sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Final

from nimlab.rtt.clock import Clock
from nimlab.rtt.outcome import Outcome, Result, failed, succeeded

# SO_TIMESTAMPNS of asm-generic/socket.h, which Python doesn't name: the kernel notes when a datagram came in.
# A few architectures (sparc, parisc) number it differently; there no stamps come and our own time is taken.
_SO_TIMESTAMPNS: Final = 35
_TIMESPEC: Final = struct.Struct("@ll")
_LARGEST_BYTES: Final = 2048
_MOST_WAITING: Final = 64  # datagrams that are looked through when the time is over


async def readable(sock: socket.socket) -> None:
    """Wait until there is something to receive, or an error to collect."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(sock, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(sock)


async def exchange(
    sock: socket.socket,
    request: bytes,
    is_answer: Callable[[bytes], bool],
    *,
    timeout_s: float,
    clock: Clock,
) -> Outcome:
    """Send a request and wait for its answer."""
    with contextlib.suppress(OSError):  # a kernel without stamps: then there are none
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    sent_wall_s, sent_s = clock.wall_s(), clock.monotonic_s()
    try:
        sock.send(request)
        stamp_s, in_time = await _wait(sock, is_answer, timeout_s=timeout_s)
    except OSError as error:
        return failed(error)
    elapsed_s = clock.monotonic_s() - sent_s
    kernel_s = None if stamp_s is None else stamp_s - sent_wall_s
    if not in_time and (kernel_s is None or kernel_s > timeout_s):
        return Outcome(result=Result.TIMEOUT)
    return succeeded(kernel_s=kernel_s, elapsed_s=elapsed_s)


async def _wait(
    sock: socket.socket, is_answer: Callable[[bytes], bool], *, timeout_s: float
) -> tuple[float | None, bool]:
    """Return the kernel's stamp of the answer, None if it has none, and whether we saw it in time.

    If we didn't, it may have come in time all the same, and only we had no turn: the stamp tells.
    """
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                await readable(sock)
                datagram = _receive(sock)
                if datagram is not None and is_answer(datagram[0]):
                    return datagram[1], True
    except TimeoutError:
        for _ in range(_MOST_WAITING):
            datagram = _receive(sock)
            if datagram is None:
                break
            if is_answer(datagram[0]):
                return datagram[1], False
    return None, False


def _receive(sock: socket.socket) -> tuple[bytes, float | None] | None:
    """Return a datagram and the wall time at which the kernel got it; None if there isn't any."""
    try:
        data, ancillary, _, _ = sock.recvmsg(_LARGEST_BYTES, socket.CMSG_SPACE(_TIMESPEC.size))
    except BlockingIOError:  # also after being readable: a bad checksum is found out only on reading
        return None
    for level, kind, value in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(value) == _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack(value)
            return data, seconds + nanoseconds / 1e9
    return data, None
