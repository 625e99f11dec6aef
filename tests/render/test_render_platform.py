"""The platform: its rendered manifests, and syncs of platform and experiments in one namespace."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from nimlab.cli import main
from nimlab.files.load import load_lab
from nimlab.files.spec import LabFiles
from nimlab.objects.applyset import COMPONENT, PLATFORM, ApplySet, stamp
from nimlab.objects.manifest import Manifest
from nimlab.render.guard.platform_guard import check_platform
from nimlab.render.render_platform import COMPONENTS, load_platform_templates, render_platform
from nimlab.yaml_and_json import to_yaml
from tests.support.golden import assert_golden, cases, overlay_of
from tests.support.lab import Lab, make_lab
from tests.support.paths import SAMPLE_LAB

GO = "apiVersion: nimlab.dev/v1\nkind: Experiment\nmetadata: {name: green}\n"
GO += "spec: {contract: dst-go, peers: 3}\n"
FILES = load_lab(SAMPLE_LAB, {"experiments/green.yaml": GO})
SET = ApplySet(name=PLATFORM, namespace=FILES.lab.namespace)
NAMESPACES = {"dst-lab", "nimp2p-exp-green"}


def rendered(files: LabFiles) -> tuple[Manifest, ...]:
    """Return the platform's manifests, stamped and guarded."""
    apply_set = ApplySet(name=PLATFORM, namespace=files.lab.namespace)
    plain = render_platform(load_platform_templates(SAMPLE_LAB), files)
    stamped = tuple(stamp(manifest, apply_set) for manifest in plain)
    namespaces = {experiment.namespace for experiment in files.experiments} | {files.lab.namespace}
    check_platform(stamped, files.lab, namespaces, apply_set)
    return stamped


GOOD = rendered(FILES)


def of(manifests: list[Manifest], kind: str, name: str) -> Any:
    """Return the object with this kind and name."""
    return next(m for m in manifests if (m["kind"], m["metadata"]["name"]) == (kind, name))


def config(name: str, key: str, files: LabFiles = FILES) -> Any:
    """Return the configuration of a program, parsed."""
    return yaml.safe_load(of(list(rendered(files)), "ConfigMap", name)["data"][key])


@pytest.mark.parametrize("case", cases("platform"), ids=lambda case: case.name)
def test_golden_manifests(case: Path, update_golden: bool) -> None:
    files = load_lab(SAMPLE_LAB, overlay_of(case))
    assert files.problems == ()
    manifests = rendered(files)
    dashboards = "lab-grafana-dashboards"  # a large ConfigMap, which the dashboard tests check
    text = to_yaml(m for m in manifests if m["metadata"]["name"] != dashboards)
    assert_golden(case / "expected.yaml", text, update=update_golden)
    assert manifests == rendered(load_lab(SAMPLE_LAB, overlay_of(case)))


def test_peers_are_scraped_exactly_in_the_namespaces_with_peers() -> None:
    jobs = {
        job["job_name"]: job for job in config("lab-prometheus-config", "prometheus.yaml")["scrape_configs"]
    }
    for name in ("nimp2p", "rtt"):
        (discovery,) = jobs[name]["kubernetes_sd_configs"]
        assert set(discovery["namespaces"]["names"]) == NAMESPACES
    for name in ("node-exporter", "cadvisor"):
        (discovery,) = jobs[name]["kubernetes_sd_configs"]
        assert discovery["namespaces"]["names"] == ["dst-lab"]
    bound = {m["metadata"]["namespace"] for m in GOOD if m["kind"] == "RoleBinding"}
    assert bound == NAMESPACES


RELOADED = {  # workload and ConfigMap -> the option that reloads the ConfigMap without a restart
    ("lab-prometheus", "lab-prometheus-config"): "--config.auto-reload",
    ("lab-grafana", "lab-grafana-dashboards"): "updateIntervalSeconds",
}


def test_a_changed_config_restarts_a_program_that_does_not_reload_it() -> None:
    configs = {m["metadata"]["name"]: m["data"] for m in GOOD if m["kind"] == "ConfigMap"}
    unread = set(configs)
    for workload in (m for m in GOOD if m["kind"] in ("Deployment", "DaemonSet")):
        template = workload["spec"]["template"]
        (container,) = template["spec"]["containers"]
        assert not any("subPath" in mount for mount in container["volumeMounts"]), (
            "a subPath mount is never updated"
        )
        for volume in (v["configMap"] for v in template["spec"]["volumes"] if "configMap" in v):
            name = volume["name"]
            unread.discard(name)
            if option := RELOADED.get((workload["metadata"]["name"], name)):
                assert option in json.dumps([container.get("args"), configs.get("lab-grafana-config")])
                continue
            keys = [item["key"] for item in volume["items"]] if "items" in volume else list(configs[name])
            checksums = set(template["metadata"]["annotations"].values())
            assert {hashlib.sha256(configs[name][key].encode()).hexdigest() for key in keys} <= checksums
    assert not unread


def test_an_experiment_must_not_be_named_platform() -> None:
    text = GO.replace("name: green", "name: platform").replace("dst-go", "nimp2p, connectTo: 1")
    (problem,) = load_lab(SAMPLE_LAB, {"experiments/platform.yaml": text}).problems
    assert (problem.code, problem.location.line) == ("bad-name", 3)


