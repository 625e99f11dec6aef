from __future__ import annotations

import asyncio
import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimlab.agents.rtt.clock import Clock
from nimlab.agents.rtt.outcome import Outcome, Result
from nimlab.agents.rtt.probe_udp import UdpProber, answer_to, format_request
from tests.agents.rtt.relay import delay_datagrams
from tests.agents.rtt.world import free_port, stall

Answers = Callable[[bytes], list[bytes]]


@contextmanager
def answering(answers: Answers) -> Iterator[int]:
    """Run a peer in a thread that answers each datagram with `answers`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.3.1", 0))

        def serve() -> None:
            while True:
                request, sender = sock.recvfrom(2048)
                if request == b"stop":
                    return
                for answer in answers(request):
                    sock.sendto(answer, sender)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield sock.getsockname()[1]
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stopper:
                stopper.sendto(b"stop", sock.getsockname())
            thread.join()


def echo(request: bytes) -> list[bytes]:
    answer = answer_to(request)
    assert answer is not None
    return [answer]


def probe(port: int, *, timeout_s: float = 0.3, clock: Clock | None = None) -> Outcome:
    return asyncio.run(UdpProber(timeout_s=timeout_s, clock=clock or Clock())("127.0.3.1", port))


def test_an_echo_is_timed_by_the_kernel() -> None:
    with answering(echo) as port:
        outcome = probe(port)
    assert outcome.result is Result.SUCCESS
    assert outcome.kernel_timed
    assert outcome.rtt_s is not None
    assert 0 < outcome.rtt_s < 0.1


def test_a_closed_port_is_refused() -> None:
    assert probe(free_port("127.0.3.1")) == Outcome(result=Result.REFUSED)


def test_a_missing_answer_is_a_timeout() -> None:
    with answering(lambda _: []) as port:
        assert probe(port) == Outcome(result=Result.TIMEOUT)


def test_a_missing_route_is_unreachable() -> None:
    outcome = asyncio.run(UdpProber(timeout_s=0.2, clock=Clock())("255.255.255.255", 1))
    assert outcome == Outcome(result=Result.UNREACHABLE)


@pytest.mark.parametrize(
    "answers",
    [
        lambda request: [request],  # a peer that returns the request itself
        lambda request: [b"", b"\0" * 2000, echo(request)[0] + b"\0", echo(request)[0][:-1]],
        lambda request: echo(format_request(2**32 - 1, int.from_bytes(request[-8:], "big"))),
        lambda request: echo(format_request(int.from_bytes(request[8:12], "big"), 1)),
    ],
    ids=["mirror", "garbage", "another sequence number", "another sender's"],
)
def test_answers_to_other_requests_are_ignored(answers: Answers) -> None:
    with answering(answers) as port:
        assert probe(port) == Outcome(result=Result.TIMEOUT)


def test_the_correct_answer_is_accepted_after_wrong_answers() -> None:
    with answering(lambda request: [request, b"", b"x" * 3000, *echo(request)]) as port:
        assert probe(port).result is Result.SUCCESS


def test_a_late_answer_is_not_accepted_for_the_next_request() -> None:
    delayed: list[bytes] = []

    def one_behind(request: bytes) -> list[bytes]:
        delayed.extend(echo(request))
        return delayed[:-1]

    async def probe_twice(port: int) -> list[Result]:
        prober = UdpProber(timeout_s=0.2, clock=Clock())
        return [(await prober("127.0.3.1", port)).result for _ in range(2)]

    with answering(one_behind) as port:
        assert asyncio.run(probe_twice(port)) == [Result.TIMEOUT, Result.TIMEOUT]


@pytest.mark.parametrize("shift_s", [-3600.0, 3600.0])
def test_a_change_of_the_wall_clock_does_not_change_the_rtt(shift_s: float) -> None:
    """Kernel timestamps use the wall clock. They are not used if they contradict the monotonic clock."""
    walls = itertools.chain([Clock().wall_s() + shift_s], itertools.repeat(0.0))
    clock = Clock(wall_s=lambda: next(walls))
    with answering(echo) as port:
        outcome = probe(port, clock=clock)
    assert not outcome.kernel_timed
    assert outcome.rtt_s is not None
    assert 0 < outcome.rtt_s < 0.3


@pytest.mark.process
@pytest.mark.serial
@pytest.mark.parametrize(
    ("answers", "result"),
    [
        (echo, Result.SUCCESS),
        (lambda request: [b"x", *echo(request)], Result.SUCCESS),
        (lambda _: [b"x"] * 10, Result.TIMEOUT),
    ],
    ids=["answered", "answered after garbage", "garbage"],
)
def test_a_local_stall_is_not_a_loss(answers: Answers, result: Result) -> None:
    """The answer arrives in time, but this process runs again only after the timeout."""

    async def probe_and_stall(port: int) -> Outcome:
        probing = asyncio.create_task(UdpProber(timeout_s=0.05, clock=Clock())("127.0.3.1", port))
        await asyncio.sleep(0)  # the first step of the task: the request is sent
        stall(0.1)
        return await probing

    with answering(answers) as port:
        outcome = asyncio.run(probe_and_stall(port))
    assert outcome.result is result
    assert outcome.rtt_s is None or outcome.rtt_s < 0.05


def test_a_late_answer_is_a_loss_even_after_a_local_stall() -> None:
    async def probe_and_stall(port: int) -> Outcome:
        probing = asyncio.create_task(UdpProber(timeout_s=0.02, clock=Clock())("127.0.0.1", port))
        await asyncio.sleep(0)
        stall(0.15)
        return await probing

    with answering(echo) as port, delay_datagrams(("127.0.3.1", port), delay_s=0.03) as slow_port:
        assert asyncio.run(probe_and_stall(slow_port)) == Outcome(result=Result.TIMEOUT)


def minimum_rtt_s(address: str, port: int) -> float:
    """Return the minimum of several RTTs, because a busy machine delays some of them."""

    async def probe_often() -> list[Outcome]:
        prober = UdpProber(timeout_s=5, clock=Clock())
        return [await prober(address, port) for _ in range(10)]

    return min(outcome.rtt_s for outcome in asyncio.run(probe_often()) if outcome.rtt_s is not None)


def test_a_slow_path_has_a_high_rtt() -> None:
    """A relay delays every datagram by 30 ms in each direction."""
    with answering(echo) as port, delay_datagrams(("127.0.3.1", port), delay_s=0.03) as slow_port:
        near_s, far_s = minimum_rtt_s("127.0.3.1", port), minimum_rtt_s("127.0.0.1", slow_port)
    assert near_s < 0.03
    assert 0.06 <= far_s < 0.06 * 1.2


@given(st.binary(max_size=60))
def test_an_answer_is_as_long_as_its_request_and_is_not_a_request(data: bytes) -> None:
    answer = answer_to(data)
    if answer is not None:
        assert len(answer) == len(data)
        assert answer_to(answer) is None


@given(st.integers(min_value=0, max_value=2**40), st.integers(min_value=0, max_value=2**64 - 1))
def test_answers_identify_their_requests(sequence: int, nonce: int) -> None:
    answer = answer_to(format_request(sequence, nonce))
    assert answer is not None
    assert answer != answer_to(format_request(sequence + 1, nonce))
    assert answer != answer_to(format_request(sequence, nonce ^ 1))
