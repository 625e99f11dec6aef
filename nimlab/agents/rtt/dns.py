"""Encode DNS queries and decode responses (RFC 1035, SRV of RFC 2782, EDNS of RFC 6891).

Pure. Only A and SRV records are decoded. Decoding arbitrary bytes takes bounded time and gives a `Message` or
a `DnsError`. `docs/adr/0005-own-dns-and-text-format.md` explains why no library is used.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final

_HEADER: Final = struct.Struct("!HHHHHH")
_QUESTION: Final = struct.Struct("!HH")
_RECORD: Final = struct.Struct("!HHIH")
_SRV: Final = struct.Struct("!HHH")

_IS_RESPONSE: Final = 0x8000
_IS_TRUNCATED: Final = 0x0200
_RECURSION_DESIRED: Final = 0x0100
_RCODE: Final = 0x000F
_CLASS_IN: Final = 1
_POINTER: Final = 0xC0
_LABEL: Final = re.compile(rb"[A-Za-z0-9_-]{1,63}")  # labels of host and service names
_LONGEST_NAME: Final = 253
_MOST_JUMPS: Final = 32  # real messages contain one or two

# OPT record: the largest answer accepted over UDP. 1232 bytes avoid fragmentation (dnsflagday.net/2020).
UDP_PAYLOAD_BYTES: Final = 1232
_OPT: Final = b"\0" + struct.pack("!HHIH", 41, UDP_PAYLOAD_BYTES, 0, 0)


class Reason(Enum):
    """Reason why there is no usable answer."""

    TIMEOUT = "timeout"  # no server answered in time
    NETWORK = "network"  # no server was reachable
    SERVER_FAILURE = "server_failure"  # a server reported an error or refused
    NOT_FOUND = "not_found"  # the name does not exist, or has no record of this type
    TRUNCATED = "truncated"  # more records than one message holds, even over TCP
    MALFORMED = "malformed"  # not a DNS message, or an answer to another query
    RESOLV_CONF = "resolv_conf"  # resolv.conf is not readable


class DnsError(Exception):
    """There is no usable answer; `reason` classifies the failure."""

    def __init__(self, reason: Reason, what: str) -> None:
        super().__init__(what)
        self.reason = reason


class Kind(IntEnum):
    """Supported record types, by their number."""

    A = 1
    SRV = 33


class Rcode(IntEnum):
    """Response codes that are handled separately."""

    NO_ERROR = 0
    NAME_ERROR = 3


@dataclass(frozen=True, slots=True)
class Question:
    """One DNS question. The name is lower case, without a final dot."""

    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Address:
    """An A record."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class Service:
    """An SRV record: the service `name` is available at `target`:`port`."""

    name: str
    target: str
    port: int


