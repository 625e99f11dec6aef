"""Measure the RTT of a UDP datagram and its echo, and define the packet format.

The request and the answer are as long as a small gossip header. The kernel timestamps the answer when it
arrives. The time still includes the delay until the peer's exporter is scheduled and sends the answer.
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass, field
from typing import Final

from nimlab.agents.rtt.clock import Clock
from nimlab.agents.rtt.datagram import exchange
from nimlab.agents.rtt.outcome import Outcome, failed

# The fields are magic number, version, kind, zero, sequence number, nonce of the sender. An answer is as long
# as a request, and never a valid request. So nobody can make two exporters answer each other or amplify
# traffic.
_PACKET: Final = struct.Struct("!4sBBHIQ")
_MAGIC: Final = b"nRTT"
_VERSION: Final = 1
_REQUEST: Final = 1
_ANSWER: Final = 2


def answer_to(request: bytes) -> bytes | None:
    """Return the echo of a request; None if the bytes are not a request. Pure."""
    if len(request) != _PACKET.size:
        return None
    magic, version, kind, zero, sequence, nonce = _PACKET.unpack(request)
    if (magic, version, kind, zero) != (_MAGIC, _VERSION, _REQUEST, 0):
        return None
    return _PACKET.pack(_MAGIC, _VERSION, _ANSWER, 0, sequence, nonce)


def format_request(sequence: int, nonce: int) -> bytes:
    """Return the bytes of a request. Pure."""
    return _PACKET.pack(_MAGIC, _VERSION, _REQUEST, 0, sequence % 2**32, nonce)


@dataclass(slots=True, kw_only=True)
class UdpProber:
    """A prober with sequence numbers, so that it ignores late and duplicate answers."""

    timeout_s: float
    clock: Clock
    _nonce: int = field(default_factory=lambda: int.from_bytes(os.urandom(8), "big"))
    _sequence: int = 0

    async def __call__(self, address: str, port: int) -> Outcome:
        """Send one datagram and wait for its echo."""
        self._sequence += 1
        request = format_request(self._sequence, self._nonce)
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.settimeout(0)
                sock.connect((address, port))
                expected = answer_to(request)
                return await exchange(
                    sock, request, lambda data: data == expected, timeout_s=self.timeout_s, clock=self.clock
                )
        except OSError as error:
            return failed(error)
