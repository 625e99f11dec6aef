"""Who is there: the experiment's headless Service -> its peers, this one left out.

In: a resolver and the Service's name. Out: a `Roster`, or a DnsError. SRV records name the pods, so that a
peer keeps its name when its address changes; where the Service has none, or too many for a message, plain A
records serve, and a peer's name is its address. Not done here: keeping the last good roster, and choosing
whom to probe.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from nimlab.rtt.dns import Address, DnsError, Kind, Message, Reason, addresses_of, services_of
from nimlab.rtt.resolve import Resolver

# The echo port's name in the Service; SRV is asked by it.
SERVICE_PORT_NAME: Final = "rtt-echo"

# Asking for other records helps here; where no server answers it wouldn't, and would only hide the names.
_ANSWERED_OTHERWISE: Final = frozenset({Reason.NOT_FOUND, Reason.TRUNCATED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Self:
    """This pod: what it is called and which address it has, and where its own kind listens."""

    name: str
    address: str
    echo_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Another pod. `host` is its full DNS name; the address is None until somebody asks for it."""

    name: str
    host: str
    port: int
    address: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Roster:
    """Everybody but this one, by name. `own` is the name under which this one would stand there."""

    own: str
    peers: Mapping[str, Peer]


async def discover(service: str, me: Self, resolver: Resolver) -> Roster:
    """Return everybody who is there. Raises DnsError."""
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
    """Return the peers of an SRV answer for `name`; addresses are those that came along. Pure."""
    domain = name.split(".", 2)[2]
    came_along = {
        r.name: r.address for r in message.additional if isinstance(r, Address) and _is_host(r.address)
    }
    peers = {}
    for record in services_of(name, message.answers):
        peer = record.target.removesuffix(f".{domain}")
        address = came_along.get(record.target)
        if record.port and record.target and peer != me.name and address != me.address:
            peers[peer] = Peer(name=peer, host=record.target, port=record.port, address=address)
    return Roster(own=me.name, peers=peers)


def roster_by_addresses(addresses: Iterable[str], me: Self) -> Roster:
    """Return the peers of an A answer, all at the port where this one listens. Pure."""
    peers = {
        address: Peer(name=address, host=address, port=me.echo_port, address=address)
        for address in addresses
        if address != me.address and _is_host(address)
    }
    return Roster(own=me.address, peers=peers)


async def complete(
    peers: Iterable[Peer], known: Mapping[str, str], resolver: Resolver
) -> tuple[tuple[Peer, ...], tuple[DnsError, ...]]:
    """Return those peers that have an address, asking for the missing ones, and why some have none.

    Where asking fails, the address that is known from before serves.
    """
    asked = await asyncio.gather(*(_complete(peer, resolver) for peer in peers))
    found = []
    for peer, _ in asked:
        address = peer.address or known.get(peer.name)
        if address is not None:
            found.append(replace(peer, address=address))
    return tuple(found), tuple(error for _, error in asked if error is not None)


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
    """Tell whether an address can be one machine's: not `0.…`, no multicast, no broadcast."""
    return 0 < int(address.split(".", 1)[0]) < 224
