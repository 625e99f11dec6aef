"""UDP relay that delays every datagram, to simulate a slow network path."""

from __future__ import annotations

import heapq
import itertools
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

Endpoint = tuple[str, int]


@contextmanager
def delay_datagrams(target: Endpoint, *, delay_s: float) -> Iterator[int]:
    """Relay datagrams to a target and back, with this delay in each direction; yield the relay's port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as front:
        front.bind(("127.0.0.1", 0))
        wake, woken = socket.socketpair()
        thread = threading.Thread(target=_relay, args=(front, woken, target, delay_s))
        thread.start()
        try:
            yield front.getsockname()[1]
        finally:
            wake.send(b"x")
            thread.join()
            wake.close()
            woken.close()


def _relay(front: socket.socket, woken: socket.socket, target: Endpoint, delay_s: float) -> None:
    callers: dict[Endpoint, socket.socket] = {}  # one socket to the target per caller
    held: list[tuple[float, int, socket.socket, bytes, Endpoint]] = []
    order = itertools.count()
    with selectors.DefaultSelector() as selector:
        selector.register(front, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while True:
            timeout_s = max(0.0, held[0][0] - time.monotonic()) if held else None
            for key, _ in selector.select(timeout_s):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                if sock is woken:
                    for caller in callers.values():
                        caller.close()
                    return
                data, sender = sock.recvfrom(65535)
                due_s = time.monotonic() + delay_s
                if sock is front:
                    if sender not in callers:
                        callers[sender] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                        selector.register(callers[sender], selectors.EVENT_READ, sender)
                    heapq.heappush(held, (due_s, next(order), callers[sender], data, target))
                else:
                    heapq.heappush(held, (due_s, next(order), front, data, key.data))
            while held and held[0][0] <= time.monotonic():
                _, _, sock, data, receiver = heapq.heappop(held)
                sock.sendto(data, receiver)
