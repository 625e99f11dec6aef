"""The defects of the lab that this one succeeds, each held off by a test; numbered as they were found there.

Here are those that show in what is rendered. How commands behave (6: half-made experiments, deletions that
aren't awaited, errors taken for nothing there) is tested on a real server in test_sync and test_kube.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from nimlab.edit import NewExperiment, experiment_text, set_peers
from nimlab.load import load_lab
from nimlab.manifest import Manifest
from nimlab.render import load_templates, render_experiment
from nimlab.workload import resources_of
from tests.live import REPOSITORY

PURPLE = (REPOSITORY / "experiments" / "purple.yaml").read_text(encoding="utf-8")


def rendered(text: str = PURPLE) -> dict[str, Manifest]:
    """What purple is rendered to, by kind."""
    files = load_lab(REPOSITORY, {"experiments/purple.yaml": text})
    assert not files.problems
    one = next(e for e in files.experiments if e.name == "purple")
    templates = load_templates(REPOSITORY, "templates/experiment")
    return {m["kind"]: m for m in render_experiment(templates, one, files.lab)}


def pod_of(objects: dict[str, Manifest]) -> dict[str, Any]:
    """The pods' spec."""
    pod: dict[str, Any] = objects["StatefulSet"]["spec"]["template"]["spec"]
    return pod


def test_defect_1_a_peer_probes_others_and_not_itself() -> None:
    exporter = next(c for c in pod_of(rendered())["initContainers"] if c["name"] == "rtt")
    env = {e["name"]: e for e in exporter["env"]}
    assert env["SERVICE"]["value"] == rendered()["Service"]["metadata"]["name"]
    assert env["POD_NAME"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"  # to leave itself out


@pytest.mark.parametrize("peers", [1, 7, 500])
def test_defect_5_peers_are_told_how_many_they_are_after_scaling(peers: int) -> None:
    text = set_peers(PURPLE.replace("connectTo: 2", "connectTo: 1"), peers)
    objects = rendered(text)
    (node,) = pod_of(objects)["containers"]
    assert objects["StatefulSet"]["spec"]["replicas"] == peers
    assert {"name": "PEERS", "value": str(peers)} in node["env"]


def test_defect_7_peers_find_each_other_before_they_are_ready() -> None:
    assert rendered()["Service"]["spec"]["publishNotReadyAddresses"] is True


def test_defect_8_a_link_of_16_is_16_megabits_everywhere() -> None:
    text = experiment_text(
        NewExperiment(
            name="purple",
            peers=2,
            connections=1,
            msg_size=1,
            msg_rate=1,
            cpu=1,
            ram=1,
            downlink_bw=16,
            uplink_bw=16,
            owner="",
            description="",
        )
    )
    assert "16Mbit" in text
    shaper = pod_of(rendered(text))["initContainers"][0]
    assert shaper["args"] == ["--downlink-bit-per-s=16000000", "--uplink-bit-per-s=16000000"]


def test_defect_9_what_stands_beside_a_peer_is_counted() -> None:
    objects = rendered()
    alone = rendered(PURPLE.replace("enabled: true", "enabled: false"))
    both, node = resources_of(objects["StatefulSet"]), resources_of(alone["StatefulSet"])
    assert both.pods == node.pods == 5
    assert both.cpu_m - node.cpu_m == 5 * 10
    assert both.memory_bytes > node.memory_bytes


def test_defect_10_every_image_is_pinned() -> None:
    text = (REPOSITORY / "lab.yaml").read_text(encoding="utf-8")
    contracts = [p.read_text(encoding="utf-8") for p in (REPOSITORY / "contracts").glob("*.yaml")]
    references = re.findall(r"^\s+\w+: ([^/\s]\S*/\S+)$", "\n".join([text, *contracts]), re.MULTILINE)
    assert len(references) == 10
    for reference in references:
        assert re.search(r":v?\d+\.\d+", reference), reference
    pod = pod_of(rendered())
    for container in pod["initContainers"] + pod["containers"]:
        assert re.search(r":v?\d+\.\d+", container["image"]), container["image"]
