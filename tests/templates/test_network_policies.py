"""Isolation of experiments: the rendered policies are applied to every pair of pods and every port.

Egress and ingress are tested separately, because a policy that blocks one side hides a mistake in the other.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations, product

import pytest

from nimlab.files.load import load_lab
from nimlab.files.spec import Experiment
from nimlab.objects.manifest import Manifest
from nimlab.render import load_templates, render_experiment
from tests.support.network_policy import Pod, may_enter, may_leave
from tests.support.paths import SAMPLE_LAB

GO = "apiVersion: nimlab.dev/v1\nkind: Experiment\nmetadata: {name: NAME}\n"
GO += "spec: {contract: dst-go, peers: 3}\n"
PORTS = (22, 53, 80, 5000, 8008, 8645, 9090, 9105, 9106)
ONE_NAMESPACE = ("blue", "purple")
NAMESPACE_EACH = ("green", "red")
LAYOUTS = {
    "one namespace": ONE_NAMESPACE,
    "a namespace each": NAMESPACE_EACH,
    "both": (*ONE_NAMESPACE, *NAMESPACE_EACH),
}
FILES = load_lab(
    SAMPLE_LAB, {f"experiments/{name}.yaml": GO.replace("NAME", name) for name in NAMESPACE_EACH}
)
TEMPLATES = load_templates(SAMPLE_LAB, "templates/experiment")
LAB = FILES.lab.namespace
OTHERS = (
    Pod(name="prometheus", namespace=LAB, labels={"nimlab.dev/component": "prometheus"}),
    Pod(name="impostor of green", namespace=LAB, labels={"experiment": "green"}),
    Pod(name="impostor of purple", namespace="elsewhere", labels={"experiment": "purple"}),
    Pod(name="stranger", namespace="elsewhere", labels={}),
    Pod(name="dns", namespace="kube-system", labels={"k8s-app": "kube-dns"}),
)


def in_layout(layout: str) -> tuple[Experiment, ...]:
    """Return the experiments that this layout of namespaces contains."""
    matches = tuple(experiment for experiment in FILES.experiments if experiment.name in LAYOUTS[layout])
    assert len(matches) == len(LAYOUTS[layout])
    return matches


def rendered(experiment: Experiment, kind: str) -> Manifest:
    """Return the only object of this kind in the experiment."""
    (matches,) = (m for m in render_experiment(TEMPLATES, experiment, FILES.lab) if m["kind"] == kind)
    return matches


def peers_of(experiment: Experiment) -> list[Pod]:
    """Return two peers of an experiment with the labels of its template."""
    labels = rendered(experiment, "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    return [
        Pod(name=f"{experiment.name}-{i}", namespace=experiment.namespace, labels=labels) for i in range(2)
    ]


def scraped_ports(experiment: Experiment) -> set[int]:
    """Return the ports of a peer that the lab's own pods may use."""
    return {port.port for port in experiment.contract.ports if port.name in ("metrics", "publish")} | {9105}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_egress_and_ingress_of_every_pair_of_pods_and_port(
    layout: str, figure: Callable[[str], None]
) -> None:
    experiments = in_layout(layout)
    policies = [rendered(experiment, "NetworkPolicy") for experiment in experiments]
    owner_of = {pod.name: experiment for experiment in experiments for pod in peers_of(experiment)}
    pods = [pod for experiment in experiments for pod in peers_of(experiment)] + list(OTHERS)
    pairs = list(permutations(pods, 2))
    ports_and_protocols = list(product(PORTS, ("TCP", "UDP")))
    assert {port.port for experiment in experiments for port in experiment.contract.ports} <= set(PORTS)
    separated = 0
    for (source, target), (port, protocol) in product(pairs, ports_and_protocols):
        source_experiment, target_experiment = owner_of.get(source.name), owner_of.get(target.name)
        connection = f"{source.name} -> {target.name}:{port}/{protocol}"
        is_same_experiment = source_experiment is not None and source_experiment is target_experiment
        allows_egress = source_experiment is None or is_same_experiment or port == 53
        is_scrape = source.name == "prometheus" and protocol == "TCP"
        allows_ingress = (
            target_experiment is None
            or is_same_experiment
            or (is_scrape and port in scraped_ports(target_experiment))
        )
        assert may_leave(policies, source, target, port, protocol) is allows_egress, f"egress: {connection}"
        assert may_enter(policies, source, target, port, protocol) is allows_ingress, f"ingress: {connection}"
        separated += (
            source_experiment is not None
            and target_experiment is not None
            and not is_same_experiment
            and port != 53
        )
    separated_pairs = len(peers_of(experiments[0])) ** 2 * len(list(permutations(experiments, 2)))
    assert separated == separated_pairs * (len(ports_and_protocols) - 2)  # all except DNS
    figure(
        f"isolation, {layout}: {len(pairs)} pairs of pods x {len(ports_and_protocols)} ports, "
        f"egress and ingress separately; {separated} between experiments, each forbidden by both sides"
    )


def test_services_select_the_peers_of_one_experiment_only() -> None:
    peers = [pod for experiment in FILES.experiments for pod in peers_of(experiment)]
    for experiment in FILES.experiments:
        service = rendered(experiment, "Service")
        matches = {
            pod.labels["experiment"]
            for pod in peers
            if pod.namespace == service["metadata"]["namespace"]
            and service["spec"]["selector"].items() <= pod.labels.items()
        }
        assert matches == {experiment.name}
