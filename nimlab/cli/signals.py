"""Handlers for SIGINT, SIGTERM and SIGHUP: each signal ends the command properly, with exit code 130.

During the imports, a signal ends the process at once, because nothing has begun. While a command reads or
edits files, or starts the sandbox, a signal raises SignalReceived in the main thread. During a sync, the
first signal only sets an event, and the second signal raises SignalReceived. This module is imported first,
so it imports as little as possible.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType

    _Handler = Callable[[int, FrameType | None], None]

INTERRUPTED = 130  # the same value as in errors.ExitCode, which is not imported yet


class SignalReceived(BaseException):
    """A signal requests the end of the program. KeyboardInterrupt is not used: some libraries swallow it."""


def end_at_once() -> None:
    """Install handlers that end the process at once, with exit code 130 and without any clean-up."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        del number, frame
        write_line("interrupted")
        os._exit(INTERRUPTED)

    _install(on_signal)


def ignore() -> None:
    """Ignore all further signals: the exit code is decided, and the process is about to end."""
    for number in _NUMBERS:
        signal.signal(number, signal.SIG_IGN)


def raise_interrupt() -> None:
    """Install handlers that raise SignalReceived in the main thread."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise SignalReceived

    _install(on_signal)


@contextmanager
def raising() -> Iterator[None]:
    """Raise SignalReceived when a signal arrives inside the context, for work that can be abandoned."""
    before = {number: signal.getsignal(number) for number in _NUMBERS}
    raise_interrupt()
    try:
        yield
    finally:
        _restore(before)


@contextmanager
def stopping(stop: threading.Event) -> Iterator[None]:
    """Set `stop` at the first signal inside the context, and raise SignalReceived at the second."""
    before = {number: signal.getsignal(number) for number in _NUMBERS}

    def on_signal(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise_interrupt()
        write_line("stopping: work in progress is finished, no new work is started")
        stop.set()

    _install(on_signal)
    try:
        yield
    finally:
        _restore(before)


def write_line(text: str) -> None:
    """Write a line to stderr from a signal handler, without `sys.stderr`, because it may be in use."""
    try:
        os.write(2, f"{text}\n".encode())
    except OSError:
        return


def redeliver_swallowed() -> None:
    """Send a signal again if Python ignored its exception, for example in a destructor or a callback."""
    import threading

    before = sys.unraisablehook

    def on_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
        if issubclass(unraisable.exc_type, SignalReceived):
            threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT)).start()
        else:
            before(unraisable)

    sys.unraisablehook = on_unraisable


_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _install(handler: _Handler) -> None:
    for number in _NUMBERS:
        # A process under `nohup` must continue to ignore SIGHUP. For background jobs, a shell ignores SIGINT,
        # but only to protect them from the terminal's SIGINT. Any other SIGINT was sent on purpose.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def _restore(handlers: Mapping[signal.Signals, object]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)  # type: ignore[arg-type] # whatever getsignal returned
