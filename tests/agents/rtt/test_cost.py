"""Memory and CPU time of an exporter stay within the documented figures and the limits of its pod."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.agents.rtt.cost import PEERS, Cost, measure
from tests.agents.rtt.dns_server import Zone, serve_dns
from tests.agents.rtt.world import DOMAIN, bare_environment
from tests.support.paths import REPOSITORY

pytestmark = [pytest.mark.process, pytest.mark.serial]

INTERVAL_S = 5
TARGET_MIB, TARGET_SHARE = 40, 0.02
LIMIT_MIB = 64  # limit of the sidecar: templates/experiment/statefulset.yaml.j2
EXPORTERS_GROUP = "65534 65534"


def measure_in_new_network(folder: Path, methods: str, fanout: int) -> Cost:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("ICMP for one group needs root and `unshare`")
    module = ["-m", "tests.agents.rtt.cost", str(folder), methods, str(fanout), EXPORTERS_GROUP]
    answer = subprocess.run(
        ["unshare", "--net", sys.executable, *module],
        cwd=REPOSITORY,
        env=bare_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return Cost(**json.loads(answer.stdout))


def check(cost: Cost, methods: str, figure: Callable[[str], None], *, fanout: int = 8) -> None:
    """Check the documented limits and print the figures. A busy machine may lose a few probes."""
    listed = methods.replace(",", ", ")
    share = cost.cpu_s_per_round / INTERVAL_S
    figure(
        f"rtt: {cost.memory_mib:.1f} MiB at most; {cost.cpu_s_per_round * 1e3:.1f} ms of CPU per round "
        f"to {fanout} of {PEERS} peers by {listed}: {share:.2%} of one core at an interval of {INTERVAL_S} s"
    )
    assert cost.memory_mib <= TARGET_MIB
    assert share <= TARGET_SHARE
    assert {*cost.succeeded} == {*methods.split(",")}
    for method, count in cost.succeeded.items():
        assert count + cost.failed[method] >= 20 * fanout
        assert cost.failed[method] <= 0.1 * count


def test_the_cost_of_the_exporter_is_as_documented(tmp_path: Path, figure: Callable[[str], None]) -> None:
    with serve_dns(Zone(domain=DOMAIN)) as dns:
        check(measure(tmp_path, dns, methods="tcp,udp", fanout=8), "tcp,udp", figure)


def test_the_cost_of_the_exporter_with_all_methods_is_as_documented(
    tmp_path: Path, figure: Callable[[str], None]
) -> None:
    check(measure_in_new_network(tmp_path, "tcp,udp,icmp", 8), "tcp,udp,icmp", figure)


def test_the_maximum_fanout_fits_the_limits_of_the_pod(tmp_path: Path, figure: Callable[[str], None]) -> None:
    cost = measure_in_new_network(tmp_path, "tcp,udp,icmp", 64)
    check(cost, "tcp,udp,icmp", figure, fanout=64)
    assert cost.memory_mib <= LIMIT_MIB
