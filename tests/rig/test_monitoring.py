"""The monitoring stack in real pods: everything is scraped, and each experiment stands apart."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.rig.cluster import Rig, RigLab, eventually
from tests.rig.monitoring import NAMESPACE, prometheus

pytestmark = pytest.mark.usefixtures("platform")
EXPERIMENTS = {"purple": 5, "blue": 4}
SERIES = {
    "CPU": "container_cpu_usage_seconds_total",
    "memory": "container_memory_working_set_bytes",
    "network": "container_network_receive_bytes_total",
    "libp2p": "libp2p_peers",
    "round-trip times": "nimlab_rtt_probes_total",
}


def pods_in(rig: Rig, expression: str) -> set[str]:
    """The pods that series of an expression are about."""
    return {one["metric"].get("pod", "") for one in prometheus(rig, "query", query=expression)["result"]}


def test_every_target_is_up(rig: Rig, figure: Callable[[str], None]) -> None:
    wanted = {"node-exporter": 1, "cadvisor": 1, "nimp2p": 9, "rtt": 9}

    def look() -> dict[str, int] | None:
        targets = prometheus(rig, "targets", state="active")["activeTargets"]
        up: dict[str, int] = {}
        for one in targets:
            if one["health"] != "up":
                return None
            up[one["labels"]["job"]] = up.get(one["labels"]["job"], 0) + 1
        return up if up == wanted else None

    up = eventually(look, within_s=90, what=f"targets that are up: {wanted}")
    figure(f"rig: targets up: {', '.join(f'{count} {job}' for job, count in sorted(up.items()))}")


@pytest.mark.parametrize("what", SERIES)
def test_an_experiments_series_are_its_own(rig: Rig, what: str, figure: Callable[[str], None]) -> None:
    for name, peers in EXPERIMENTS.items():
        expected = {f"nimp2p-exp-{name}-{i}" for i in range(peers)}
        eventually(
            lambda expected=expected, name=name: (  # type: ignore[misc]
                True if pods_in(rig, f'{SERIES[what]}{{experiment="{name}"}}') == expected else None
            ),
            within_s=60,
            what=f"{what} of {name} is about {sorted(expected)} and nothing else",
        )
    figure(f"rig: series of {what} are about the experiment's own pods alone: 5 of purple, 4 of blue")


def test_each_container_has_one_series_and_each_pod_one_interface(rig: Rig) -> None:
    for expression in (
        'max(count by (pod, container) (container_cpu_usage_seconds_total{experiment="purple"}))',
        'max(count by (pod) (container_network_receive_bytes_total{experiment="purple"}))',
    ):
        ((_, value),) = [one["value"] for one in prometheus(rig, "query", query=expression)["result"]]
        assert value == "1"


def test_nothing_outside_the_labs_namespaces_is_scraped(rig: Rig) -> None:
    found = prometheus(rig, "query", query='count by (namespace) ({namespace!=""})')["result"]
    assert {one["metric"]["namespace"] for one in found} == {NAMESPACE}


def test_what_runs_is_in_sync(platform: RigLab) -> None:
    answer = platform.run("sync", "platform", "--dry-run", "--exit-code")
    assert answer.code == 0, answer.out + answer.err


@pytest.mark.usefixtures("apart")
def test_experiments_with_namespaces_of_their_own_are_scraped_after_a_sync(
    platform: RigLab, rig: Rig, figure: Callable[[str], None]
) -> None:
    def uid_of(component: str) -> str:
        label = f"nimlab.dev/component={component}"
        return rig.kubectl(
            "-n", NAMESPACE, "get", "pods", "-l", label, "-o", "jsonpath={.items[*].metadata.uid}"
        )

    before = uid_of("prometheus")
    answer = platform.run("sync", "platform", "--no-wait")  # Grafana's image isn't to be had
    assert answer.code == 0, answer.out + answer.err
    began_s = time.monotonic()
    for name in ("green", "red"):
        expected = {("nimp2p-exp-" + name, f"pod-{i}") for i in range(3)}

        def scraped(name: str = name, expected: set[tuple[str, str]] = expected) -> bool | None:
            found = [
                {
                    (one["metric"]["namespace"], one["metric"]["pod"])
                    for one in prometheus(rig, "query", query=f'{series}{{experiment="{name}"}}')["result"]
                }
                for series in SERIES.values()
            ]
            assert all(one <= expected for one in found)
            return True if all(one == expected for one in found) else None

        eventually(scraped, within_s=150, what=f"series of {name}, and of it alone")
    figure(f"rig: Prometheus reads a changed configuration {time.monotonic() - began_s:.0f} s after a sync")
    assert uid_of("prometheus") == before, "it reads its configuration again by itself"