def test_an_experiment_must_not_have_the_label_of_a_component(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_lab(tmp_path / "lab", "dst-lab")
    path = root / "templates" / "experiment" / "configmap.yaml.j2"
    text = path.read_text(encoding="utf-8")
    path.write_text(
        text.replace(
            "  labels: {{ labels | json }}",
            f"  labels: {{{COMPONENT}: loki, experiment: {{{{ name | json }}}}}}",
        ),
        encoding="utf-8",
    )
    assert main(["render", "--lab", str(root)]) == 1
    assert f"metadata.labels[{COMPONENT}] is reserved" in capsys.readouterr().err


@pytest.mark.live
def test_sync_applies_and_corrects_the_platform_and_waits_for_it(lab: Lab) -> None:
    answer = lab.run("sync", "platform", "--timeout", "90s")
    assert answer.code == 0, answer.out + answer.err
    assert "pods running" in answer.out
    assert lab.names("Deployment") == ["lab-grafana", "lab-loki", "lab-prometheus"]
    assert lab.names("DaemonSet") == ["lab-cadvisor", "lab-log-agent", "lab-node-exporter"]
    assert lab.names("StatefulSet") == []
    again = lab.run("sync", "platform", "--dry-run", "--exit-code", "--output", "json")
    assert again.code == 0, again.out + again.err
    plan = json.loads(again.out)
    assert plan["applySet"] == "platform"
    assert {o["action"] for o in plan["objects"]} == {"keep"}
    assert not any(o["foreign"] for o in plan["objects"])
    drifted = lab.kubectl("scale", "deployment", "lab-loki", "--replicas", "2")
    assert drifted
    assert lab.run("sync", "platform", "--dry-run", "--exit-code").code == 3
    assert lab.run("sync", "platform", "--timeout", "90s").code == 0
    live = lab.get("Deployment", "lab-loki")
    assert live is not None
    assert live["spec"]["replicas"] == 1
    shown = lab.run("status", "platform")
    assert shown.code == 0, shown.out + shown.err
    assert re.search(r"^loki +lab-loki +1 +1 .* in sync +ok$", shown.out, re.MULTILINE)
    assert re.search(r"^  POD +STATE", shown.out, re.MULTILINE)
    components = json.loads(lab.run("status", "platform", "--output", "json").out)["components"]
    assert {component["experiment"] for component in components} == set(COMPONENTS)


@pytest.mark.live
def test_experiments_and_platform_do_not_affect_each_other(lab: Lab) -> None:
    assert lab.run("sync", "--no-wait").code == 0
    assert lab.run("sync", "platform", "--no-wait").code == 0
    for name in ("blue", "purple"):
        (lab.root / "experiments" / f"{name}.yaml").unlink()
    answer = lab.run("sync", "--allow-empty", "--max-prune", "100")
    assert answer.code == 0, answer.out + answer.err
    assert lab.names("StatefulSet") == []
    assert len(lab.names("Deployment")) == 3
    assert lab.run("sync", "platform", "--dry-run", "--exit-code").code == 0
    refused = lab.run("sync", "platform", "purple")
    assert refused.code == 1
    assert "alone" in refused.err


@pytest.mark.live
def test_a_component_that_lab_yaml_no_longer_requires_is_pruned(lab: Lab) -> None:
    assert lab.run("sync", "platform", "--no-wait").code == 0
    path = lab.root / "lab.yaml"
    path.write_text(
        path.read_text(encoding="utf-8").replace("cadvisor: daemonset", "cadvisor: kubelet"), encoding="utf-8"
    )
    answer = lab.run("sync", "platform", "--no-wait")
    assert answer.code == 0, answer.out + answer.err
    assert "pruned DaemonSet" in answer.out + answer.err
    assert "lab-cadvisor" not in lab.names("DaemonSet")
    assert lab.run("sync", "platform", "--dry-run", "--exit-code").code == 0
    lab.kubectl("delete", "clusterrole,clusterrolebinding", f"lab-prometheus-{lab.namespace}")


@pytest.mark.live
def test_the_password_of_grafana_is_created_once_and_never_printed(lab: Lab) -> None:
    answer = lab.run("sync", "platform", "--no-wait")
    assert answer.code == 0, answer.out + answer.err
    secret = lab.get("Secret", "lab-grafana-admin")
    assert secret is not None
    output = answer.out + answer.err
    assert "lab-grafana-admin" in output
    assert secret["data"]["password"] not in output
    assert len(base64.b64decode(secret["data"]["password"])) >= 32
    lab.kubectl("delete", "service", "lab-loki")
    assert lab.run("sync", "platform", "--no-wait").code == 0
    assert lab.get("Secret", "lab-grafana-admin") == secret


@pytest.mark.live
def test_an_error_in_any_file_prevents_a_sync_of_the_platform(lab: Lab) -> None:
    lab.edit("purple", "peers: 5", "peers: many")
    answer = lab.run("sync", "platform", "--no-wait")
    assert answer.code == 1
    assert "purple.yaml:7" in answer.err
    assert lab.get("Deployment", "lab-prometheus") is None
