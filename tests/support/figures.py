"""Figures of a test run: lines and counts that all workers report, printed at the end.

A test adds a line with the fixture `figure`, or counts with the fixture `counts`. Counts with the same name
are added up over all workers. A function in `SENTENCES` formats them as one line.
"""

from __future__ import annotations

import os
import secrets
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import pytest

_LINES: Final = pytest.StashKey[list[str]]()
_COUNTS: Final = pytest.StashKey[dict[str, Counter[str]]]()
_SEED: Final = "NIMLAB_SEED"


def _crashes(counts: Counter[str]) -> str:
    return (
        f"crashes: killed after each of the {counts['B']} and {counts['A']} writes of two syncs: "
        "the next one finished each, 0 left behind, 0 foreign objects touched"
    )


def _faults(counts: Counter[str]) -> str:
    kinds = ", ".join(f"{count} times {name}" for name, count in sorted(counts.items()))
    return f"faults: {counts.total()} injected ({kinds}): 0 wrong deletions, 0 times falsely in sync"


def _prune_safety(counts: Counter[str]) -> str:
    return (
        f"prune safety: {counts['planned']} situations planned (seed {seed()}), "
        f"{counts['served']} objects on the server: "
        f"{counts['foreign deleted']} foreign objects deleted, {counts['ours left']} of ours left"
    )


SENTENCES: Final[dict[str, Callable[[Counter[str]], str]]] = {
    "crashes": _crashes,
    "faults": _faults,
    "prune safety": _prune_safety,
}


def seed() -> int:
    """Return the seed of the run's random choices. It is the same in all workers; `NIMLAB_SEED` sets it."""
    return int(os.environ[_SEED])


def pytest_configure(config: pytest.Config) -> None:
    """Prepare the figures, and choose the seed before any worker starts."""
    config.stash[_LINES] = []
    counts: dict[str, Counter[str]] = {name: Counter() for name in SENTENCES}
    config.stash[_COUNTS] = counts
    os.environ.setdefault(_SEED, str(secrets.randbelow(10**9)))


def pytest_report_header() -> str:
    """Print the seed, so that a run can be repeated."""
    return f"{_SEED}={seed()}"


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Pass the figures of a worker to the process that started the worker."""
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["figures"] = session.config.stash[_LINES]
        output["counts"] = {name: dict(counts) for name, counts in session.config.stash[_COUNTS].items()}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add the figures of a worker that has ended."""
    output: dict[str, Any] = getattr(node, "workeroutput", {})
    node.config.stash[_LINES] += output.get("figures", [])
    for name, counts in output.get("counts", {}).items():
        node.config.stash[_COUNTS][name].update(counts)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures."""
    stash = terminalreporter.config.stash
    lines = [SENTENCES[name](counts) for name, counts in stash[_COUNTS].items() if counts]
    for line in (*stash[_LINES], *lines):
        terminalreporter.write_line(line)


@pytest.fixture
def figure(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Return a function that adds a line to the end of the run's output."""
    return pytestconfig.stash[_LINES].append


@pytest.fixture
def counts(pytestconfig: pytest.Config) -> dict[str, Counter[str]]:
    """Return one Counter per name in `SENTENCES`; a test adds its counts to a Counter."""
    return pytestconfig.stash[_COUNTS]
