from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from nimlab.agents.rtt.dns import Address, DnsError, Message, Reason, Record, Service
from nimlab.agents.rtt.peers import (
    Peer,
    Roster,
    Self,
    complete,
    discover,
    roster_by_addresses,
    roster_by_names,
)
from nimlab.agents.rtt.resolve import Resolver
from tests.agents.rtt.dns_server import SRV, A, Mood, Zone, serve_dns
from tests.agents.rtt.world import DOMAIN, write_resolv_conf

ME = Self(name="p-0", address="127.0.1.1", echo_port=9106)
SRV_NAME = f"_rtt-echo._tcp.{DOMAIN}"


@pytest.fixture
def zone() -> Zone:
    return Zone(domain=DOMAIN, pods={f"p-{n}": (f"127.0.1.{n + 1}", 9000 + n) for n in range(4)})


def message_with(*answers: Record, additional: tuple[Record, ...] = ()) -> Message:
    return Message(
        id=1, rcode=0, truncated=False, question=(SRV_NAME, SRV), answers=answers, additional=additional
    )


def run_discovery(zone: Zone, folder: Path) -> tuple[Roster, list[tuple[str, str, int]]]:
    with serve_dns(zone) as server:
        resolver = Resolver(resolv_conf=write_resolv_conf(folder), port=server.port, timeout_s=10)
        return asyncio.run(discover("nimp2p-exp-purple", ME, resolver)), server.queries


def test_one_query_returns_names_ports_and_addresses(zone: Zone, tmp_path: Path) -> None:
    roster, sent_queries = run_discovery(zone, tmp_path)
    assert roster.own == "p-0"
    assert dict(roster.peers) == {
        f"p-{n}": Peer(name=f"p-{n}", host=f"p-{n}.{DOMAIN}", port=9000 + n, address=f"127.0.1.{n + 1}")
        for n in (1, 2, 3)
    }
    assert sent_queries == [("udp", SRV_NAME, SRV)]


def test_addresses_are_used_if_the_service_has_no_srv_records(zone: Zone, tmp_path: Path) -> None:
    zone.has_srv = False
    roster, sent_queries = run_discovery(zone, tmp_path)
    assert roster.own == "127.0.1.1"
    assert sorted(roster.peers) == ["127.0.1.2", "127.0.1.3", "127.0.1.4"]
    assert {peer.port for peer in roster.peers.values()} == {9106}
    assert sent_queries[-1] == ("udp", DOMAIN, A)


def test_names_are_complete_even_if_some_addresses_are_missing(zone: Zone, tmp_path: Path) -> None:
    zone.pods = {f"nimp2p-exp-purple-{n}": (f"127.1.{n // 250}.{n % 250 + 1}", 9106) for n in range(600)}
    roster, sent_queries = run_discovery(zone, tmp_path)
    assert len(roster.peers) == 600
    assert "nimp2p-exp-purple-599" in roster.peers
    assert any(peer.address is None for peer in roster.peers.values())
    assert [(transport, kind) for transport, _, kind in sent_queries] == [("udp", SRV), ("tcp", SRV)]


def test_addresses_are_used_if_a_message_cannot_contain_all_names(zone: Zone, tmp_path: Path) -> None:
    zone.pods = {f"p-{n}": (f"127.1.{n // 250}.{n % 250 + 1}", 9106) for n in range(1500)}
    roster, sent_queries = run_discovery(zone, tmp_path)
    assert len(roster.peers) == 1500
    assert [(transport, kind) for transport, _, kind in sent_queries] == [
        ("udp", SRV), ("tcp", SRV), ("udp", A), ("tcp", A),
    ]  # fmt: skip


def test_a_single_peer_has_no_other_peers(zone: Zone, tmp_path: Path) -> None:
    zone.pods = {"p-0": ("127.0.1.1", 9000)}
    assert not run_discovery(zone, tmp_path)[0].peers


