"""The monitoring stack in real pods: all targets are scraped, and each series belongs to one experiment."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.rig.prometheus_query import NAMESPACE, prometheus
from tests.rig.running_rig import Rig, RigLab, eventually

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
    """Return the pods in the series of an expression."""
    result = prometheus(rig, "query", query=expression)["result"]
    return {series["metric"].get("pod", "") for series in result}


def test_every_target_is_up(rig: Rig, figure: Callable[[str], None]) -> None:
    expected = {"node-exporter": 1, "cadvisor": 1, "nimp2p": 9, "rtt": 9}

    def count_up() -> dict[str, int] | None:
        targets = prometheus(rig, "targets", state="active")["activeTargets"]
        up: dict[str, int] = {}
        for target in targets:
            if target["health"] != "up":
                return None
            up[target["labels"]["job"]] = up.get(target["labels"]["job"], 0) + 1
        return up if up == expected else None

    up = eventually(count_up, within_s=90, what=f"these targets are up: {expected}")
    figure(f"rig: targets up: {', '.join(f'{count} {job}' for job, count in sorted(up.items()))}")


@pytest.mark.parametrize("measure", SERIES)
def test_the_series_of_an_experiment_cover_its_own_pods_only(
    rig: Rig, measure: str, figure: Callable[[str], None]
) -> None:
    for name, peers in EXPERIMENTS.items():
        expected = {f"nimp2p-exp-{name}-{i}" for i in range(peers)}
        eventually(
            lambda expected=expected, name=name: (  # type: ignore[misc]
                True if pods_in(rig, f'{SERIES[measure]}{{experiment="{name}"}}') == expected else None
            ),
            within_s=60,
            what=f"series of {measure} of {name} cover {sorted(expected)} and no other pod",
        )
    figure(f"rig: series of {measure} cover only the experiment's own pods: 5 of purple, 4 of blue")


def test_each_container_has_one_series_and_each_pod_one_interface(rig: Rig) -> None:
    for expression in (
        'max(count by (pod, container) (container_cpu_usage_seconds_total{experiment="purple"}))',
        'max(count by (pod) (container_network_receive_bytes_total{experiment="purple"}))',
    ):
        ((_, value),) = [s["value"] for s in prometheus(rig, "query", query=expression)["result"]]
        assert value == "1"


def test_nothing_outside_the_labs_namespaces_is_scraped(rig: Rig) -> None:
    result = prometheus(rig, "query", query='count by (namespace) ({namespace!=""})')["result"]
    assert {series["metric"]["namespace"] for series in result} == {NAMESPACE}


def test_the_running_stack_is_in_sync(platform: RigLab) -> None:
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
    answer = platform.run("sync", "platform", "--no-wait")  # Grafana never starts: its image is missing
    assert answer.code == 0, answer.out + answer.err
    began_s = time.monotonic()
    for name in ("green", "red"):
        expected = {("nimp2p-exp-" + name, f"pod-{i}") for i in range(3)}

        def scraped(name: str = name, expected: set[tuple[str, str]] = expected) -> bool | None:
            pods_by_metric = [
                {
                    (series["metric"]["namespace"], series["metric"]["pod"])
                    for series in prometheus(rig, "query", query=f'{metric}{{experiment="{name}"}}')["result"]
                }
                for metric in SERIES.values()
            ]
            assert all(pods <= expected for pods in pods_by_metric)
            return True if all(pods == expected for pods in pods_by_metric) else None

        eventually(scraped, within_s=150, what=f"the series of {name} cover its own pods only")
    figure(f"rig: Prometheus reads a changed configuration {time.monotonic() - began_s:.0f} s after a sync")
    assert uid_of("prometheus") == before, "Prometheus reloads its configuration without a restart"
