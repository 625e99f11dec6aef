"""Probes over a slow link, and ICMP with and without permission; needs root for a network namespace."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.agents.rtt.exposition import read_exposition
from tests.agents.rtt.world import bare_environment
from tests.support.paths import REPOSITORY

pytestmark = [pytest.mark.process, pytest.mark.serial]

DELAY_S = 0.02


def measure_in_new_network(folder: Path, permission: str) -> dict[str, Any]:
    if os.geteuid() != 0 or not Path("/dev/net/tun").exists() or shutil.which("unshare") is None:
        pytest.skip("a slow link needs root, `unshare` and /dev/net/tun")
    process = subprocess.run(
        [
            "unshare",
            "--net",
            sys.executable,
            "-m",
            "tests.agents.rtt.slow_link",
            str(folder),
            str(DELAY_S),
            permission,
        ],
        cwd=REPOSITORY,
        env=bare_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    result: dict[str, Any] = json.loads(process.stdout)
    return result


def test_a_slow_link_has_a_high_rtt_by_every_method(tmp_path: Path, figure: Callable[[str], None]) -> None:
    result = measure_in_new_network(tmp_path, "permit")
    read = read_exposition(result["metrics"])
    far_s = {
        method: read.value("nimlab_rtt_peer_min_seconds", peer="far", method=method)
        for method in ("tcp", "udp", "icmp")
    }
    figure(
        f"rtt: through 2 x {DELAY_S * 1e3:.0f} ms: "
        + ", ".join(f"{method} {rtt_s * 1e3:.1f} ms" for method, rtt_s in far_s.items())
        + f"; by connect() in the test {result['connect_s'] * 1e3:.1f} ms"
    )
    for method, rtt_s in far_s.items():
        assert rtt_s >= 2 * DELAY_S
        assert rtt_s == pytest.approx(result["connect_s"], rel=0.2)
        assert read.value("nimlab_rtt_peer_min_seconds", peer="near", method=method) < DELAY_S / 2
        assert read.value("nimlab_rtt_peer_loss_ratio", peer="far", method=method) < 0.5
        assert read.value("nimlab_rtt_method_usable", method=method) == 1
        assert read.value("nimlab_rtt_process_timed_total", method=method) == 0
    slow = read.value("nimlab_rtt_seconds_bucket", method="tcp", le="+Inf") - read.value(
        "nimlab_rtt_seconds_bucket", method="tcp", le="0.0256"
    )
    assert slow >= 5


def test_icmp_without_permission_is_reported_and_not_used(tmp_path: Path) -> None:
    result = measure_in_new_network(tmp_path, "forbid")
    read = read_exposition(result["metrics"])
    assert read.value("nimlab_rtt_method_usable", method="icmp") == 0
    assert read.labels_of("nimlab_rtt_probes_total", "method") == {"tcp", "udp"}
    (event,) = (event for event in result["events"] if event["event"] == "method-not-usable")
    assert (event["method"], event["why"]) == ("icmp", "Permission denied")
    assert "net.ipv4.ping_group_range" in event["hint"]
