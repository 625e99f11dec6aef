from __future__ import annotations

import asyncio
import socket
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nimlab.agents.rtt.clock import Clock
from nimlab.agents.rtt.echo import Treatment, serve_echo
from nimlab.agents.rtt.outcome import Method, Result
from nimlab.agents.rtt.probe_tcp import TcpProber
from nimlab.agents.rtt.probe_udp import UdpProber, answer_to, format_request
from tests.agents.rtt.world import free_port
from tests.support.examples import examples

ADDRESS = "127.0.4.1"


async def probe_among(garbage: list[bytes], *, connections: int = 0) -> Counter[tuple[Method, Treatment]]:
    """Send garbage, open connections, and probe by both methods; return the counts."""
    counts: Counter[tuple[Method, Treatment]] = Counter()
    port = free_port(ADDRESS)

    def count(method: Method, treatment: Treatment) -> None:
        counts[method, treatment] += 1

    with serve_echo(ADDRESS, port, count), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((ADDRESS, 0))
        sock.settimeout(0)
        for data in garbage:
            sock.sendto(data, (ADDRESS, port))
        for _ in range(connections):
            with socket.create_connection((ADDRESS, port)):
                pass
        for prober in (TcpProber(timeout_s=2, clock=Clock()), UdpProber(timeout_s=2, clock=Clock())):
            assert (await prober(ADDRESS, port)).result is Result.SUCCESS
        while counts[Method.TCP, Treatment.ANSWERED] <= connections:
            await asyncio.sleep(0)
        with pytest.raises(BlockingIOError):
            sock.recv(1)
    return counts


def test_tcp_and_udp_are_answered() -> None:
    assert asyncio.run(probe_among([])) == {
        (Method.TCP, Treatment.ANSWERED): 1,
        (Method.UDP, Treatment.ANSWERED): 1,
    }


@settings(max_examples=examples(20))
@given(st.lists(st.binary(max_size=100), max_size=20))
def test_garbage_is_counted_and_never_answered(garbage: list[bytes]) -> None:
    counts = asyncio.run(probe_among(garbage))
    assert counts[Method.UDP, Treatment.IGNORED] == len(garbage)
    assert counts[Method.UDP, Treatment.ANSWERED] == 1


def test_an_answer_is_not_answered() -> None:
    answer = answer_to(format_request(1, 2))
    assert answer is not None
    assert asyncio.run(probe_among([answer]))[Method.UDP, Treatment.IGNORED] == 1


def test_many_connections_are_all_answered() -> None:
    assert asyncio.run(probe_among([], connections=200))[Method.TCP, Treatment.ANSWERED] == 201


def test_a_port_in_use_is_an_error() -> None:
    async def serve() -> None:
        with serve_echo(ADDRESS, port, lambda *_: None):
            pass

    with socket.create_server((ADDRESS, 0)) as sock:
        port = sock.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            asyncio.run(serve())


def test_all_sockets_are_closed() -> None:
    async def serve_twice() -> None:
        for _ in range(2):
            with serve_echo(ADDRESS, port, lambda *_: None):
                pass

    port = free_port(ADDRESS)
    asyncio.run(serve_twice())