Record = Address | Service


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A response. Records of other types and classes are ignored.

    `truncated` is True if the server dropped records from the end. If the other records cannot be decoded,
    the message contains no records.
    """

    id: int
    rcode: int
    truncated: bool
    question: tuple[str, int]  # the name, and the number of the record type
    answers: tuple[Record, ...]
    additional: tuple[Record, ...]


def is_name(text: str) -> bool:
    """Return whether the text is a host or service name without a final dot. Pure."""
    if not text.isascii() or len(text) > _LONGEST_NAME:
        return False
    return all(_LABEL.fullmatch(label) for label in text.encode("ascii").split(b"."))


def format_query(question: Question, *, message_id: int) -> bytes:
    """Return the bytes of a query. The name must satisfy `is_name`."""
    header = _HEADER.pack(message_id, _RECURSION_DESIRED, 1, 0, 0, 1)
    name = b"".join(bytes([len(label)]) + label for label in question.name.encode("ascii").split(b"."))
    return header + name + b"\0" + _QUESTION.pack(question.kind, _CLASS_IN) + _OPT


def parse_response(data: bytes) -> Message:
    """Decode a response, which may be any bytes. Raises DnsError (MALFORMED), and no other error."""
    try:
        return _parse(data)
    except (struct.error, IndexError) as error:
        raise DnsError(Reason.MALFORMED, "the message ends too early") from error


def belongs_to(question: Question, message_id: int, message: Message) -> bool:
    """Return whether a response belongs to a query. Pure."""
    return message.id == message_id and message.question == (question.name, question.kind)


def addresses_of(name: str, records: Iterable[Record]) -> tuple[str, ...]:
    """Return the addresses of a host from these records, in their order. Pure."""
    return tuple(r.address for r in records if isinstance(r, Address) and r.name == name)


def services_of(name: str, records: Iterable[Record]) -> tuple[Service, ...]:
    """Return the SRV records of a service from these records, in their order. Pure."""
    return tuple(r for r in records if isinstance(r, Service) and r.name == name)


def _parse(data: bytes) -> Message:
    message_id, flags, questions, answers, authorities, additional = _HEADER.unpack_from(data)
    if not flags & _IS_RESPONSE or questions != 1:
        raise DnsError(Reason.MALFORMED, "not a response to one question")
    name, at = _parse_name(data, _HEADER.size)
    kind, _ = _QUESTION.unpack_from(data, at)
    at += _QUESTION.size
    truncated = bool(flags & _IS_TRUNCATED)
    try:
        in_answers, at = _parse_records(data, at, answers)
        _, at = _parse_records(data, at, authorities)
        in_additional, _ = _parse_records(data, at, additional)
    except (struct.error, IndexError, DnsError):
        if not truncated:
            raise
        in_answers = in_additional = ()  # some servers truncate in the middle of a record
    return Message(
        id=message_id,
        rcode=flags & _RCODE,
        truncated=truncated,
        question=(name, kind),
        answers=in_answers,
        additional=in_additional,
    )


def _parse_records(data: bytes, at: int, count: int) -> tuple[tuple[Record, ...], int]:
    """Return the supported records and the offset of the next section."""
    records = []
    for _ in range(count):
        name, at = _parse_name(data, at)
        kind, klass, _, length = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        if at + length > len(data):
            raise DnsError(Reason.MALFORMED, "a record is longer than the message")
        record = _parse_record(data, at, length, name, kind) if klass == _CLASS_IN else None
        if record is not None:
            records.append(record)
        at += length
    return tuple(records), at


def _parse_record(data: bytes, at: int, length: int, name: str, kind: int) -> Record | None:
    if kind == Kind.A:
        if length != 4:
            raise DnsError(Reason.MALFORMED, "an A record whose data is not four bytes long")
        return Address(name, socket.inet_ntoa(data[at : at + length]))
    if kind == Kind.SRV:
        _, _, port = _SRV.unpack_from(data, at)
        target, end = _parse_name(data, at + _SRV.size)
        if end != at + length:
            raise DnsError(Reason.MALFORMED, "an SRV record with a wrong length")
        return Service(name, target, port)
    return None


def _parse_name(data: bytes, at: int) -> tuple[str, int]:
    """Return a name in lower case and the offset of the byte after it.

    A compression pointer must point backwards, and the number of pointers is limited. So no loop is possible.
    """
    labels: list[bytes] = []
    end, limit, jumps, size = None, at, 0, 0
    while length := data[at]:
        if length & _POINTER == _POINTER:
            target = (length & ~_POINTER) << 8 | data[at + 1]
            end = at + 2 if end is None else end
            jumps += 1
            if target >= limit or jumps > _MOST_JUMPS:
                raise DnsError(Reason.MALFORMED, "a compression pointer loop or chain")
            at = limit = target
            continue
        label = data[at + 1 : at + 1 + length]
        size += length + 1
        if len(label) != length or not _LABEL.fullmatch(label) or size > _LONGEST_NAME + 1:
            raise DnsError(Reason.MALFORMED, "not a valid host or service name")
        labels.append(label)
        at += 1 + length
    return b".".join(labels).decode("ascii").lower(), at + 1 if end is None else end
