"""One tally for all tests of the torture; whatever of them ran, its counts are printed once."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nimlab.cluster.kube import KubeCluster
from tests.prune_safety.counters import Tally
from tests.prune_safety.direct_writes import Admin
from tests.prune_safety.server_fixtures import Ground
from tests.support.lab import Sandbox


@pytest.fixture(scope="session")
def _counted(pytestconfig: pytest.Config) -> Iterator[tuple[Tally, list[Callable[[str], None]]]]:
    """The session's tally, and where its line goes."""
    del pytestconfig
    tally = Tally(seed=int(os.environ.get("NIMLAB_SEED") or secrets.randbelow(10**9)))
    tellers: list[Callable[[str], None]] = []
    yield tally, tellers
    if tellers and (tally.planned or tally.served):
        tellers[0](tally.line())


@pytest.fixture
def tally(_counted: tuple[Tally, list[Callable[[str], None]]], figure: Callable[[str], None]) -> Tally:
    """What has been counted so far."""
    found, tellers = _counted
    tellers.append(figure)
    return found


@pytest.fixture
def ground(
    sandbox: Sandbox,
    cluster: KubeCluster,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    tally: Tally,
) -> Iterator[Ground]:
    """Namespaces of this test's own."""
    made = Ground(Admin(cluster), sandbox, tmp_path, capsys, tally)
    try:
        yield made
    finally:
        made.clean()
