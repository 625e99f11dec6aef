"""One TLS context for all threads, whose settings don't change once it is in use."""

from __future__ import annotations

import ssl
from collections.abc import Iterable

from urllib3.util.ssl_ import ALPN_PROTOCOLS, create_urllib3_context


class SharedContext(ssl.SSLContext):
    """A context whose ALPN list is set once.

    urllib3 sets the same list again for every connection. OpenSSL then frees the buffer and copies the new
    one, without a lock, while another thread's handshake may read it. Its ClientHello carries garbage, and
    the server answers `tlsv1 alert decode error`.
    """

    _protocols: tuple[str, ...] | None = None

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        """Set the list; the same one again does nothing. Raises ValueError for another one."""
        wanted = tuple(alpn_protocols)
        if self._protocols is None:
            super().set_alpn_protocols(wanted)
            self._protocols = wanted
        elif wanted != self._protocols:
            raise ValueError("the ALPN list of a shared context can't be changed")


def make_context() -> ssl.SSLContext:
    """Return a context for clients that verifies servers, with the settings that urllib3 has for its own."""
    plain = create_urllib3_context()
    context = SharedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = plain.minimum_version
    context.maximum_version = plain.maximum_version
    context.options = plain.options
    context.verify_flags = plain.verify_flags
    context.post_handshake_auth = plain.post_handshake_auth
    context.hostname_checks_common_name = plain.hostname_checks_common_name
    if plain.keylog_filename:
        context.keylog_filename = plain.keylog_filename
    context.set_alpn_protocols(ALPN_PROTOCOLS)
    return context
