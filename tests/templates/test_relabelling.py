"""Relabelling rules for cAdvisor's series, tested with the labels of cAdvisor's daemon and of the kubelet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
import yaml

from nimlab.files.load import load_lab
from nimlab.files.spec import Lab, LabFiles
from nimlab.objects.manifest import Manifest
from nimlab.render.render_platform import load_platform_templates, render_platform
from tests.support.paths import SAMPLE_LAB
from tests.support.relabelling import relabelled, stored

GREEN = """apiVersion: nimlab.dev/v1
kind: Experiment
metadata: {name: green}
spec: {contract: dst-go, peers: 3}
"""
FILES = load_lab(SAMPLE_LAB, {"experiments/green.yaml": GREEN})  # in its own namespace, unlike purple
TEMPLATES = load_platform_templates(SAMPLE_LAB)
SOURCES = ("daemonset", "kubelet")
CPU = "container_cpu_usage_seconds_total"
SENT = "container_network_transmit_bytes_total"
DEVICES = ["lo", "ifb0", "tunl0", "cni0", "flannel.1", "veth1a2b3c4d", "eth1", "docker0"]


def manifests_of(source: str, change: Callable[[Lab], Lab]) -> tuple[Manifest, ...]:
    """Return the platform's manifests, with this source of container metrics and these changes of the lab."""
    lab = replace(FILES.lab, platform=replace(FILES.lab.platform, cadvisor=source))
    files: LabFiles = replace(FILES, lab=change(lab))
    return render_platform(TEMPLATES, files)


def config_of(manifests: tuple[Manifest, ...], name: str) -> list[dict[str, Any]]:
    """Return the scrape jobs of Prometheus or Promtail."""
    text = next(m["data"][name] for m in manifests if m["kind"] == "ConfigMap" and name in m["data"])
    jobs: list[dict[str, Any]] = yaml.safe_load(text)["scrape_configs"]
    return jobs


def kept(
    source: str,
    name: str,
    labels: Mapping[str, str],
    change: Callable[[Lab], Lab] = lambda lab: lab,
) -> dict[str, str] | None:
    """Return the stored labels of a series of cAdvisor, without its name."""
    jobs = config_of(manifests_of(source, change), "prometheus.yaml")
    (rules,) = [job["metric_relabel_configs"] for job in jobs if job["job_name"] == "cadvisor"]
    series = {
        "__name__": name,
        "id": "/kubepods/a",
        "name": "3f2a",
        "image": "i",
        **exposed_labels(source, labels),
    }
    stored_labels = stored(series, rules)
    if stored_labels is None:
        return None
    assert stored_labels.pop("__name__") == name
    return stored_labels


