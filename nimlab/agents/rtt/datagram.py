"""Send a datagram on a connected socket and measure the time until its answer arrives.

Other datagrams are ignored, and a flood of them does not block the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Final

from nimlab.agents.rtt.clock import Clock
from nimlab.agents.rtt.outcome import Outcome, Result, failed, succeeded

# Python does not define SO_TIMESTAMPNS (asm-generic/socket.h). With it, the kernel timestamps each datagram.
# A few architectures (sparc, parisc) use another number. On these, this process reads the clock itself.
_SO_TIMESTAMPNS: Final = 35
_TIMESPEC: Final = struct.Struct("@ll")
_LARGEST_BYTES: Final = 2048
_MOST_WAITING: Final = 64  # queued datagrams to inspect after the timeout


async def readable(sock: socket.socket) -> None:
    """Wait until the socket has data or an error."""
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
    with contextlib.suppress(OSError):  # the kernel does not support timestamps
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
    """Return the kernel timestamp of the answer (None if missing) and whether it was read in time.

    An answer that is read too late may have arrived in time. The timestamp shows whether it did.
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
    """Return a datagram and its kernel timestamp (wall time); None if there is no datagram."""
    try:
        data, ancillary, _, _ = sock.recvmsg(_LARGEST_BYTES, socket.CMSG_SPACE(_TIMESPEC.size))
    except BlockingIOError:
        # This is possible even for a readable socket: the kernel verifies the checksum during the read.
        return None
    for level, kind, value in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(value) == _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack(value)
            return data, seconds + nanoseconds / 1e9
    return data, None
