from __future__ import annotations

import asyncio
import os
import resource
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimlab.agents.rtt.clock import Clock
from nimlab.agents.rtt.outcome import Outcome, Result
from nimlab.agents.rtt.probe_tcp import Handshake, TcpProber, parse_tcp_info, read_handshake
from tests.agents.rtt.world import free_port, stall

PROBER = TcpProber(timeout_s=0.3, clock=Clock())


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.2.1", 0), backlog=128) as sock:
        yield sock


@contextmanager
def deaf(address: str) -> Iterator[int]:
    """Listen with a full accept queue, so that the kernel drops every further SYN."""
    with socket.create_server((address, 0), backlog=0) as sock:
        port = sock.getsockname()[1]
        with socket.create_connection((address, port)):
            yield port


def probe(address: str, port: int) -> Outcome:
    return asyncio.run(PROBER(address, port))


def test_a_handshake_is_timed_by_the_kernel(listener: socket.socket) -> None:
    outcome = probe(*listener.getsockname())
    assert outcome.result is Result.SUCCESS
    assert outcome.kernel_timed
    assert outcome.rtt_s is not None
    assert 0 < outcome.rtt_s < 0.1


def test_the_connection_is_reset_and_leaves_nothing_behind(listener: socket.socket) -> None:
    probe(*listener.getsockname())
    connection, _ = listener.accept()
    with connection, pytest.raises(ConnectionResetError):
        connection.recv(1)


def test_a_closed_port_is_refused() -> None:
    """Use a long timeout: the answer arrives at once, but a busy machine can schedule this process late."""
    patient = TcpProber(timeout_s=10, clock=Clock())
    outcome = asyncio.run(patient("127.0.2.1", free_port("127.0.2.1")))
    assert outcome == Outcome(result=Result.REFUSED)


def test_a_dropped_syn_is_a_timeout() -> None:
    with deaf("127.0.2.2") as port:
        assert probe("127.0.2.2", port) == Outcome(result=Result.TIMEOUT)


def test_a_local_stall_is_not_a_loss(listener: socket.socket) -> None:
    """The handshake finishes at once, but this process runs again only after the timeout."""

    async def probe_and_stall() -> Outcome:
        probing = asyncio.create_task(TcpProber(timeout_s=0.05, clock=Clock())(*listener.getsockname()))
        await asyncio.sleep(0)  # the first step of the task: the SYN is sent
        stall(0.1)
        return await probing

    outcome = asyncio.run(probe_and_stall())
    assert outcome.result is Result.SUCCESS
    assert outcome.kernel_timed
    assert outcome.rtt_s is not None
    assert outcome.rtt_s < 0.05


def test_a_handshake_with_a_retransmitted_syn_is_a_loss() -> None:
    """The first SYN is dropped; the kernel repeats it after a second and then connects."""

    async def probe_while_it_opens() -> Outcome:
        with socket.create_server(("127.0.2.3", 0), backlog=0) as sock:
            place = sock.getsockname()
            with socket.create_connection(place):
                probing = asyncio.create_task(TcpProber(timeout_s=5, clock=Clock())(*place))
                await asyncio.sleep(0)  # the first step of the task: the SYN is sent, and dropped
                sock.accept()[0].close()
                return await probing

    assert asyncio.run(probe_while_it_opens()) == Outcome(result=Result.TIMEOUT)


def test_a_missing_route_is_unreachable() -> None:
    assert probe("255.255.255.255", 1).result is Result.UNREACHABLE


def test_a_lack_of_descriptors_is_a_local_error(listener: socket.socket) -> None:
    async def probe_without_descriptors() -> Outcome:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest_free = os.dup(0)
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        try:
            return await PROBER(*listener.getsockname())
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert asyncio.run(probe_without_descriptors()) == Outcome(result=Result.ERROR)


@pytest.mark.process
def test_the_rtt_equals_that_of_ss(listener: socket.socket) -> None:
    """`ss` shows the same number for the same connection, so the offset in the struct is correct."""
    if shutil.which("ss") is None:
        pytest.skip("`ss` is not installed")
    with socket.create_connection(listener.getsockname()) as sock:
        source = f"127.0.0.1:{sock.getsockname()[1]}"
        output = subprocess.run(
            ["ss", "-tinH", "src", source, "and", "dst", "127.0.2.1"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        handshake = read_handshake(sock)
    assert handshake.rtt_s is not None
    assert f" rtt:{handshake.rtt_s * 1e3:g}/" in output


def test_a_socket_without_tcp_has_no_handshake() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        assert read_handshake(sock) == Handshake(rtt_s=None, retransmitted=False)


def test_without_tcp_info_the_process_measures_the_time(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(socket, "TCP_INFO")
    outcome = probe(*listener.getsockname())
    assert outcome.result is Result.SUCCESS
    assert not outcome.kernel_timed
    assert outcome.rtt_s is not None
    assert 0 < outcome.rtt_s < 0.1


@given(st.binary(max_size=300))
def test_any_bytes_are_parsed(info: bytes) -> None:
    handshake = parse_tcp_info(info)
    if len(info) < 104:
        assert handshake == Handshake(rtt_s=None, retransmitted=False)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_both_fields_are_parsed(rtt_us: int, retransmissions: int) -> None:
    info = bytes(68) + struct.pack("@I", rtt_us) + bytes(28) + struct.pack("@I", retransmissions) + bytes(120)
    handshake = parse_tcp_info(info)
    assert handshake.rtt_s == (rtt_us / 1e6 if rtt_us else None)
    assert handshake.retransmitted is (retransmissions > 0)
