from __future__ import annotations

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nimlab.agents.rtt import dns
from nimlab.agents.rtt.dns import DnsError, Kind, Question, Reason
from tests.agents.rtt.dns_server import DnsServer, Zone, answer_query

DOMAIN = "nimp2p-exp-purple.dst-lab.svc.cluster.local"
SRV_NAME = f"_rtt-echo._tcp.{DOMAIN}"
LABELS = st.text("abcz019_-", min_size=1, max_size=63)
NAMES = st.lists(LABELS, min_size=1, max_size=6).map(".".join).filter(dns.is_name)
QUESTIONS = [Question(SRV_NAME, Kind.SRV), Question(DOMAIN, Kind.A)]


def a_zone(pods: int) -> Zone:
    return Zone(
        domain=DOMAIN,
        pods={f"nimp2p-exp-purple-{n}": (f"10.42.{n // 250}.{n % 250 + 1}", 9106) for n in range(pods)},
    )


def an_answer(question: Question, *, pods: int = 3, message_id: int = 77) -> bytes:
    """Return the bytes with which a DNS server answers the question over TCP."""
    server = DnsServer(address="127.0.0.1", port=53, zone=a_zone(pods))
    return answer_query(server, dns.format_query(question, message_id=message_id), "tcp")


def test_srv_records_are_decoded_with_their_additional_addresses() -> None:
    question = Question(SRV_NAME, Kind.SRV)
    message = dns.parse_response(an_answer(question))
    assert dns.belongs_to(question, 77, message)
    services = dns.services_of(SRV_NAME, message.answers)
    assert [(s.target, s.port) for s in services] == [
        (f"nimp2p-exp-purple-{n}.{DOMAIN}", 9106) for n in range(3)
    ]
    assert dns.addresses_of(f"nimp2p-exp-purple-2.{DOMAIN}", message.additional) == ("10.42.0.3",)


def test_a_records_are_decoded() -> None:
    message = dns.parse_response(an_answer(Question(DOMAIN, Kind.A)))
    assert dns.addresses_of(DOMAIN, message.answers) == ("10.42.0.1", "10.42.0.2", "10.42.0.3")
    assert dns.addresses_of("other", message.answers) == ()


def test_a_truncated_message_gives_its_complete_records() -> None:
    message = dns.parse_response(an_answer(Question(SRV_NAME, Kind.SRV), pods=600))
    assert message.truncated
    assert len(message.answers) == 600
    assert 0 < len(message.additional) < 600


def test_a_truncated_message_that_ends_inside_a_record_has_no_records() -> None:
    answer = an_answer(Question(SRV_NAME, Kind.SRV), pods=600)
    message = dns.parse_response(answer[:-1])
    assert (message.truncated, message.answers, message.additional) == (True, (), ())


def test_four_hundred_peers_fit_one_message() -> None:
    message = dns.parse_response(an_answer(Question(SRV_NAME, Kind.SRV), pods=400))
    assert len(message.answers) == len(message.additional) == 400


def test_a_missing_name_gives_the_code_name_error() -> None:
    message = dns.parse_response(an_answer(Question("nobody.cluster.local", Kind.A)))
    assert message.rcode == dns.Rcode.NAME_ERROR
    assert message.answers == ()


@pytest.mark.parametrize(
    ("question", "message_id"),
    [
        (Question(SRV_NAME, Kind.SRV), 78),
        (Question(SRV_NAME, Kind.A), 77),
        (Question(DOMAIN, Kind.SRV), 77),
    ],
)
def test_an_answer_belongs_only_to_its_own_query(question: Question, message_id: int) -> None:
    message = dns.parse_response(an_answer(Question(SRV_NAME, Kind.SRV)))
    assert not dns.belongs_to(question, message_id, message)


def test_names_are_case_insensitive() -> None:
    answer = an_answer(Question(DOMAIN, Kind.A))
    upper_case = answer.replace(b"nimp2p", b"NIMP2P")
    assert upper_case != answer
    assert dns.parse_response(upper_case) == dns.parse_response(answer)


def test_records_of_other_types_and_classes_are_ignored() -> None:
    record = b"\x01x\0" + struct.pack("!HHIH", 16, 1, 5, 3) + b"\x02hi"  # TXT
    chaos = b"\x01x\0" + struct.pack("!HHIH", 1, 3, 5, 4) + b"\x01\x02\x03\x04"  # A of class CH
    real = b"\x01x\0" + struct.pack("!HHIH", 1, 1, 5, 4) + b"\x01\x02\x03\x04"
    message = dns.parse_response(response(b"\x01x\0", record + chaos + real, answers=3))
    assert message.answers == (dns.Address("x", "1.2.3.4"),)


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("nothing", b""),
        ("a query", dns.format_query(Question("x", Kind.A), message_id=1)),
        ("a pointer to itself", struct.pack("!HHHHHH", 1, 0x8000, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1"),
        ("a pointer ahead", struct.pack("!HHHHHH", 1, 0x8000, 1, 0, 0, 0) + b"\xc0\x20\0\1\0\1" + bytes(40)),
        ("a label with a dot", struct.pack("!HHHHHH", 1, 0x8000, 1, 0, 0, 0) + b"\x03a.b\0\0\1\0\1"),
        ("a label with a quote", struct.pack("!HHHHHH", 1, 0x8000, 1, 0, 0, 0) + b'\x03a"b\0\0\1\0\1'),
        (
            "a name too long",
            struct.pack("!HHHHHH", 1, 0x8000, 1, 0, 0, 0) + 9 * (b"\x3f" + 63 * b"a") + b"\0\0\1\0\1",
        ),
    ],
)
def test_malformed_responses_are_rejected(what: str, data: bytes) -> None:
    with pytest.raises(DnsError) as caught:
        dns.parse_response(data)
    assert caught.value.reason is Reason.MALFORMED, what


