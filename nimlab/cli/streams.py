"""stdout and stderr streams that never raise: they drop text that cannot be written, and record the failure.

A sync must finish even if nobody can read its output. Therefore a closed pipe, a full disk or a closed
descriptor does not end the program; `exit_code_after` decides how it affects the exit code.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from collections.abc import Callable
from typing import Any, Final

from nimlab.errors import ExitCode
from nimlab.files.safe_write import write_fully

_ASCII: Final = {
    "…": "...", "→": "->", "←": "<-", "·": "-", "\u2013": "-", "—": "-", "≥": ">=", "≤": "<=", "\u00d7": "x",
    "∞": "inf", "━": "=", "╸": "=", "╺": "=", "─": "-", "│": "|", "•": "*", "\u2018": "'", "\u2019": "'",
    "“": '"', "”": '"',
}  # fmt: skip
_HANDLER: Final = "nimlab-ascii"
_READER_CLOSED: Final = frozenset({errno.EPIPE, errno.ECONNRESET, errno.EIO})  # EIO: a closed terminal


class _Sink(io.RawIOBase):
    """A descriptor that accepts all data; after the first failure, it discards the rest."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.failure: OSError | None = None

    def write(self, data: Any, /) -> int:  # noqa: ANN401 -- any buffer
        """Write the bytes, or discard them."""
        content = bytes(data)
        if self.failure is None:
            try:
                write_fully(self._descriptor, content)
            except OSError as error:
                self.failure = error
        return len(content)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)


class Streams:
    """The output streams of this process."""

    def __init__(self) -> None:
        self._stdout: _Sink | None = None

    def protect(self) -> None:
        """Replace stdout and stderr by streams that never raise; call this before anything is printed.

        A closed descriptor is opened on /dev/null. Otherwise the next file or socket would get its number,
        and output would go there.
        """
        codecs.register_error(_HANDLER, replace_unencodable)
        for descriptor in (0, 1, 2):
            try:
                os.fstat(descriptor)
            except OSError:
                os.open(os.devnull, os.O_RDWR)  # the lowest free number is `descriptor`
        self._stdout = _Sink(1)
        sys.stdout = _text_stream(self._stdout, sys.stdout)
        sys.stderr = _text_stream(_Sink(2), sys.stderr)

    @property
    def is_stdout_lost(self) -> bool:
        """True if stdout can no longer be written to.

        A command that does nothing but print can then stop early.
        """
        return self._stdout is not None and self._stdout.failure is not None

    def exit_code_after(self, code: int, report: Callable[[str], None]) -> int:
        """Return the exit code of a command that ended with `code`; report an error if its output was lost.

        If the reader has closed the pipe, it needs no more output, and `code` is returned. Any other failure
        is an error.
        """
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        failure = None if self._stdout is None else self._stdout.failure
        if failure is None or failure.errno in _READER_CLOSED:
            return code
        report(f"error: the result cannot be written to stdout: {failure.strerror}")
        report(f"  hint: the command itself ended with exit code {code}; write its output elsewhere")
        return code if code in (ExitCode.BUG, ExitCode.INTERRUPTED, ExitCode.USAGE) else ExitCode.ERROR


STREAMS: Final = Streams()


def replace_unencodable(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that the encoding cannot represent with similar ASCII or an escape sequence."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_ASCII.get(c) or c.encode("unicode_escape").decode("ascii") for c in text), error.end


def _text_stream(sink: _Sink, before: Any) -> io.TextIOWrapper:  # noqa: ANN401 -- None if it was closed
    """Return a text stream that flushes each line, with the encoding of the previous stream."""
    encoding = getattr(before, "encoding", None) or "utf-8"
    return io.TextIOWrapper(
        io.BufferedWriter(sink), encoding=encoding, errors=_HANDLER, line_buffering=True, write_through=False
    )
