"""Number of random examples in a property test. With `--quick`, a test runs an eighth of its examples."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import HealthCheck, settings

_DEFAULT: Final = 100
_QUICK_SHARE: Final = 8

_is_quick = False


def examples(number: int) -> int:
    """Return how many examples to run: `number`, or with `--quick`, an eighth of it but at least 10."""
    return max(number // _QUICK_SHARE, 10) if _is_quick else number


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--quick`."""
    parser.addoption("--quick", action="store_true", help="run an eighth of the random examples")


def pytest_configure(config: pytest.Config) -> None:
    """Set the number of examples for tests that do not set it themselves.

    There is no deadline, because the time that an example takes depends on the load of the machine.
    """
    global _is_quick
    _is_quick = bool(config.getoption("--quick"))
    checks = [HealthCheck.too_slow]
    settings.register_profile(
        "nimlab", deadline=None, suppress_health_check=checks, max_examples=examples(_DEFAULT)
    )
    settings.load_profile("nimlab")
