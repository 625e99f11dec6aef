from __future__ import annotations

import errno

import pytest

from nimlab.agents.rtt.outcome import Outcome, Result, failed, succeeded


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (TimeoutError(), Result.TIMEOUT),
        (OSError(errno.ETIMEDOUT, "x"), Result.TIMEOUT),
        (OSError(errno.ECONNREFUSED, "x"), Result.REFUSED),
        (OSError(errno.ECONNRESET, "x"), Result.REFUSED),
        (OSError(errno.EHOSTUNREACH, "x"), Result.UNREACHABLE),
        (OSError(errno.ENETUNREACH, "x"), Result.UNREACHABLE),
        (OSError(errno.EPERM, "x"), Result.UNREACHABLE),
        (OSError(errno.EMFILE, "x"), Result.ERROR),
        (OSError(errno.ENOBUFS, "x"), Result.ERROR),
        (OSError("no number"), Result.ERROR),
    ],
)
def test_each_error_has_its_result(error: OSError, result: Result) -> None:
    assert failed(error) == Outcome(result=result)


@pytest.mark.parametrize(
    ("kernel_s", "rtt_s", "kernel_timed"),
    [(0.01, 0.01, True), (0.02, 0.02, True), (0.021, 0.02, False), (0.0, 0.02, False), (-1.0, 0.02, False)],
)
def test_a_kernel_time_above_the_elapsed_time_is_ignored(
    kernel_s: float, rtt_s: float, kernel_timed: bool
) -> None:
    outcome = succeeded(kernel_s=kernel_s, elapsed_s=0.02)
    assert outcome == Outcome(result=Result.SUCCESS, rtt_s=rtt_s, kernel_timed=kernel_timed)


def test_without_a_kernel_time_the_elapsed_time_is_used() -> None:
    assert succeeded(kernel_s=None, elapsed_s=0.02) == Outcome(result=Result.SUCCESS, rtt_s=0.02)
