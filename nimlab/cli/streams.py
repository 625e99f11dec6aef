"""stdout and stderr that never raise: a text that can't be written is lost, and the loss is remembered.

A sync has to finish whoever reads its output. So a reader that has gone, a full disk and a closed descriptor
end nothing. `exit_code_after` decides what they mean for the exit code.
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
_GONE: Final = frozenset({errno.EPIPE, errno.ECONNRESET, errno.EIO})  # EIO: a terminal that was closed


class _Sink(io.RawIOBase):
    """A descriptor that takes everything; after the first failure it writes nothing more."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.failure: OSError | None = None

    def write(self, data: Any, /) -> int:  # noqa: ANN401 -- any buffer
        """Write the bytes, or lose them."""
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
    """The output of this process."""

    def __init__(self) -> None:
        self._stdout: _Sink | None = None

    def protect(self) -> None:
        """Replace stdout and stderr by streams that never raise; call it before anything is printed.

        A descriptor that was closed is opened on /dev/null. Else the next file or socket would get its
        number, and output would go there.
        """
        codecs.register_error(_HANDLER, replace_unencodable)
        for descriptor in (0, 1, 2):
            try:
                os.fstat(descriptor)
            except OSError:
                os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one
        self._stdout = _Sink(1)
        sys.stdout = _text_stream(self._stdout, sys.stdout)
        sys.stderr = _text_stream(_Sink(2), sys.stderr)

    @property
    def is_stdout_lost(self) -> bool:
        """True when nothing that is printed arrives any more: a command that only prints may end."""
        return self._stdout is not None and self._stdout.failure is not None

    def exit_code_after(self, code: int, report: Callable[[str], None]) -> int:
        """Return the exit code of a command that ended with `code`; report a result that was lost.

        A reader that closed its end has what it wanted: nothing changes. Any other loss is an error.
        """
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        failure = None if self._stdout is None else self._stdout.failure
        if failure is None or failure.errno in _GONE:
            return code
        report(f"error: the result can't be written to stdout: {failure.strerror}")
        report(f"  hint: the command itself ended with {code}; write its output elsewhere")
        return code if code in (ExitCode.BUG, ExitCode.INTERRUPTED, ExitCode.USAGE) else ExitCode.ERROR


STREAMS: Final = Streams()


def replace_unencodable(error: UnicodeError) -> tuple[str, int]:
    """Return what stands for characters that an encoding hasn't: the nearest in ASCII, else an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_ASCII.get(c) or c.encode("unicode_escape").decode("ascii") for c in text), error.end


def _text_stream(sink: _Sink, before: Any) -> io.TextIOWrapper:  # noqa: ANN401 -- None for one that was closed
    """A text stream like the one before, which flushes each line."""
    encoding = getattr(before, "encoding", None) or "utf-8"
    return io.TextIOWrapper(
        io.BufferedWriter(sink), encoding=encoding, errors=_HANDLER, line_buffering=True, write_through=False
    )
