"""Limits on the CPU time and the memory of templates, because a merge request can contain templates.

CPU time is limited instead of wall time, so that a busy machine does not cause false rejections. A signal
enforces the limit of CPU time, in the main thread only. The kernel enforces the limit of the address space,
on Linux only. Code that exceeds a limit gets an exception at its next Python instruction. A single long
instruction is not interrupted, so the caller must prevent such instructions.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType


class LimitExceededError(BaseException):
    """The CPU time or memory limit was exceeded.

    It is not a subclass of `Exception`, because the limited code could catch such an error and continue.
    """


@contextmanager
def limit_resources(*, cpu_s: float, memory_bytes: int) -> Iterator[None]:
    """Raise LimitExceededError inside the context if its code needs more CPU time or additional memory."""
    with _limit_memory(memory_bytes), _limit_cpu_time(cpu_s):
        yield


@contextmanager
def _limit_cpu_time(cpu_s: float) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise LimitExceededError(f"the template needs more than {cpu_s:g} s of CPU time")

    previous = signal.signal(signal.SIGPROF, on_signal)
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)


@contextmanager
def _limit_memory(memory_bytes: int) -> Iterator[None]:
    used_bytes = _address_space_bytes()
    if used_bytes is None:
        yield
        return
    import resource  # missing on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = used_bytes + memory_bytes
    if soft != resource.RLIM_INFINITY and soft < limit:
        yield
        return
    with suppress(ValueError, OSError):  # the hard limit is lower and applies anyway
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    except MemoryError as error:
        raise LimitExceededError(
            f"the template needs more than {memory_bytes // 2**20} MiB of memory"
        ) from error
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _address_space_bytes() -> int | None:
    """Return the size of this process's address space, or None if the kernel does not report it."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
