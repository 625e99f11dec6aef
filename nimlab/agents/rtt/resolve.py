"""Resolve a name to records through the servers of resolv.conf.

UDP is used first, and TCP if the answer is truncated. Search domains and `ndots` work as in the C library,
because Kubernetes relies on them. There is no cache. Every failure raises a DnsError with a reason.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nimlab.agents.rtt.datagram import readable
from nimlab.agents.rtt.dns import (
    DnsError,
    Kind,
    Message,
    Question,
    Rcode,
    Reason,
    addresses_of,
    belongs_to,
    format_query,
    is_name,
    parse_response,
    services_of,
)

_TRIES: Final = 2  # queries per server
_MOST_SERVERS: Final = 3  # as in the C library
_MOST_SEARCH: Final = 32  # the limit of Kubernetes
_LARGEST_NDOTS: Final = 15
_LARGEST_UDP_BYTES: Final = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvConf:
    """Name servers and search domains."""

    servers: tuple[str, ...]
    search: tuple[str, ...]
    ndots: int


def parse_resolv_conf(text: str) -> ResolvConf:
    """Parse the supported options; ignore the rest. As in the C library, the last `search` applies. Pure."""
    servers: list[str] = []
    search: tuple[str, ...] = ()
    ndots = 1
    for line in text.splitlines():
        keyword, *values = line.split() or [""]
        if keyword == "nameserver" and values and _is_ipv4(values[0]):
            servers.append(values[0])
        elif keyword in ("search", "domain"):
            search = tuple(value.strip(".").lower() for value in values)
        elif keyword == "options":
            ndots = _ndots_of(values, ndots)
    return ResolvConf(
        servers=tuple(servers[:_MOST_SERVERS]) or ("127.0.0.1",),
        search=tuple(domain for domain in search[:_MOST_SEARCH] if is_name(domain)),
        ndots=ndots,
    )


def candidates_of(name: str, conf: ResolvConf) -> tuple[str, ...]:
    """Return the full names to query, in order. A name that ends with a dot is already a full name. Pure."""
    bare = name.removesuffix(".").lower()
    longer = () if name.endswith(".") else tuple(f"{bare}.{domain}" for domain in conf.search)
    names = (bare, *longer) if bare.count(".") >= conf.ndots else (*longer, bare)
    return tuple(name for name in names if is_name(name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolver:
    """A resolver without a cache. resolv.conf is read for every search, because it can change."""

    resolv_conf: Path
    port: int
    timeout_s: float

    async def search(self, name: str, kind: Kind) -> tuple[str, Message]:
        """Return the first full name that has records of this type, and the response. Raises DnsError."""
        conf = self._conf()
        for candidate in candidates_of(name, conf):
            message = await self._ask_servers(conf.servers, Question(candidate, kind))
            records_of = addresses_of if kind is Kind.A else services_of
            if records_of(candidate, message.answers):
                return candidate, message
        raise DnsError(Reason.NOT_FOUND, f"no {kind.name} record for {name}")

    def _conf(self) -> ResolvConf:
        try:
            return parse_resolv_conf(self.resolv_conf.read_text(encoding="utf-8", errors="replace"))
        except OSError as error:
            raise DnsError(Reason.RESOLV_CONF, str(error)) from error

    async def _ask_servers(self, servers: tuple[str, ...], question: Question) -> Message:
        """Return the first answer of a server, even if it contains no records. Raises DnsError."""
        failure = DnsError(Reason.NETWORK, "no server")
        for server in servers * _TRIES:
            try:
                return await self._ask(server, question)
            except DnsError as error:
                failure = error
            if failure.reason is Reason.TRUNCATED:  # the next server would have the same records
                break
        raise failure

    async def _ask(self, server: str, question: Question) -> Message:
        try:
            async with asyncio.timeout(self.timeout_s):
                message = await self._ask_by_udp(server, question)
                if message.truncated:
                    message = await self._ask_by_tcp(server, question)
        except TimeoutError as error:
            raise DnsError(Reason.TIMEOUT, f"{server} did not answer in {self.timeout_s} s") from error
        except OSError as error:
            raise DnsError(Reason.NETWORK, f"{server}: {error.strerror or error}") from error
        if message.rcode not in (Rcode.NO_ERROR, Rcode.NAME_ERROR):
            raise DnsError(Reason.SERVER_FAILURE, f"{server} answered with code {message.rcode}")
        # A server drops additional records first (RFC 2181, section 9), and CoreDNS sets TC even then.
        # Therefore the answers are complete if the message contains additional records.
        if message.truncated and not message.additional:
            raise DnsError(Reason.TRUNCATED, f"{server} has more records than fit")
        return message

    async def _ask_by_udp(self, server: str, question: Question) -> Message:
        """Wait for the answer; ignore forged and malformed messages."""
        message_id = _new_id()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0)
            sock.connect((server, self.port))
            sock.send(format_query(question, message_id=message_id))
            while True:
                await readable(sock)
                message = _read(sock)
                if message is not None and belongs_to(question, message_id, message):
                    return message

    async def _ask_by_tcp(self, server: str, question: Question) -> Message:
        message_id = _new_id()
        query = format_query(question, message_id=message_id)
        reader, writer = await asyncio.open_connection(server, self.port)
        try:
            writer.write(len(query).to_bytes(2, "big") + query)
            length = int.from_bytes(await reader.readexactly(2), "big")
            message = parse_response(await reader.readexactly(length))
        except asyncio.IncompleteReadError as error:
            raise DnsError(Reason.MALFORMED, f"{server} ended the connection early") from error
        finally:
            writer.transport.abort()
        if not belongs_to(question, message_id, message):
            raise DnsError(Reason.MALFORMED, f"{server} answered another query")
        return message


def _read(sock: socket.socket) -> Message | None:
    try:
        return parse_response(sock.recv(_LARGEST_UDP_BYTES))
    except (BlockingIOError, DnsError):
        return None


def _new_id() -> int:
    return int.from_bytes(os.urandom(2), "big")


def _ndots_of(options: Sequence[str], default: int) -> int:
    for option in options:
        name, _, value = option.partition(":")
        if name == "ndots" and value.isascii() and value.isdigit():
            default = min(int(value[:3]), _LARGEST_NDOTS)
    return default


def _is_ipv4(text: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET, text)
    except OSError:
        return False
    return True
