"""Send TCP traffic for some seconds: `listen`, `send ADDRESS PORT SECONDS`, `receive ADDRESS PORT SECONDS`.

The listener prints its port. The receiver prints the rate in bit/s; the start of the connection is not
measured.
"""

from __future__ import annotations

import socket
import sys
import time
from typing import Final

_WARM_UP_S: Final = 0.5
_TIMEOUT_S: Final = 20.0  # a link without traffic fails the test
_CHUNK: Final = bytes(64 * 1024)


def pour(sock: socket.socket, seconds: float) -> None:
    """Send data until the time is over."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        sock.sendall(_CHUNK)


def measure(sock: socket.socket, seconds: float) -> float:
    """Read until the connection ends; return the rate in bit/s."""
    began_s = time.monotonic()
    counted, since_s, last_s = 0, began_s, began_s
    while data := sock.recv(1 << 20):
        last_s = time.monotonic()
        if last_s - began_s < _WARM_UP_S:
            since_s = last_s
        elif last_s - began_s < seconds:
            counted += len(data)
    return 8 * counted / max(min(last_s, began_s + seconds) - since_s, 1e-9)


def listen() -> None:
    """Serve one connection; its first byte selects whether this side reads or writes."""
    with socket.create_server(("", 0)) as server:
        print(server.getsockname()[1], flush=True)  # noqa: T201 -- this is its output
        connection, _ = server.accept()
    with connection:
        direction, seconds = connection.recv(1), float(connection.recv(7))
        if direction == b"s":
            print(measure(connection, seconds), flush=True)  # noqa: T201
        else:
            pour(connection, seconds)


def talk(direction: str, address: str, port: str, seconds: float) -> None:
    """Connect, and send or receive."""
    with socket.create_connection((address, int(port)), timeout=_TIMEOUT_S) as sock:
        sock.sendall(direction[0].encode() + f"{seconds:07.3f}".encode())
        if direction == "send":
            pour(sock, seconds)
        else:
            print(measure(sock, seconds))  # noqa: T201


if __name__ == "__main__":
    if sys.argv[1] == "listen":
        listen()
    else:
        talk(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]))
