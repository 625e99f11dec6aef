"""Measure the RTT of an ICMP echo request, which the peer's kernel answers.

A datagram ICMP socket needs no capability, but the pod's sysctl `net.ipv4.ping_group_range` must include the
group of this process.
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

# The fields are type, code, checksum, identifier, sequence number, payload. The kernel sets the checksum and
# the identifier.
_PACKET: Final = struct.Struct("!BBHHH8s")
_ECHO_REQUEST: Final = 8
_ECHO_REPLY: Final = 0


def why_not_permitted() -> str | None:
    """Return the system error if this process is not permitted to send ICMP echoes, otherwise None."""
    try:
        _open().close()
    except OSError as error:
        return error.strerror or str(error)
    return None


def is_reply_to(request: bytes, data: bytes) -> bool:
    """Return whether the bytes answer this request, ignoring the fields set by the kernel. Pure."""
    if len(data) != _PACKET.size or len(request) != _PACKET.size:
        return False
    kind, code, *_, sequence, payload = _PACKET.unpack(data)
    *_, expected_sequence, expected_payload = _PACKET.unpack(request)
    return (kind, code, sequence, payload) == (_ECHO_REPLY, 0, expected_sequence, expected_payload)


def format_request(sequence: int, payload: bytes) -> bytes:
    """Return an echo request with 8 bytes of payload. Pure."""
    return _PACKET.pack(_ECHO_REQUEST, 0, 0, 0, sequence % 2**16, payload)


@dataclass(slots=True, kw_only=True)
class IcmpProber:
    """A prober with sequence numbers and a random payload."""

    timeout_s: float
    clock: Clock
    _payload: bytes = field(default_factory=lambda: os.urandom(8))
    _sequence: int = 0

    async def __call__(self, address: str, _port: int) -> Outcome:
        """Send one echo request and wait for its reply."""
        self._sequence += 1
        request = format_request(self._sequence, self._payload)
        try:
            with _open() as sock:
                sock.connect((address, 0))
                return await exchange(
                    sock,
                    request,
                    lambda data: is_reply_to(request, data),
                    timeout_s=self.timeout_s,
                    clock=self.clock,
                )
        except OSError as error:
            return failed(error)


def _open() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
    sock.settimeout(0)
    return sock