def exposed_labels(source: str, labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels of a series with the names that this source (cAdvisor or the kubelet) uses."""
    if source == "kubelet":
        return dict(labels)
    label_names = {"namespace": "pod_namespace", "pod": "pod_name", "container": "container_name"}
    return {
        f"container_label_io_kubernetes_{label_names[name]}" if name in label_names else name: value
        for name, value in labels.items()
    }


def of_pod(namespace: str, pod: str, **labels: str) -> dict[str, str]:
    """Return the labels of a pod's series."""
    return {"namespace": namespace, "pod": pod, **labels}


def on_host_network(manifests: tuple[Manifest, ...]) -> Iterator[str]:
    """Yield the names of pods that use the network of their node."""
    for manifest in manifests:
        is_workload = manifest["kind"] in ("DaemonSet", "Deployment")
        if is_workload and manifest["spec"]["template"]["spec"].get("hostNetwork"):
            yield f"{manifest['metadata']['name']}-x7k2p"


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("namespace", "pod", "experiment"),
    [
        ("dst-lab", "nimp2p-exp-purple-0", "purple"),
        ("nimp2p-exp-green", "pod-0", "green"),
        ("dst-lab", "lab-loki-7d9f-x7k2p", None),
    ],
)
def test_series_of_pods_are_kept_with_the_same_labels(
    source: str, namespace: str, pod: str, experiment: str | None
) -> None:
    whose = {} if experiment is None else {"experiment": experiment}
    for name, labels in ((CPU, {"container": "c"}), (SENT, {"interface": "eth0"})):
        stored_labels = kept(source, name, of_pod(namespace, pod, **labels))
        assert stored_labels is not None
        stored_labels.pop("name", None)  # only the kubelet's series have this label; no query uses it
        assert stored_labels == {
            **of_pod(namespace, pod, **labels),
            **whose,
            "id": "/kubepods/a",
            "image": "i",
        }


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("pod", "experiment"),
    [
        ("nimp2p-exp-purple-relay-12", "purple"),
        ("nimp2p-exp-purple-0", "purple"),
        ("nimp2p-exp-blue-relay-0", "blue-relay"),
        ("nimp2p-exp-purple-other-0", "purple-other"),
    ],
)
def test_label_of_the_experiment_does_not_contain_the_role(
    source: str, pod: str, experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiments = tuple(
        replace(one, roles=(replace(one.groups[0], role="relay"),)) if one.name == "purple" else one
        for one in FILES.experiments
    )
    monkeypatch.setattr("tests.templates.test_relabelling.FILES", replace(FILES, experiments=experiments))
    stored_labels = kept(source, CPU, of_pod("dst-lab", pod, container="c"))
    assert stored_labels is not None
    assert stored_labels["experiment"] == experiment


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("device", DEVICES)
def test_only_the_interface_of_the_pod_is_counted(source: str, device: str) -> None:
    assert kept(source, SENT, of_pod("dst-lab", "nimp2p-exp-purple-0", interface=device)) is None


@pytest.mark.parametrize("source", SOURCES)
def test_network_of_a_node_is_not_counted_for_pods(source: str) -> None:
    stored_labels = list(on_host_network(manifests_of(source, lambda lab: lab)))
    assert stored_labels == ["lab-node-exporter-x7k2p"]
    for pod in stored_labels:
        for device in ("eth0", *DEVICES):
            assert kept(source, SENT, of_pod("dst-lab", pod, interface=device)) is None
        assert kept(source, CPU, of_pod("dst-lab", pod, container="node-exporter")) is not None


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("namespace", ["nimp2p-exp-foreign", "nimp2p-exp-green2", "kube-system", "dst-lab2"])
def test_series_of_foreign_namespaces_are_dropped(source: str, namespace: str) -> None:
    for name, labels in ((CPU, {"container": "c"}), (SENT, {"interface": "eth0"})):
        assert kept(source, name, of_pod(namespace, "nimp2p-exp-purple-0", **labels)) is None
    assert kept(source, CPU, {"id": "/system.slice"}) is None


@pytest.mark.parametrize("source", SOURCES)
def test_series_that_repeat_the_containers_of_a_pod_are_dropped(source: str) -> None:
    assert kept(source, CPU, of_pod("dst-lab", "nimp2p-exp-purple-0")) is None


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", ["machine_cpu_cores", "machine_memory_bytes", "cadvisor_version_info"])
def test_series_of_the_machine_are_kept(source: str, name: str) -> None:
    assert kept(source, name, {}) is not None


def dotted(lab: Lab) -> Lab:
    """Return the lab with names that would match other names if they were used as regular expressions."""
    return replace(lab, prefix="n.p-", namespace="d.t")


@pytest.mark.parametrize("source", SOURCES)
def test_names_are_not_used_as_regular_expressions(source: str) -> None:
    stored_labels = kept(source, CPU, of_pod("d.t", "n.p-purple-0", container="c"), dotted)
    assert stored_labels is not None
    assert stored_labels["experiment"] == "purple"
    assert kept(source, CPU, of_pod("dot", "n.p-purple-0", container="c"), dotted) is None
    other = kept(source, CPU, of_pod("d.t", "nip-purple-0", container="c"), dotted)
    assert other is not None
    assert "experiment" not in other
    own = kept(source, SENT, of_pod("d.t", "lab-node-exporter-x7k2p", interface="eth0"), dotted)
    assert own is None


@pytest.mark.parametrize(("file", "job"), [("prometheus.yaml", "nimp2p"), ("promtail.yaml", "nimp2p-pods")])
def test_prefix_is_not_used_as_a_regular_expression(file: str, job: str) -> None:
    jobs = config_of(manifests_of("daemonset", dotted), file)
    (rules,) = [one["relabel_configs"] for one in jobs if one["job_name"] == job]
    target = {"__meta_kubernetes_pod_container_port_name": "metrics", "__meta_kubernetes_pod_name": "a"}
    for prefix, is_read in (("n.p-purple", True), ("nip-purple", False)):
        stored_labels = relabelled({**target, "__meta_kubernetes_pod_label_prefix": prefix}, rules)
        assert (stored_labels is not None) is is_read


@pytest.mark.parametrize("source", SOURCES)
def test_lab_namespace_with_the_prefix_is_not_an_experiment(source: str) -> None:
    def inside(lab: Lab) -> Lab:
        return replace(lab, namespace="nimp2p-exp-lab")

    stored_labels = kept(
        source, CPU, of_pod("nimp2p-exp-lab", "lab-loki-7d9f-x7k2p", container="loki"), inside
    )
    assert stored_labels is not None
    assert "experiment" not in stored_labels
