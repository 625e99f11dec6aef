"""What SIGINT, SIGTERM and SIGHUP do in each part of the program: always an orderly end with exit code 130.

While modules are imported the process ends at once: nothing has begun. While a command reads or edits files,
or starts the sandbox, SignalReceived is raised in the main thread. During a sync the first signal only sets a
flag. This module imports as little as possible, since it comes before everything else.
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

INTERRUPTED = 130  # errors.ExitCode, which isn't imported yet


class SignalReceived(BaseException):
    """A signal asked the program to end. Not KeyboardInterrupt: libraries turn that into something else."""


def end_at_once() -> None:
    """From now on a signal ends the process with exit code 130, without any clean-up."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        del number, frame
        write_line("interrupted")
        os._exit(INTERRUPTED)

    _install(on_signal)


def ignore() -> None:
    """From now on a signal does nothing: the exit code is known, and what is left takes no time."""
    for number in _NUMBERS:
        signal.signal(number, signal.SIG_IGN)


def raise_interrupt() -> None:
    """From now on a signal raises SignalReceived in the main thread."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise SignalReceived

    _install(on_signal)


@contextmanager
def raising() -> Iterator[None]:
    """Raise SignalReceived at a signal inside: nothing is under way that has to be finished."""
    before = {number: signal.getsignal(number) for number in _NUMBERS}
    raise_interrupt()
    try:
        yield
    finally:
        _restore(before)


@contextmanager
def stopping(stop: threading.Event) -> Iterator[None]:
    """Turn the first signal into a wish to stop; a second one raises SignalReceived."""
    before = {number: signal.getsignal(number) for number in _NUMBERS}

    def on_signal(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise_interrupt()
        write_line("stopping: what is under way is finished, nothing more is begun")
        stop.set()

    _install(on_signal)
    try:
        yield
    finally:
        _restore(before)


def write_line(text: str) -> None:
    """Write a line to stderr from a signal handler: the stream itself may be in the middle of a write."""
    try:
        os.write(2, f"{text}\n".encode())
    except OSError:
        return


def redeliver_swallowed() -> None:
    """Send the signal again if Python swallowed its exception, as it does in a destructor or a callback."""
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
        # `nohup` has SIGHUP ignored, and that has to stay so. A shell ignores SIGINT for a background job, so
        # that the terminal's doesn't reach it; one that is sent on purpose is obeyed.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def _restore(handlers: Mapping[signal.Signals, object]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)  # type: ignore[arg-type] # whatever getsignal returned
