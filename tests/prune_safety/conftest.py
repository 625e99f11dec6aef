"""Fixtures of the tests of prune safety."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from nimlab.cluster.kube import KubeCluster
from tests.prune_safety.counters import Counters
from tests.prune_safety.direct_writes import DirectAccess
from tests.prune_safety.server_fixtures import LiveServer
from tests.support import figures
from tests.support.lab import Sandbox


@pytest.fixture
def counters(counts: dict[str, Counter[str]]) -> Iterator[Counters]:
    """Yield the counters of this test. After the test, add them to the counters of the whole run."""
    counters = Counters(seed=figures.seed())
    yield counters
    counts["prune safety"].update({
        "planned": counters.planned,
        "served": counters.served,
        "foreign deleted": counters.foreign_deleted,
        "ours left": counters.ours_left,
    })  # fmt: skip


@pytest.fixture
def server(
    sandbox: Sandbox,
    cluster: KubeCluster,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    counters: Counters,
) -> Iterator[LiveServer]:
    """Yield access to the API server. After the test, delete the namespaces of the test."""
    server_of_test = LiveServer(DirectAccess(cluster), sandbox, tmp_path, capsys, counters)
    try:
        yield server_of_test
    finally:
        server_of_test.clean()
