from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimlab.agents.rtt.dns import (
    DnsError,
    Kind,
    Question,
    Reason,
    addresses_of,
    format_query,
    is_name,
    services_of,
)
from nimlab.agents.rtt.resolve import ResolvConf, Resolver, candidates_of, parse_resolv_conf
from tests.agents.rtt.dns_server import SRV, DnsServer, Mood, Zone, serve_dns
from tests.agents.rtt.world import DOMAIN, free_port, write_resolv_conf

KUBERNETES = """\
search dst-lab.svc.cluster.local svc.cluster.local cluster.local
nameserver 10.43.0.10
options ndots:5
"""


@pytest.fixture
def zone() -> Zone:
    return Zone(domain=DOMAIN, pods={f"p-{n}": (f"127.0.1.{n}", 9106) for n in range(1, 4)})


def resolver_for(server: DnsServer, folder: Path, *, timeout_s: float = 10.0) -> Resolver:
    path = write_resolv_conf(folder, server.address)
    return Resolver(resolv_conf=path, port=server.port, timeout_s=timeout_s)


def failure_of(resolver: Resolver, name: str, kind: Kind) -> Reason:
    with pytest.raises(DnsError) as caught:
        asyncio.run(resolver.search(name, kind))
    return caught.value.reason


def test_the_resolv_conf_of_the_kubelet_is_parsed() -> None:
    conf = parse_resolv_conf(KUBERNETES)
    assert conf == ResolvConf(
        servers=("10.43.0.10",),
        search=("dst-lab.svc.cluster.local", "svc.cluster.local", "cluster.local"),
        ndots=5,
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ResolvConf(servers=("127.0.0.1",), search=(), ndots=1)),
        ("# nameserver 1.1.1.1\n; x\nnameserver\n", ResolvConf(servers=("127.0.0.1",), search=(), ndots=1)),
        ("nameserver ::1\nnameserver 1.2.3.4 # ours", ResolvConf(servers=("1.2.3.4",), search=(), ndots=1)),
        (
            "nameserver 1.1.1.1\n" * 5,
            ResolvConf(servers=("1.1.1.1", "1.1.1.1", "1.1.1.1"), search=(), ndots=1),
        ),
        ("search a b\nsearch C.\tä x..y", ResolvConf(servers=("127.0.0.1",), search=("c",), ndots=1)),
        ("domain d", ResolvConf(servers=("127.0.0.1",), search=("d",), ndots=1)),
        ("options ndots:x timeout:1 ndots:99", ResolvConf(servers=("127.0.0.1",), search=(), ndots=15)),
    ],
)
def test_variants_of_resolv_conf_are_parsed_as_in_the_c_library(text: str, expected: ResolvConf) -> None:
    assert parse_resolv_conf(text) == expected


@given(st.text(), st.text(max_size=80))
def test_only_valid_names_are_queried_with_any_resolv_conf(text: str, name: str) -> None:
    conf = parse_resolv_conf(f"search {text}\n{text}")
    assert conf.servers
    for candidate in candidates_of(name, conf):
        assert is_name(candidate)
        assert format_query(Question(candidate, Kind.A), message_id=1)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a", ("a.x", "a.y", "a")),
        ("a.b", ("a.b.x", "a.b.y", "a.b")),
        ("a.b.c", ("a.b.c", "a.b.c.x", "a.b.c.y")),
        ("A.", ("a",)),
        ("", ()),
    ],
)
def test_search_domains_come_first_for_names_with_few_dots(name: str, expected: tuple[str, ...]) -> None:
    conf = ResolvConf(servers=("1.1.1.1",), search=("x", "y"), ndots=2)
    assert candidates_of(name, conf) == expected


def test_a_short_name_is_resolved_by_a_search_domain(zone: Zone, tmp_path: Path) -> None:
    with serve_dns(zone) as server:
        name, message = asyncio.run(
            resolver_for(server, tmp_path).search("_rtt-echo._tcp.nimp2p-exp-purple", Kind.SRV)
        )
    assert name == f"_rtt-echo._tcp.{DOMAIN}"
    assert len(services_of(name, message.answers)) == 3
    assert server.queries == [("udp", name, SRV)]


def test_the_full_name_comes_last_when_it_has_few_dots(zone: Zone, tmp_path: Path) -> None:
    with serve_dns(zone) as server:
        name, message = asyncio.run(resolver_for(server, tmp_path).search(f"p-2.{DOMAIN}.", Kind.A))
        assert failure_of(resolver_for(server, tmp_path), "nobody", Kind.A) is Reason.NOT_FOUND
    assert addresses_of(name, message.answers) == ("127.0.1.2",)
    assert [name for _, name, _ in server.queries] == [
        f"p-2.{DOMAIN}",
        "nobody.dst-lab.svc.cluster.local",
        "nobody.svc.cluster.local",
        "nobody.cluster.local",
        "nobody",
    ]


