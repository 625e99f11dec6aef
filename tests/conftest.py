"""Options and fixtures that every test may use."""

from __future__ import annotations

import os

import pytest

from tests.support.lab import cluster, lab, lab_folder, sandbox

__all__ = ["cluster", "lab", "lab_folder", "sandbox"]

pytest_plugins = ["tests.support.examples", "tests.support.figures", "tests.support.run_rules"]

collect_ignore = [] if "NIMLAB_RIG" in os.environ else ["rig"]  # only `make test-lab` can run `rig`


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--update-golden` and `--require-live`."""
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite the expected files (refused in CI)"
    )
    parser.addoption(
        "--require-live",
        action="store_true",
        help="fail the tests whose API server cannot start; do not skip them",
    )


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the credentials of other tests: nimlab masks every credential that its process has read."""
    monkeypatch.setattr("nimlab.objects.mask_secrets._CREDENTIALS", set())


@pytest.fixture
def update_golden(pytestconfig: pytest.Config) -> bool:
    """True if the expected files are to be rewritten."""
    wanted = bool(pytestconfig.getoption("--update-golden"))
    if wanted and os.environ.get("CI"):
        pytest.fail("--update-golden is refused in CI")
    return wanted
