"""Limits for CPU time and memory: code that exceeds a limit is stopped, and other code is not affected."""

from __future__ import annotations

import resource
import signal
import threading

import pytest

from nimlab.render.template_limits import LimitExceededError, limit_resources

MIB = 2**20


def spin() -> None:
    """Loop forever and catch all exceptions."""
    while True:
        try:
            while True:
                pass
        except Exception:  # noqa: BLE001, S110 -- as a template engine does
            pass


def test_cpu_time_is_limited_even_if_exceptions_are_caught() -> None:
    limits = limit_resources(cpu_s=0.05, memory_bytes=64 * MIB)
    with pytest.raises(LimitExceededError, match=r"0\.05 s"), limits:
        spin()


def test_memory_is_limited() -> None:
    with pytest.raises(LimitExceededError, match="64 MiB"), limit_resources(cpu_s=5, memory_bytes=64 * MIB):
        bytearray(500 * MIB)


def test_limits_and_signal_handlers_are_restored() -> None:
    limits, handler = resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGPROF)
    with limit_resources(cpu_s=0.05, memory_bytes=64 * MIB):
        pass
    assert resource.getrlimit(resource.RLIMIT_AS) == limits
    assert signal.getsignal(signal.SIGPROF) == handler
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
    assert len(bytearray(100 * MIB)) == 100 * MIB


def test_outside_the_main_thread_only_memory_is_limited() -> None:
    messages: list[str] = []

    def work() -> None:
        try:
            with limit_resources(cpu_s=0.001, memory_bytes=64 * MIB):
                bytearray(500 * MIB)
        except LimitExceededError as error:
            messages.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert messages == ["the template needs more than 64 MiB of memory"]
