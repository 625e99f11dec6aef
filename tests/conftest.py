"""Options and fixtures that every test may use; the cluster's own are in `tests/live.py`."""

from __future__ import annotations

import os

import pytest

from tests.live import cluster, lab, sandbox

__all__ = ["cluster", "lab", "sandbox"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--update-golden` and `--require-live`."""
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite the expected files (refused in CI)"
    )
    parser.addoption("--require-live", action="store_true", help="a test skipped for want of a cluster fails")


@pytest.fixture
def update_golden(pytestconfig: pytest.Config) -> bool:
    """True when expected files are to be rewritten."""
    wanted = bool(pytestconfig.getoption("--update-golden"))
    if wanted and os.environ.get("CI"):
        pytest.fail("--update-golden is refused in CI")
    return wanted
