"""Discover the other peers of the experiment through its headless Service.

SRV records name the pods, so that a peer keeps its name when its address changes. If the Service has no SRV
records, or too many for one message, A records are used. Then the name of a peer is its address.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from nimlab.agents.rtt.dns import Address, DnsError, Kind, Message, Reason, addresses_of, services_of
from nimlab.agents.rtt.resolve import Resolver

# Name of the echo port in the Service; part of the SRV name.
SERVICE_PORT_NAME: Final = "rtt-echo"

# A records are queried only after these failures of the SRV query. After other failures, the names of the
# peers must not change to addresses, so the previous peers are kept.
_ANSWERED_OTHERWISE: Final = frozenset({Reason.NOT_FOUND, Reason.TRUNCATED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Self:
    """This pod: its name, its address, and the echo port of all exporters."""

    name: str
    address: str
    echo_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Another pod. `host` is its full DNS name; the address is None until it is resolved."""

    name: str
    host: str
    port: int
    address: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Roster:
    """All peers except this pod, by name. `own` is the name of this pod, written like those of the peers."""

    own: str
    peers: Mapping[str, Peer]


async def discover(service: str, me: Self, resolver: Resolver) -> Roster:
    """Return all other peers. Raises DnsError."""
    try:
        name, message = await resolver.search(f"_{SERVICE_PORT_NAME}._tcp.{service}", Kind.SRV)
    except DnsError as error:
        if error.reason not in _ANSWERED_OTHERWISE:
            raise
    else:
        return roster_by_names(name, message, me)
    name, message = await resolver.search(service, Kind.A)
    return roster_by_addresses(addresses_of(name, message.answers), me)


def roster_by_names(name: str, message: Message, me: Self) -> Roster:
    """Return the peers of an SRV answer for `name`, with addresses from its additional records. Pure."""
    domain = name.split(".", 2)[2]
    additional_addresses = {
        r.name: r.address for r in message.additional if isinstance(r, Address) and _is_host(r.address)
    }
    peers = {}
    for record in services_of(name, message.answers):
        peer = record.target.removesuffix(f".{domain}")
        address = additional_addresses.get(record.target)
        if record.port and record.target and peer != me.name and address != me.address:
            peers[peer] = Peer(name=peer, host=record.target, port=record.port, address=address)
    return Roster(own=me.name, peers=peers)


def roster_by_addresses(addresses: Iterable[str], me: Self) -> Roster:
    """Return the peers in an A answer. Each peer gets the echo port of this pod. Pure."""
    peers = {
        address: Peer(name=address, host=address, port=me.echo_port, address=address)
        for address in addresses
        if address != me.address and _is_host(address)
    }
    return Roster(own=me.address, peers=peers)


async def complete(
    peers: Iterable[Peer], known: Mapping[str, str], resolver: Resolver
) -> tuple[tuple[Peer, ...], tuple[DnsError, ...]]:
    """Resolve missing addresses; return the peers with an address and the DNS errors.

    If a query fails, the previously known address is used.
    """
    resolved = await asyncio.gather(*(_complete(peer, resolver) for peer in peers))
    with_address = []
    for peer, _ in resolved:
        address = peer.address or known.get(peer.name)
        if address is not None:
            with_address.append(replace(peer, address=address))
    return tuple(with_address), tuple(error for _, error in resolved if error is not None)


async def _complete(peer: Peer, resolver: Resolver) -> tuple[Peer, DnsError | None]:
    if peer.address is not None:
        return peer, None
    try:
        name, message = await resolver.search(f"{peer.host}.", Kind.A)
    except DnsError as error:
        return peer, error
    address = next(filter(_is_host, addresses_of(name, message.answers)), None)
    return replace(peer, address=address), None


def _is_host(address: str) -> bool:
    """Return whether an address can belong to a host: not `0.…`, multicast or broadcast."""
    return 0 < int(address.split(".", 1)[0]) < 224
