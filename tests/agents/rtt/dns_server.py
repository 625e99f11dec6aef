"""A small DNS server for the tests: one thread, UDP and TCP, one zone and several failure modes.

Its encoder shares no code with the exporter, and compresses names as real servers do.
"""

from __future__ import annotations

import selectors
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum

A, SRV = 1, 33

Record = tuple[str, int | None]  # an address and None, or a target and its port


class Mood(Enum):
    """How the server answers a query."""

    HONEST = "honest"
    SILENT = "silent"
    FAILING = "failing"  # SERVFAIL
    FORGED = "forged"  # several forged answers, then the correct answer
    GARBAGE = "garbage"  # bytes that are not DNS, over UDP and TCP
    HANGING_UP = "hanging-up"  # truncated over UDP; over TCP, the connection is closed in the middle


@dataclass(slots=True)
class Zone:
    """Pods by name behind one headless Service; `domain` is the Service's full name."""

    domain: str
    pods: dict[str, tuple[str, int]] = field(default_factory=dict)  # name -> address and echo port
    has_srv: bool = True
    has_additional: bool = True
    mood: Mood = Mood.HONEST

    def lookup(self, name: str, kind: int) -> tuple[bool, list[Record], list[tuple[str, str]]]:
        """Return (whether the name exists, its records, the additional address records)."""
        pods = {f"{pod}.{self.domain}": endpoint for pod, endpoint in self.pods.items()}
        if name == f"_rtt-echo._tcp.{self.domain}" and self.has_srv:
            services: list[Record] = [(host, port) for host, (_, port) in pods.items()]
            addresses = [(host, address) for host, (address, _) in pods.items()]
            return bool(pods), services if kind == SRV else [], addresses if self.has_additional else []
        matches = [*pods.values()] if name == self.domain else [pods[name]] if name in pods else []
        return bool(matches), [(address, None) for address, _ in matches] if kind == A else [], []


@dataclass(slots=True)
class DnsServer:
    """A running server; `queries` lists all received queries as (transport, name, type)."""

    address: str
    port: int
    zone: Zone
    queries: list[tuple[str, str, int]] = field(default_factory=list)


@contextmanager
def serve_dns(zone: Zone, *, address: str = "127.0.0.1") -> Iterator[DnsServer]:
    """Serve a zone over UDP and TCP on one free port."""
    tcp = socket.create_server((address, 0))
    port = tcp.getsockname()[1]
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((address, port))
    wake, woken = socket.socketpair()
    server = DnsServer(address=address, port=port, zone=zone)
    thread = threading.Thread(target=_serve, args=(server, udp, tcp, woken))
    thread.start()
    try:
        yield server
    finally:
        wake.send(b"x")
        thread.join()
        for sock in (udp, tcp, wake, woken):
            sock.close()


def _serve(server: DnsServer, udp: socket.socket, tcp: socket.socket, woken: socket.socket) -> None:
    with selectors.DefaultSelector() as selector:
        for sock in (udp, tcp, woken):
            selector.register(sock, selectors.EVENT_READ)
        while True:
            ready = [key.fileobj for key, _ in selector.select()]
            if woken in ready:
                return
            if udp in ready:
                _serve_udp(server, udp)
            if tcp in ready:
                _serve_tcp(server, tcp)


