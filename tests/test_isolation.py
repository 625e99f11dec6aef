"""Experiments stand apart: every pair of pods and ports, under the policies that are rendered."""

from __future__ import annotations

from itertools import product

import pytest

from nimlab.load import load_lab
from nimlab.manifest import Manifest, labels_of
from nimlab.render import load_templates, render_experiment
from nimlab.spec import Experiment, LabFiles
from tests.live import REPOSITORY
from tests.network_policy import Pod, allows

GO = "apiVersion: nimlab.dev/v1\nkind: Experiment\nmetadata: {name: NAME}\n"
GO += "spec: {contract: dst-go, peers: 3}\n"
PORTS = (53, 80, 5000, 8008, 8645, 9105, 9106)


@pytest.fixture(scope="module")
def files() -> LabFiles:
    """The shipped lab, with two experiments that have namespaces of their own."""
    return load_lab(
        REPOSITORY, {f"experiments/{name}.yaml": GO.replace("NAME", name) for name in ("green", "red")}
    )


@pytest.fixture(scope="module")
def policies(files: LabFiles) -> list[Manifest]:
    """Every policy of every experiment."""
    templates = load_templates(REPOSITORY, "templates/experiment")
    rendered = [m for one in files.experiments for m in render_experiment(templates, one, files.lab)]
    return [manifest for manifest in rendered if manifest["kind"] == "NetworkPolicy"]


def peers_of(one: Experiment, policies: list[Manifest]) -> list[Pod]:
    """Two peers of an experiment, labelled as its template labels them."""
    labels = next(labels_of(p) for p in policies if labels_of(p)["experiment"] == one.name)
    return [Pod(name=f"{one.name}-{i}", namespace=one.namespace, labels=labels) for i in range(2)]


def test_every_pair_of_pods_and_ports(files: LabFiles, policies: list[Manifest]) -> None:
    assert len(policies) == 4
    peers = [pod for one in files.experiments for pod in peers_of(one, policies)]
    experiment_of = {pod.name: pod.labels["experiment"] for pod in peers}
    scraped = {
        one.name: {p.port for p in one.contract.ports if p.name in ("metrics", "publish")} | {9105}
        for one in files.experiments
    }
    prometheus = Pod(name="prometheus", namespace=files.lab.namespace, labels={"app": "prometheus"})
    stranger = Pod(name="stranger", namespace="elsewhere", labels={})
    impostor = Pod(name="impostor", namespace="elsewhere", labels={"experiment": "purple"})
    dns = Pod(name="dns", namespace="kube-system", labels={"k8s-app": "kube-dns"})
    everybody = [*peers, prometheus, stranger, impostor, dns]
    tried = 0
    for source, target, port, protocol in product(everybody, everybody, PORTS, ("TCP", "UDP")):
        if source is target:
            continue
        mine, theirs = experiment_of.get(source.name), experiment_of.get(target.name)
        if theirs is None:
            expected = mine is None or port == 53
        elif mine is not None:
            expected = mine == theirs
        else:
            expected = source is prometheus and protocol == "TCP" and port in scraped[theirs]
        found = allows(policies, source, target, port, protocol)
        assert found is expected, f"{source.name} -> {target.name}:{port}/{protocol}"
        tried += 1
    assert tried == len(everybody) * (len(everybody) - 1) * len(PORTS) * 2


def test_services_select_the_peers_of_one_experiment_only(files: LabFiles, policies: list[Manifest]) -> None:
    templates = load_templates(REPOSITORY, "templates/experiment")
    peers = [pod for one in files.experiments for pod in peers_of(one, policies)]
    for one in files.experiments:
        (service,) = (m for m in render_experiment(templates, one, files.lab) if m["kind"] == "Service")
        found = {
            pod.labels["experiment"]
            for pod in peers
            if pod.namespace == service["metadata"]["namespace"]
            and service["spec"]["selector"].items() <= pod.labels.items()
        }
        assert found == {one.name}
