"""Options and fixtures that every test may use; the cluster's own are in `tests/live.py`."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings

from tests.support.lab import cluster, lab, lab_folder, sandbox

__all__ = ["cluster", "lab", "lab_folder", "sandbox"]

# How long an example takes says more about the machine's other work than about the code.
settings.register_profile("nimlab", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("nimlab")

collect_ignore = [] if "NIMLAB_RIG" in os.environ else ["rig"]  # needs namespaces of its own: `make test-lab`

_FIGURES = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--update-golden` and `--require-live`."""
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite the expected files (refused in CI)"
    )
    parser.addoption("--require-live", action="store_true", help="a test skipped for want of a cluster fails")


def pytest_configure(config: pytest.Config) -> None:
    """Make room for the figures of this run."""
    config.stash[_FIGURES] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that needs the API server, so that a run without `live` never starts one."""
    for item in items:
        if "sandbox" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.live)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the tests have counted."""
    for line in terminalreporter.config.stash[_FIGURES]:
        terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the credentials of other tests: each is hidden in all that the process prints from then on."""
    monkeypatch.setattr("nimlab.objects.masking._KNOWN", set())


@pytest.fixture
def figure(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Return a function that keeps a line to be printed at the end of the run."""
    return pytestconfig.stash[_FIGURES].append


@pytest.fixture
def update_golden(pytestconfig: pytest.Config) -> bool:
    """True when expected files are to be rewritten."""
    wanted = bool(pytestconfig.getoption("--update-golden"))
    if wanted and os.environ.get("CI"):
        pytest.fail("--update-golden is refused in CI")
    return wanted
