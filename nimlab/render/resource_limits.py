"""A bound on the time and memory of what somebody else wrote: templates come with a merge request.

Time is the processor's, so that a busy machine refuses nothing. It is bounded in the main thread, by a
signal; memory by the kernel's limit on the address space, where it has one (Linux). What is bounded is
interrupted by an exception, at the next step of Python: a single step has to be kept short by other means.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType


class OutOfBoundsError(BaseException):
    """The time or the memory was used up. No `Exception`: what is bounded may catch those, and go on."""


@contextmanager
def bounded(*, cpu_s: float, memory_bytes: int) -> Iterator[None]:
    """Raise OutOfBoundsError in what takes more processor time, or more memory than there was before."""
    with _bounded_memory(memory_bytes), _bounded_time(cpu_s):
        yield


@contextmanager
def _bounded_time(cpu_s: float) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise OutOfBoundsError(f"it takes more than {cpu_s:g} s of processor time")

    before = signal.signal(signal.SIGPROF, on_signal)
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@contextmanager
def _bounded_memory(memory_bytes: int) -> Iterator[None]:
    used = _address_space_bytes()
    if used is None:
        yield
        return
    import resource  # not on every system

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    allowed = used + memory_bytes
    if soft != resource.RLIM_INFINITY and soft < allowed:
        yield
        return
    with suppress(ValueError, OSError):  # a hard limit below it does as well
        resource.setrlimit(resource.RLIMIT_AS, (allowed, hard))
    try:
        yield
    except MemoryError as error:
        raise OutOfBoundsError(f"it takes more than {memory_bytes // 2**20} MiB of memory") from error
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _address_space_bytes() -> int | None:
    """How much address space this process has, None where the kernel doesn't say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