def _serve_udp(server: DnsServer, udp: socket.socket) -> None:
    query, sender = udp.recvfrom(65535)
    mood = server.zone.mood
    if mood is Mood.GARBAGE:
        udp.sendto(b"\x00\xff" * 20, sender)
        return
    answer = answer_query(server, query, "udp")
    if mood is Mood.SILENT:
        return
    if mood is Mood.FORGED:
        other_id = bytes([query[0] ^ 1]) + answer[1:]
        other_name = answer[:13] + bytes([answer[13] ^ 1]) + answer[14:]
        for wrong in (b"", b"\x00", query, other_id, other_name, answer[: len(answer) // 2], query[:2] * 40):
            udp.sendto(wrong, sender)
    udp.sendto(answer, sender)


def _serve_tcp(server: DnsServer, tcp: socket.socket) -> None:
    connection, _ = tcp.accept()
    with connection:
        connection.settimeout(5)
        try:
            query = _read(connection, int.from_bytes(_read(connection, 2), "big"))
            answer = answer_query(server, query, "tcp")
            if server.zone.mood is Mood.HANGING_UP:
                connection.sendall(len(answer).to_bytes(2, "big") + answer[: len(answer) // 2])
            elif server.zone.mood is Mood.GARBAGE:
                connection.sendall(b"\x00\x03abc")
            elif server.zone.mood is not Mood.SILENT:
                connection.sendall(len(answer).to_bytes(2, "big") + answer)
        except OSError:
            return


def _read(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := connection.recv(count - len(data))):
        data += more
    return data


def answer_query(server: DnsServer, query: bytes, transport: str) -> bytes:
    """Return the response to a query over this transport."""
    name, at = _question_name(query)
    kind = int.from_bytes(query[at : at + 2], "big")
    server.queries.append((transport, name, kind))
    zone = server.zone
    exists, records, addresses = zone.lookup(name, kind)
    rcode = 2 if zone.mood is Mood.FAILING else 0 if exists else 3
    if rcode == 2:
        records, addresses = [], []
    flags = 0x8580 | rcode
    message = encode(query[:2], flags, name, kind, records, addresses)
    largest = _udp_size(query, at + 4) if transport == "udp" else 65535
    if zone.mood is Mood.HANGING_UP and transport == "udp":
        largest = 0
    while len(message) > largest and records:  # like CoreDNS: drop records from the end and set the flag
        surplus = 1 + (len(message) - largest) // 100  # no record is longer than 100 bytes
        if addresses:
            addresses = addresses[:-surplus]
        else:
            records = records[:-surplus]
        message = encode(query[:2], flags | 0x0200, name, kind, records, addresses)
    return message


def encode(
    message_id: bytes,
    flags: int,
    name: str,
    kind: int,
    records: Sequence[Record],
    addresses: Sequence[tuple[str, str]],
) -> bytes:
    """Return a response with compressed names."""
    offsets: dict[str, int] = {}
    message = bytearray(struct.pack("!2sHHHHH", message_id, flags, 1, len(records), 0, len(addresses)))
    _write_name(message, name, offsets)
    message += struct.pack("!HH", kind, 1)
    for value, port in records:
        _write_name(message, name, offsets)
        if port is None:
            message += struct.pack("!HHIH", A, 1, 5, 4) + socket.inet_aton(value)
            continue
        message += struct.pack("!HHIH", SRV, 1, 5, 0)
        start = len(message)
        message += struct.pack("!HHH", 0, 50, port)
        _write_name(message, value, offsets, compress=False)
        message[start - 2 : start] = (len(message) - start).to_bytes(2, "big")
    for owner, address in addresses:
        _write_name(message, owner, offsets)
        message += struct.pack("!HHIH", A, 1, 5, 4) + socket.inet_aton(address)
    return bytes(message)


def _write_name(message: bytearray, name: str, offsets: dict[str, int], *, compress: bool = True) -> None:
    rest = name
    while rest:
        if compress and rest in offsets:
            message += struct.pack("!H", 0xC000 | offsets[rest])
            return
        if len(message) < 0x4000:
            offsets.setdefault(rest, len(message))
        label, _, rest = rest.partition(".")
        message += bytes([len(label)]) + label.encode()
    message += b"\0"


def _question_name(query: bytes) -> tuple[str, int]:
    at, labels = 12, []
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode())
        at += 1 + length
    return ".".join(labels), at + 1


def _udp_size(query: bytes, at: int) -> int:
    """Return the UDP payload size of the client, from its OPT record; 512 without one."""
    additional = int.from_bytes(query[10:12], "big")
    return int.from_bytes(query[at + 3 : at + 5], "big") if additional else 512
