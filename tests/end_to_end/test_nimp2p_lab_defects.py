"""Defects of nimp2p-lab, the predecessor of nimlab, that must not return. Its defect report numbers them.

The tests read the rendered files by the rules of Prometheus and the other programs. The rig tests the same
with real pods.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from nimlab.files.edit_experiment_file import NewExperiment, experiment_text, set_peers
from nimlab.files.load import load_lab
from nimlab.objects.manifest import Manifest
from nimlab.plan.resource_requests import resources_of
from nimlab.render import load_templates, render_experiment
from nimlab.render.render_platform import load_platform_templates, render_dashboards, render_platform
from nimlab.units import parse_quantity
from tests.access.test_pipeline_roles import account_kubeconfig
from tests.support.dashboard_linter import queries
from tests.support.lab import Lab
from tests.support.paths import SAMPLE_LAB
from tests.support.relabelling import relabelled, targets_of

PURPLE = (SAMPLE_LAB / "experiments" / "purple.yaml").read_text(encoding="utf-8")


def rendered(text: str = PURPLE) -> dict[str, Manifest]:
    """Return the rendered objects of the experiment purple, by kind."""
    files = load_lab(SAMPLE_LAB, {"experiments/purple.yaml": text})
    assert not files.problems
    purple = next(e for e in files.experiments if e.name == "purple")
    templates = load_templates(SAMPLE_LAB, "templates/experiment")
    return {m["kind"]: m for m in render_experiment(templates, purple, files.lab)}


def pod_of(objects: dict[str, Manifest]) -> dict[str, Any]:
    """Return the pod spec in the rendered StatefulSet."""
    pod: dict[str, Any] = objects["StatefulSet"]["spec"]["template"]["spec"]
    return pod


def config(name: str, key: str, text: str = PURPLE, **settings: str) -> dict[str, Any]:
    """Return a configuration file of the platform, rendered with these settings in lab.yaml."""
    lab = (SAMPLE_LAB / "lab.yaml").read_text(encoding="utf-8")
    for old, new in settings.items():
        lab = re.sub(rf"{old}: \w+", f"{old}: {new}", lab)
    files = load_lab(SAMPLE_LAB, {"experiments/purple.yaml": text, "lab.yaml": lab})
    assert not files.problems
    manifests = render_platform(load_platform_templates(SAMPLE_LAB), files)
    (config_map,) = [m for m in manifests if (m["kind"], m["metadata"]["name"]) == ("ConfigMap", name)]
    data: dict[str, Any] = yaml.safe_load(config_map["data"][key])
    return data


def scraped(job: str, text: str = PURPLE) -> list[dict[str, str]]:
    """Return the targets of a Prometheus job in purple's first peer."""
    jobs = config("lab-prometheus-config", "prometheus.yaml", text)["scrape_configs"]
    (rules,) = [entry["relabel_configs"] for entry in jobs if entry["job_name"] == job]
    targets = [(target, relabelled(target, rules)) for target in targets_of(rendered(text)["StatefulSet"])]
    return [{"address": target["__address__"], **labels} for target, labels in targets if labels is not None]


PEER = {
    "experiment": "purple",
    "instance": "dst-lab/nimp2p-exp-purple-0",
    "namespace": "dst-lab",
    "node": "node-1",
    "pod": "nimp2p-exp-purple-0",
}


def test_defect_1_prometheus_scrapes_each_rtt_exporter_once() -> None:
    assert scraped("rtt") == [{"address": "192.0.2.7:9105", **PEER}]
    assert scraped("rtt", PURPLE.replace("enabled: true", "enabled: false")) == []


