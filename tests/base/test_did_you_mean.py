"""Suggestions for misspelt words: similar words are suggested, dissimilar words are not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimlab.did_you_mean import did_you_mean, nearest
from tests.support.paths import REPOSITORY

SCHEMA = json.loads((REPOSITORY / "schema/experiment.schema.json").read_text(encoding="utf-8"))
SPEC = list(SCHEMA["properties"]["spec"]["properties"])
GOSSIPSUB = ("d", "dLow", "dHigh", "dScore", "dOut", "dLazy", "heartbeat", "pruneBackoff")


@pytest.mark.parametrize(
    ("word", "known", "meant"),
    [
        ("msgsize", SPEC, "message"),
        ("mesage", SPEC, "message"),
        ("peer", SPEC, "peers"),
        ("connect_to", SPEC, "connectTo"),
        ("CONNECTTO", SPEC, "connectTo"),
        ("connections", SPEC, "connectTo"),
        ("max-connections", SPEC, "maxConnections"),
        ("image_tag", SPEC, "image"),
        ("rttt", SPEC, "rtt"),
        ("dhi", GOSSIPSUB, "dHigh"),
        ("d_low", GOSSIPSUB, "dLow"),
        ("heartbeatInterval", GOSSIPSUB, "heartbeat"),
        ("message.sise", ["message.size", "message.interval"], "message.size"),
        ("purpel", ["blue", "purple"], "purple"),
    ],
)
def test_a_similar_word_is_suggested(word: str, known: list[str], meant: str) -> None:
    assert nearest(word, known) == meant
    assert did_you_mean(word, known) == f"did you mean `{meant}`?"


@pytest.mark.parametrize(
    ("word", "known"),
    [
        ("ttl", SPEC),
        ("ttl", ["rtt"]),
        ("replicas", SPEC),
        ("retries", SPEC),
        ("immutable", SPEC),
        ("delay", SPEC),
        ("size", SPEC),
        ("cpu", SPEC),
        ("x", GOSSIPSUB),
        ("dst-rust", ["dst-go", "dst-kad"]),
        ("red", ["blue", "purple"]),
        ("", SPEC),
        ("-_-", SPEC),
        ("message", []),
        ("m" * 100_000, SPEC),
    ],
)
def test_nothing_is_suggested_if_no_word_is_similar(word: str, known: list[str]) -> None:
    assert nearest(word, known) is None
    assert did_you_mean(word, known, "write one") == "write one"


@given(st.text(max_size=12), st.lists(st.text(max_size=12), max_size=6))
def test_suggestion_is_a_known_word_and_independent_of_their_order(word: str, known: list[str]) -> None:
    suggestion = nearest(word, known)
    assert suggestion is None or suggestion in known
    assert suggestion == nearest(word, known[::-1])


def test_no_other_module_suggests_words() -> None:
    users = {
        path.name
        for path in (REPOSITORY / "nimlab").rglob("*.py")
        if "difflib" in path.read_text(encoding="utf-8")
    }
    assert users == {"did_you_mean.py"}
