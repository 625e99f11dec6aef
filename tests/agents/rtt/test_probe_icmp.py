from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimlab.agents.rtt.clock import Clock
from nimlab.agents.rtt.outcome import Outcome, Result
from nimlab.agents.rtt.probe_icmp import IcmpProber, format_request, is_reply_to, why_not_permitted

REQUEST = format_request(7, b"payload!")


def reply_with(**changed: int | bytes) -> bytes:
    """Return an echo reply as the kernel delivers it, with another identifier and checksum."""
    kind = int(changed.get("kind", 0)).to_bytes(1, "big")
    code = int(changed.get("code", 0)).to_bytes(1, "big")
    sequence = int(changed.get("sequence", 7)).to_bytes(2, "big")
    payload = changed.get("payload", b"payload!")
    assert isinstance(payload, bytes)
    return kind + code + b"\xab\xcd\x12\x34" + sequence + payload


def test_a_reply_is_recognized() -> None:
    assert is_reply_to(REQUEST, reply_with())


@pytest.mark.parametrize(
    "changed", [{"kind": 8}, {"kind": 3}, {"code": 1}, {"sequence": 6}, {"payload": b"another!"}]
)
def test_other_packets_are_not_replies(changed: dict[str, int | bytes]) -> None:
    assert not is_reply_to(REQUEST, reply_with(**changed))


@given(st.binary(max_size=60))
def test_any_bytes_are_parsed(data: bytes) -> None:
    assert is_reply_to(REQUEST, data) is (data[:2] == b"\0\0" and data[6:] == REQUEST[6:])


def test_sequence_numbers_wrap_after_65536() -> None:
    assert format_request(65536 + 7, b"payload!") == REQUEST


def test_icmp_works_or_is_reported_as_not_permitted() -> None:
    """The result depends on this machine's sysctl; `test_slow_link.py` tests both cases."""
    outcome = asyncio.run(IcmpProber(timeout_s=0.5, clock=Clock())("127.0.0.1", 0))
    if why_not_permitted() is None:
        assert outcome.result is Result.SUCCESS
        assert outcome.kernel_timed
    else:
        assert why_not_permitted() == "Permission denied"
        assert outcome == Outcome(result=Result.UNREACHABLE)
