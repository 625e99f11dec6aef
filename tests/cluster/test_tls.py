"""The shared TLS context: a ClientHello is never built from an ALPN list that another thread replaces."""

from __future__ import annotations

import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from urllib3.util.ssl_ import ALPN_PROTOCOLS, create_urllib3_context

from nimlab.cluster.kube.resolve_connection import read_access
from nimlab.cluster.kube.tls import SharedContext, make_context
from tests.support.lab import Sandbox

HANDSHAKES = 12_000
ALPN_EXTENSION = b"\x00\x10\x00\x0b\x00\x09\x08http/1.1"  # extension 16 (RFC 7301) with one protocol


def client_hello(context: ssl.SSLContext) -> bytes:
    """Return the ClientHello of a new connection with this context."""
    sent = ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname="localhost").do_handshake()
    except ssl.SSLWantReadError:
        return sent.read()
    pytest.fail("the handshake must wait for a server")


@pytest.mark.process
def test_client_hello_is_intact_while_other_threads_connect() -> None:
    """One thread sets the ALPN list, as urllib3 does for each connection; other threads start handshakes."""
    context = make_context()
    done = threading.Event()

    def set_alpn_repeatedly() -> None:
        while not done.is_set():
            context.set_alpn_protocols(ALPN_PROTOCOLS)

    setter = threading.Thread(target=set_alpn_repeatedly)
    setter.start()
    try:
        with ThreadPoolExecutor(2) as pool:
            broken = sum(pool.map(lambda _: ALPN_EXTENSION not in client_hello(context), range(HANDSHAKES)))
    finally:
        done.set()
        setter.join()
    assert broken == 0


def test_alpn_list_is_passed_to_openssl_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(ssl.SSLContext, "set_alpn_protocols", lambda self, names: calls.append(names))
    context = make_context()
    for _ in range(3):
        context.set_alpn_protocols(ALPN_PROTOCOLS)
    assert calls == [tuple(ALPN_PROTOCOLS)]
    with pytest.raises(ValueError, match="cannot be changed"):
        context.set_alpn_protocols(["h2"])


def test_context_has_the_settings_of_urllib3() -> None:
    ours, default = make_context(), create_urllib3_context()
    for name in (
        "verify_mode", "check_hostname", "options", "verify_flags", "minimum_version", "maximum_version",
        "post_handshake_auth", "hostname_checks_common_name", "keylog_filename", "protocol",
    ):  # fmt: skip
        assert getattr(ours, name) == getattr(default, name), name
    assert [cipher["name"] for cipher in ours.get_ciphers()] == [
        cipher["name"] for cipher in default.get_ciphers()
    ]


@pytest.mark.live
def test_connections_to_a_server_share_one_context(sandbox: Sandbox) -> None:
    access = read_access(Path(sandbox.kubeconfig), None)
    assert access is not None
    pool = access.pool(8)
    assert isinstance(pool.connection_pool_kw["ssl_context"], SharedContext)
    pool.clear()
