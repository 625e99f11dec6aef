"""What is bounded is stopped, cleanly, and what isn't is left alone."""

from __future__ import annotations

import resource
import signal
import threading

import pytest

from nimlab.render.resource_limits import OutOfBoundsError, bounded

MIB = 2**20


def spin() -> None:
    """Never end, whatever exception is caught."""
    while True:
        try:
            while True:
                pass
        except Exception:  # noqa: BLE001, S110 -- what a template engine does
            pass


def test_time_is_bounded_even_where_exceptions_are_caught() -> None:
    with pytest.raises(OutOfBoundsError, match=r"0\.05 s"), bounded(cpu_s=0.05, memory_bytes=64 * MIB):
        spin()


def test_memory_is_bounded() -> None:
    with pytest.raises(OutOfBoundsError, match="64 MiB"), bounded(cpu_s=5, memory_bytes=64 * MIB):
        bytearray(500 * MIB)


def test_everything_is_as_before_afterwards() -> None:
    limits, handler = resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGPROF)
    with bounded(cpu_s=0.05, memory_bytes=64 * MIB):
        pass
    assert resource.getrlimit(resource.RLIMIT_AS) == limits
    assert signal.getsignal(signal.SIGPROF) == handler
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
    assert len(bytearray(100 * MIB)) == 100 * MIB


def test_outside_the_main_thread_only_memory_is_bounded() -> None:
    said: list[str] = []

    def work() -> None:
        try:
            with bounded(cpu_s=0.001, memory_bytes=64 * MIB):
                bytearray(500 * MIB)
        except OutOfBoundsError as error:
            said.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert said == ["it takes more than 64 MiB of memory"]