def test_defect_1_an_exporter_can_exclude_its_own_pod() -> None:
    exporter = next(c for c in pod_of(rendered())["initContainers"] if c["name"] == "rtt")
    env = {e["name"]: e for e in exporter["env"]}
    assert env["SERVICE"]["value"] == rendered()["Service"]["metadata"]["name"]
    # The exporter needs the name of its own pod, because it must not probe itself.
    assert env["POD_NAME"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"


def test_defect_2_prometheus_scrapes_the_metrics_of_the_node_program() -> None:
    assert scraped("nimp2p") == [{"address": "192.0.2.7:8008", **PEER}]


def test_defect_3_the_log_agent_selects_pods_by_a_label_that_they_have() -> None:
    (job,) = config("lab-promtail-config", "promtail.yaml")["scrape_configs"]
    workload = rendered()["StatefulSet"]
    rules = job["relabel_configs"]
    streams = [labels for target in targets_of(workload) if (labels := relabelled(target, rules))]
    assert {labels["container"] for labels in streams} == {"shape", "rtt", "nimp2p"}
    assert {labels["experiment"] for labels in streams} == {"purple"}
    workload["spec"]["template"]["metadata"]["labels"]["prefix"] = "foreign"
    assert not [target for target in targets_of(workload) if relabelled(target, rules)]


def test_defect_4_dashboards_count_sent_messages_by_the_text_that_the_node_logs() -> None:
    files = load_lab(SAMPLE_LAB, {})
    words = files.contracts["nimp2p"].logs["sent"]
    assert words == "Sending message at: "
    boards = render_dashboards(load_platform_templates(SAMPLE_LAB), files)
    counts = [
        query.expression
        for query in queries(boards, experiment="purple", peer=".+", node=".+")
        if (query.dashboard, query.panel)
        in {("lab-experiment", "Sent according to the logs"), ("lab-logs", "Messages sent")}
    ]
    assert len(counts) == 2
    assert all(f'|= "{words}"' in expression for expression in counts)


@pytest.mark.parametrize("peers", [1, 7, 500])
def test_defect_5_variable_peers_has_the_new_number_after_scaling(peers: int) -> None:
    text = set_peers(PURPLE.replace("connectTo: 2", "connectTo: 1"), peers)
    objects = rendered(text)
    (node,) = pod_of(objects)["containers"]
    assert objects["StatefulSet"]["spec"]["replicas"] == peers
    assert {"name": "PEERS", "value": str(peers)} in node["env"]


@pytest.mark.live
def test_defect_6_sync_completes_a_partial_experiment_and_awaits_its_deletion(lab: Lab) -> None:
    assert lab.run("sync", "--no-wait").code == 0
    lab.kubectl("delete", "statefulset", "nimp2p-exp-purple")  # simulates a crash of the first sync
    assert lab.run("sync").code == 0
    assert lab.names("StatefulSet") == ["nimp2p-exp-blue", "nimp2p-exp-purple"]
    assert lab.run("delete", "purple", "--force", "--sync").code == 0
    assert lab.names("StatefulSet") == ["nimp2p-exp-blue"]
    assert not [name for name in lab.names("Pod") if "purple" in name]


@pytest.mark.live
def test_defect_6_a_forbidden_read_is_an_error_and_not_an_empty_result(lab: Lab, tmp_path: Path) -> None:
    assert lab.run("sync", "--no-wait").code == 0
    kubeconfig = account_kubeconfig(lab, tmp_path, "nimlab-plan")
    lab.kubectl("delete", "rolebinding", "nimlab-plan")
    blind = replace(lab, kubeconfig=kubeconfig)
    for command in (("list",), ("status", "purple")):
        answer = blind.run(*command)
        assert answer.code == 1
        assert "forbidden" in answer.err, answer.err
        assert answer.out == ""


def test_defect_7_dns_lists_peers_before_they_are_ready() -> None:
    assert rendered()["Service"]["spec"]["publishNotReadyAddresses"] is True


def test_defect_8_a_bandwidth_of_16_means_16_megabits_everywhere() -> None:
    text = experiment_text(
        NewExperiment(
            name="purple",
            peers=2,
            connections=1,
            msg_size=1,
            msg_rate=1,
            cpu=1,
            ram=16,
            downlink_bw=16,
            uplink_bw=16,
            owner="",
            description="",
        )
    )
    assert "16Mbit" in text
    shaper = pod_of(rendered(text))["initContainers"][0]
    assert shaper["args"] == ["--downlink-bit-per-s=16000000", "--uplink-bit-per-s=16000000"]
    network = "network: {downlink: 16Mbit, uplink: 16Mbit"
    assert network in PURPLE
    annotated = rendered(PURPLE.replace(network, network + ", method: cni"))["StatefulSet"]
    assert annotated["spec"]["template"]["metadata"]["annotations"] == {
        "kubernetes.io/ingress-bandwidth": "16M",
        "kubernetes.io/egress-bandwidth": "16M",
    }


def test_defect_9_resources_include_the_sidecars() -> None:
    objects = rendered()
    without_sidecar = rendered(PURPLE.replace("enabled: true", "enabled: false"))
    with_sidecar, node = resources_of(objects["StatefulSet"]), resources_of(without_sidecar["StatefulSet"])
    assert with_sidecar.pods == node.pods == 5
    assert with_sidecar.cpu_m - node.cpu_m == 5 * 10
    assert with_sidecar.memory_bytes > node.memory_bytes


def test_defect_10_every_image_is_pinned() -> None:
    text = (SAMPLE_LAB / "lab.yaml").read_text(encoding="utf-8")
    contracts = [p.read_text(encoding="utf-8") for p in (SAMPLE_LAB / "contracts").glob("*.yaml")]
    references = re.findall(r"^\s+\w+: ([^/\s]\S*/\S+)$", "\n".join([text, *contracts]), re.MULTILINE)
    assert len(references) == 10
    for reference in references:
        assert re.search(r":v?\d+\.\d+", reference), reference
    pod = pod_of(rendered())
    for container in pod["initContainers"] + pod["containers"]:
        assert re.search(r":v?\d+\.\d+", container["image"]), container["image"]


def test_defect_10_no_manifest_contains_a_password() -> None:
    files = load_lab(SAMPLE_LAB, {})
    for manifest in render_platform(load_platform_templates(SAMPLE_LAB), files):
        assert manifest["kind"] != "Secret"
        pod = manifest.get("spec", {}).get("template", {}).get("spec", {})
        environments = [container.get("env", ()) for container in pod.get("containers", ())]
        for variable in (variable for env in environments for variable in env):
            assert "PASSWORD" not in variable["name"] or set(variable["valueFrom"]) == {"secretKeyRef"}


def test_defect_10_the_platform_runs_on_any_node_and_its_services_target_its_ports() -> None:
    manifests = render_platform(load_platform_templates(SAMPLE_LAB), load_lab(SAMPLE_LAB, {}))
    pods = {
        m["metadata"]["name"]: m["spec"]["template"]["spec"]
        for m in manifests
        if m["kind"] in ("Deployment", "DaemonSet")
    }
    for pod in pods.values():
        affinity = pod.get("affinity", {}).get("nodeAffinity", {})
        assert not {"nodeName", "nodeSelector"} & pod.keys()
        assert set(affinity) <= {"preferredDuringSchedulingIgnoredDuringExecution"}
    (prometheus,) = pods["lab-prometheus"]["containers"]
    assert parse_quantity(prometheus["resources"]["limits"]["memory"]) >= 2**30
    for service in (m for m in manifests if m["kind"] == "Service"):
        (container,) = pods[service["metadata"]["name"]]["containers"]
        ports = {port["name"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def test_defect_11_one_setting_selects_the_log_agent_and_its_program_is_maintained() -> None:
    shipped = load_lab(SAMPLE_LAB, {}).lab.platform
    assert shipped.log_agent == "alloy"
    alloy, promtail = (
        config("lab-promtail-config", "promtail.yaml", logAgent=a) for a in ("alloy", "promtail")
    )
    for discovery in promtail["scrape_configs"][0]["kubernetes_sd_configs"]:
        del discovery["selectors"]  # only Promtail lets the server select the pods of its own node
    assert alloy == promtail
