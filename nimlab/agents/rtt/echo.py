"""Answer the probes of other peers: accept and close TCP connections, echo UDP requests.

The sockets are bound to one address, because an answer must come from the address that was probed. The module
stores nothing about the senders. An answer is never longer than its request. ICMP echo requests are answered
by the kernel.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from enum import Enum
from typing import Final

from nimlab.agents.rtt.outcome import Method
from nimlab.agents.rtt.probe_udp import answer_to


class Treatment(Enum):
    """The treatment of an incoming connection or datagram."""

    ANSWERED = "answered"
    IGNORED = "ignored"  # not a valid request; no answer is sent


Count = Callable[[Method, Treatment], None]

_BACKLOG: Final = 256
_AT_ONCE: Final = 64  # maximum per iteration of the event loop, so that a flood does not delay the probes
_LARGEST_BYTES: Final = 64  # longer datagrams are truncated and therefore ignored


@contextmanager
def serve_echo(address: str, port: int, count: Count) -> Iterator[None]:
    """Answer probes while the context is open. Raises OSError if the port is not available."""
    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        tcp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tcp.bind((address, port))
        tcp.listen(_BACKLOG)
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind((address, port))
        for sock, serve in ((tcp, _accept), (udp, _echo)):
            sock.settimeout(0)
            loop.add_reader(sock, serve, sock, count)
            stack.callback(loop.remove_reader, sock)
        yield


def _accept(sock: socket.socket, count: Count) -> None:
    """Close new connections without a reset, because the prober still reads the time of its handshake."""
    for _ in range(_AT_ONCE):
        try:
            connection, _ = sock.accept()
        except OSError:  # no connection is waiting, or the peer closed it before it was accepted
            return
        connection.close()
        count(Method.TCP, Treatment.ANSWERED)


def _echo(sock: socket.socket, count: Count) -> None:
    for _ in range(_AT_ONCE):
        try:
            request, sender = sock.recvfrom(_LARGEST_BYTES)
        except OSError:  # no datagram is waiting
            return
        answer = answer_to(request)
        if answer is None:
            count(Method.UDP, Treatment.IGNORED)
        else:
            count(Method.UDP, Treatment.ANSWERED)
            _send(sock, answer, sender)


def _send(sock: socket.socket, answer: bytes, receiver: tuple[str, int]) -> None:
    try:
        sock.sendto(answer, receiver)
    except OSError:  # the buffer is full or the sender is unreachable; the prober correctly counts a loss
        return