def test_a_truncated_answer_is_requested_again_over_tcp(zone: Zone, tmp_path: Path) -> None:
    zone.pods = {f"p-{n}": (f"127.1.{n // 250}.{n % 250 + 1}", 9106) for n in range(600)}
    with serve_dns(zone) as server:
        name, message = asyncio.run(
            resolver_for(server, tmp_path).search(f"_rtt-echo._tcp.{DOMAIN}.", Kind.SRV)
        )
    assert len(services_of(name, message.answers)) == 600
    assert server.queries == [("udp", name, SRV), ("tcp", name, SRV)]


def test_an_answer_too_large_for_tcp_is_requested_once(zone: Zone, tmp_path: Path) -> None:
    zone.pods = {f"p-{n}": (f"127.1.{n // 250}.{n % 250 + 1}", 9106) for n in range(1500)}
    with serve_dns(zone) as server:
        assert (
            failure_of(resolver_for(server, tmp_path), f"_rtt-echo._tcp.{DOMAIN}.", Kind.SRV)
            is Reason.TRUNCATED
        )
        assert [transport for transport, _, _ in server.queries] == ["udp", "tcp"]


def test_no_record_of_this_type_is_not_found(zone: Zone, tmp_path: Path) -> None:
    with serve_dns(zone) as server:
        assert failure_of(resolver_for(server, tmp_path), f"{DOMAIN}.", Kind.SRV) is Reason.NOT_FOUND


@pytest.mark.parametrize(
    ("mood", "reason", "times"),
    [
        (Mood.FAILING, Reason.SERVER_FAILURE, 2),
        (Mood.SILENT, Reason.TIMEOUT, 2),
        # Invalid packets are ignored, so that forged packets cannot make a query fail.
        (Mood.GARBAGE, Reason.TIMEOUT, 0),
        (Mood.HANGING_UP, Reason.MALFORMED, 4),
    ],
)
def test_each_failure_has_its_reason(
    zone: Zone, tmp_path: Path, mood: Mood, reason: Reason, times: int
) -> None:
    zone.mood = mood
    with serve_dns(zone) as server:
        is_slow = mood in (Mood.SILENT, Mood.GARBAGE)
        resolver = resolver_for(server, tmp_path, timeout_s=0.1 if is_slow else 10)
        assert failure_of(resolver, "nimp2p-exp-purple", Kind.A) is reason
    assert len(server.queries) == times


def test_forged_answers_are_ignored(zone: Zone, tmp_path: Path) -> None:
    zone.mood = Mood.FORGED
    with serve_dns(zone) as server:
        name, message = asyncio.run(resolver_for(server, tmp_path).search("nimp2p-exp-purple", Kind.A))
    assert len(addresses_of(name, message.answers)) == 3
    assert len(server.queries) == 1


def test_without_a_server_the_reason_is_network(tmp_path: Path) -> None:
    path = write_resolv_conf(tmp_path)
    resolver = Resolver(resolv_conf=path, port=free_port(), timeout_s=10)
    assert failure_of(resolver, "x", Kind.A) is Reason.NETWORK


def test_a_missing_resolv_conf_is_a_failure_with_its_own_reason(tmp_path: Path) -> None:
    resolver = Resolver(resolv_conf=tmp_path / "none", port=53, timeout_s=0.2)
    assert failure_of(resolver, "x", Kind.A) is Reason.RESOLV_CONF


def test_the_second_server_is_used_if_the_first_fails(zone: Zone, tmp_path: Path) -> None:
    with serve_dns(zone, address="127.0.0.1") as good:
        path = write_resolv_conf(tmp_path, "127.0.0.2")  # no server listens at this port
        path.write_text(path.read_text() + "nameserver 127.0.0.1\n")
        resolver = Resolver(resolv_conf=path, port=good.port, timeout_s=10)
        name, _ = asyncio.run(resolver.search("nimp2p-exp-purple", Kind.A))
    assert name == DOMAIN


def test_a_flood_of_garbage_does_not_prevent_the_timeout(tmp_path: Path) -> None:
    """The server never stops sending. The query still ends in time, and other tasks still run."""

    class Flood(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.DatagramTransport)
            self.transport = transport

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            for _ in range(20):
                self.transport.sendto(b"\0" * 40, addr)
            asyncio.get_running_loop().call_soon(self.datagram_received, data, addr)

    async def ask() -> int:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        loop = asyncio.get_running_loop()
        port = free_port()
        transport, _ = await loop.create_datagram_endpoint(Flood, local_addr=("127.0.0.1", port))
        counting = loop.create_task(count())
        resolver = Resolver(resolv_conf=write_resolv_conf(tmp_path), port=port, timeout_s=0.1)
        with pytest.raises(DnsError):
            await resolver.search("x.", Kind.A)
        counting.cancel()
        transport.close()
        return turns

    assert asyncio.run(asyncio.wait_for(ask(), timeout=10)) > 10