@pytest.mark.parametrize(
    ("mood", "reason"),
    [
        (Mood.FAILING, Reason.SERVER_FAILURE),
        (Mood.SILENT, Reason.TIMEOUT),
        (Mood.HANGING_UP, Reason.MALFORMED),
    ],
)
def test_after_a_server_error_addresses_are_not_queried(
    zone: Zone, tmp_path: Path, mood: Mood, reason: Reason
) -> None:
    zone.mood = mood
    with serve_dns(zone) as server:
        timeout_s = 0.05 if mood is Mood.SILENT else 10
        resolver = Resolver(resolv_conf=write_resolv_conf(tmp_path), port=server.port, timeout_s=timeout_s)
        with pytest.raises(DnsError) as caught:
            asyncio.run(discover("nimp2p-exp-purple", ME, resolver))
    assert caught.value.reason is reason
    assert {kind for _, _, kind in server.queries} == {SRV}


def test_an_empty_answer_is_a_failure(zone: Zone, tmp_path: Path) -> None:
    """The Service always lists this pod, so an empty answer means that DNS has no data yet."""
    zone.pods = {}
    with pytest.raises(DnsError) as caught:
        run_discovery(zone, tmp_path)
    assert caught.value.reason is Reason.NOT_FOUND


def test_this_pod_is_recognized_by_name_and_by_address() -> None:
    host = f"other.{DOMAIN}"
    message = message_with(
        Service(SRV_NAME, f"p-0.{DOMAIN}", 9106),
        Service(SRV_NAME, host, 9106),
        additional=(Address(host, ME.address),),
    )
    assert not roster_by_names(SRV_NAME, message, ME).peers


@pytest.mark.parametrize("address", ["0.0.0.0", "0.1.2.3", "224.0.0.1", "255.255.255.255"])  # noqa: S104
def test_unusable_addresses_are_ignored(address: str) -> None:
    host = f"p-1.{DOMAIN}"
    message = message_with(Service(SRV_NAME, host, 9106), additional=(Address(host, address),))
    assert roster_by_names(SRV_NAME, message, ME).peers["p-1"].address is None
    assert not roster_by_addresses([address], ME).peers


def test_unusable_services_are_ignored() -> None:
    message = message_with(
        Service(SRV_NAME, "", 9106),  # RFC 2782: not available here
        Service(SRV_NAME, f"p-1.{DOMAIN}", 0),
        Service("_other._tcp.x", f"p-2.{DOMAIN}", 9106),
    )
    assert not roster_by_names(SRV_NAME, message, ME).peers


def test_a_target_of_another_domain_keeps_its_full_name() -> None:
    message = message_with(Service(SRV_NAME, "machine.example", 9106))
    assert [*roster_by_names(SRV_NAME, message, ME).peers] == ["machine.example"]


def test_missing_addresses_are_queried(zone: Zone, tmp_path: Path) -> None:
    zone.has_additional = False
    with serve_dns(zone) as server:
        resolver = Resolver(resolv_conf=write_resolv_conf(tmp_path), port=server.port, timeout_s=10)

        async def discover_and_complete() -> tuple[tuple[Peer, ...], tuple[DnsError, ...]]:
            roster = await discover("nimp2p-exp-purple", ME, resolver)
            return await complete([roster.peers["p-1"], roster.peers["p-2"]], {}, resolver)

        peers, errors = asyncio.run(discover_and_complete())
    assert [peer.address for peer in peers] == ["127.0.1.2", "127.0.1.3"]
    assert not errors
    assert len(server.queries) == 3


def test_after_a_failed_query_the_last_known_address_is_used(zone: Zone, tmp_path: Path) -> None:
    removed, unknown = (
        Peer(name=n, host=f"{n}.{DOMAIN}", port=1, address=None) for n in ("removed", "unknown")
    )
    with serve_dns(zone) as server:
        resolver = Resolver(resolv_conf=write_resolv_conf(tmp_path), port=server.port, timeout_s=10)
        peers, errors = asyncio.run(complete([removed, unknown], {"removed": "127.0.1.9"}, resolver))
    assert [(peer.name, peer.address) for peer in peers] == [("removed", "127.0.1.9")]
    assert [error.reason for error in errors] == [Reason.NOT_FOUND, Reason.NOT_FOUND]
