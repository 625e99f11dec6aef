"""What the other peers probe: TCP connections are taken and closed, UDP requests are echoed.

In: an address (one's own, not any: an answer has to come from where the request went) and a port. Out: two
listening sockets served by the running loop, and a count of what came. Nothing is kept per caller, nothing
that anybody sends can stop it, and an answer is never longer than its request. Not done here: ICMP, which the
kernel answers.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from enum import Enum
from typing import Final

from nimlab.rtt.outcome import Method
from nimlab.rtt.probe_udp import answer_to


class Treatment(Enum):
    """What was done with something that came in."""

    ANSWERED = "answered"
    IGNORED = "ignored"  # no request of ours: nothing is sent back


Count = Callable[[Method, Treatment], None]

_BACKLOG: Final = 256
_AT_ONCE: Final = 64  # so many per turn of the loop: a flood doesn't stop the probes
_LARGEST_BYTES: Final = 64  # longer ones arrive cut, which makes them as wrong as they are


@contextmanager
def serve_echo(address: str, port: int, count: Count) -> Iterator[None]:
    """Answer probes while the context is open. Raises OSError if the port can't be had."""
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
    """Close what has connected: the handshake was all. Not by a reset: the prober reads its time first."""
    for _ in range(_AT_ONCE):
        try:
            connection, _ = sock.accept()
        except OSError:  # none left, or one that went away before its turn
            return
        connection.close()
        count(Method.TCP, Treatment.ANSWERED)


def _echo(sock: socket.socket, count: Count) -> None:
    for _ in range(_AT_ONCE):
        try:
            request, sender = sock.recvfrom(_LARGEST_BYTES)
        except OSError:  # none left
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
    except (
        OSError
    ):  # a full buffer, or a sender that nobody can answer: to the prober it is a loss, as it should
        return
