"""A TLS context for all threads, whose settings do not change after its first use."""

from __future__ import annotations

import ssl
from collections.abc import Iterable

from urllib3.util.ssl_ import ALPN_PROTOCOLS, create_urllib3_context


class SharedContext(ssl.SSLContext):
    """A TLS context whose ALPN list is set only once.

    urllib3 sets the same list again for every connection. OpenSSL then frees its copy of the list and makes a
    new one, without a lock. If the handshake of another thread reads the old copy at this moment, its
    ClientHello can contain garbage. The server then rejects it with `tlsv1 alert decode error`.
    """

    _protocols: tuple[str, ...] | None = None

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        """Set the list, unless the same list is already set. Raises ValueError for a different list."""
        wanted = tuple(alpn_protocols)
        if self._protocols is None:
            super().set_alpn_protocols(wanted)
            self._protocols = wanted
        elif wanted != self._protocols:
            raise ValueError("the ALPN list of a shared context cannot be changed")


def make_context() -> ssl.SSLContext:
    """Return a client context that verifies servers, with the settings of urllib3's own contexts."""
    default = create_urllib3_context()
    context = SharedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = default.minimum_version
    context.maximum_version = default.maximum_version
    context.options = default.options
    context.verify_flags = default.verify_flags
    context.post_handshake_auth = default.post_handshake_auth
    context.hostname_checks_common_name = default.hostname_checks_common_name
    if default.keylog_filename:
        context.keylog_filename = default.keylog_filename
    context.set_alpn_protocols(ALPN_PROTOCOLS)
    return context
