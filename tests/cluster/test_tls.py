"""One TLS context for all threads: no ClientHello is built from a list that another thread replaces."""

from __future__ import annotations

import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from urllib3.util.ssl_ import ALPN_PROTOCOLS, create_urllib3_context

from nimlab.cluster.kube.server_access import read_access
from nimlab.cluster.kube.tls import SharedContext, make_context
from tests.support.lab import Sandbox

HELLOS = 12_000
OFFERED = b"\x00\x10\x00\x0b\x00\x09\x08http/1.1"  # extension 16 (RFC 7301), with this one protocol


def hello(context: ssl.SSLContext) -> bytes:
    """The ClientHello that a connection would send."""
    sent = ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname="localhost").do_handshake()
    except ssl.SSLWantReadError:
        return sent.read()
    pytest.fail("a handshake without a server waits for one")


@pytest.mark.process
def test_every_hello_is_whole_while_other_threads_connect() -> None:
    """What urllib3 does to the context for each connection, beside threads that begin a handshake."""
    context = make_context()
    done = threading.Event()

    def connect_again_and_again() -> None:
        while not done.is_set():
            context.set_alpn_protocols(ALPN_PROTOCOLS)

    others = threading.Thread(target=connect_again_and_again)
    others.start()
    try:
        with ThreadPoolExecutor(2) as pool:
            broken = sum(pool.map(lambda _: OFFERED not in hello(context), range(HELLOS)))
    finally:
        done.set()
        others.join()
    assert broken == 0


def test_list_is_handed_to_openssl_once(monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[Any] = []
    monkeypatch.setattr(ssl.SSLContext, "set_alpn_protocols", lambda self, names: handed.append(names))
    context = make_context()
    for _ in range(3):
        context.set_alpn_protocols(ALPN_PROTOCOLS)
    assert handed == [tuple(ALPN_PROTOCOLS)]
    with pytest.raises(ValueError, match="can't be changed"):
        context.set_alpn_protocols(["h2"])


def test_context_is_as_strict_as_urllib3s_own() -> None:
    ours, theirs = make_context(), create_urllib3_context()
    for name in (
        "verify_mode", "check_hostname", "options", "verify_flags", "minimum_version", "maximum_version",
        "post_handshake_auth", "hostname_checks_common_name", "keylog_filename", "protocol",
    ):  # fmt: skip
        assert getattr(ours, name) == getattr(theirs, name), name
    assert [c["name"] for c in ours.get_ciphers()] == [c["name"] for c in theirs.get_ciphers()]


@pytest.mark.live
def test_connections_to_a_server_share_such_a_context(sandbox: Sandbox) -> None:
    access = read_access(Path(sandbox.kubeconfig), None)
    assert access is not None
    pool = access.pool(8)
    assert isinstance(pool.connection_pool_kw["ssl_context"], SharedContext)
    pool.clear()