def test_a_record_longer_than_its_length_is_malformed() -> None:
    srv = b"\x01x\0" + struct.pack("!HHIH", 33, 1, 5, 7) + struct.pack("!HHH", 0, 0, 1) + b"\x01y\0"
    with pytest.raises(DnsError):
        dns.parse_response(response(b"\x01x\0", srv, answers=1))


def test_an_address_has_four_bytes() -> None:
    record = b"\x01x\0" + struct.pack("!HHIH", 1, 1, 5, 5) + bytes(5)
    with pytest.raises(DnsError):
        dns.parse_response(response(b"\x01x\0", record, answers=1))


@pytest.mark.parametrize(("pointers", "is_read"), [(1, True), (31, True), (32, False), (5000, False)])
def test_chains_of_pointers_are_limited(pointers: int, is_read: bool) -> None:
    """Each pointer points to the previous pointer. There is no loop, but a long chain costs CPU time."""
    first_at = 32  # after the header, the question, and the head of a record that holds the chain
    places = [12, *range(first_at, first_at + 2 * pointers, 2)]
    chain = b"".join(struct.pack("!H", 0xC000 | at) for at in places[:-1])
    holder = b"\x01x\0" + struct.pack("!HHIH", 16, 1, 5, len(chain))
    record = struct.pack("!H", 0xC000 | places[-1]) + struct.pack("!HHIH", 1, 1, 5, 4) + b"\x01\x02\x03\x04"
    message = read(response(b"\x01x\0", holder + chain + record, answers=2))
    if is_read:
        assert isinstance(message, dns.Message)
        assert message.answers == (dns.Address("x", "1.2.3.4"),)
    else:
        assert message is Reason.MALFORMED


def response(name: bytes, records: bytes, *, answers: int) -> bytes:
    return struct.pack("!HHHHHH", 1, 0x8000, 1, answers, 0, 0) + name + b"\0\1\0\1" + records


def read(data: bytes) -> dns.Message | Reason:
    """Return the message, or the reason for the failure."""
    try:
        return dns.parse_response(data)
    except DnsError as error:
        return error.reason


@given(st.binary(max_size=600))
@example(struct.pack("!HHHHHH", 1, 0x8000, 1, 65535, 65535, 65535) + b"\0\0\1\0\1")
def test_any_bytes_are_a_message_or_malformed(data: bytes) -> None:
    message = read(data)
    assert isinstance(message, dns.Message) or message is Reason.MALFORMED
    if isinstance(message, dns.Message):
        assert all(dns.is_name(record.name) or record.name == "" for record in message.answers)


@given(st.data())
def test_a_damaged_answer_is_a_message_or_malformed(data: st.DataObject) -> None:
    answer = bytearray(an_answer(data.draw(st.sampled_from(QUESTIONS))))
    for _ in range(data.draw(st.integers(min_value=1, max_value=6))):
        answer[data.draw(st.integers(min_value=0, max_value=len(answer) - 1))] = data.draw(
            st.integers(0, 255)
        )
    end = data.draw(st.integers(min_value=0, max_value=len(answer)))
    message = read(bytes(answer[:end]))
    assert isinstance(message, dns.Message) or message is Reason.MALFORMED


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nimp2p-exp-purple", True),
        ("_rtt-echo._tcp.x", True),
        ("a" * 63, True),
        ("a" * 64, False),
        (".".join(["a" * 49] * 5), True),
        (".".join(["a" * 49] * 6), False),
        ("", False),
        ("a..b", False),
        ("a.", False),
        ("ä", False),
        ("a b", False),
        ("a\n", False),
    ],
)
def test_only_valid_names_are_accepted(text: str, expected: bool) -> None:
    assert dns.is_name(text) is expected


@given(NAMES, st.integers(0, 65535))
def test_a_query_contains_its_name_and_type(name: str, message_id: int) -> None:
    server = DnsServer(address="", port=0, zone=a_zone(1))
    answer_query(server, dns.format_query(Question(name, Kind.SRV), message_id=message_id), "udp")
    assert server.queries == [("udp", name, 33)]
