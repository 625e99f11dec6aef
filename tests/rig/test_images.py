"""The monitoring images run under the names that lab.yaml pins, as the users of the official images."""

from __future__ import annotations

import json

import pytest

from nimlab.files.load import load_lab
from nimlab.files.spec import Image
from tests.rig.running_rig import Rig, eventually
from tests.support.paths import SAMPLE_LAB

IMAGES = load_lab(SAMPLE_LAB).lab.images
USERS = {"prometheus": 65534, "node_exporter": 65534}


@pytest.mark.parametrize("name", ["prometheus", "node_exporter"])
def test_the_running_program_has_the_pinned_version(rig: Rig, name: str) -> None:
    image: Image = getattr(IMAGES, name)
    pod = f"version-{name.replace('_', '-')}"
    limits = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    if name in USERS:
        limits |= {"runAsNonRoot": True, "runAsUser": USERS[name]}
    container = {
        "name": name.replace("_", "-"),
        "image": str(image),
        "imagePullPolicy": "Never",
        "args": ["--version"],
        "securityContext": limits,
    }
    spec = {"restartPolicy": "Never", "containers": [container]}
    rig.node.post(
        "/api/v1/namespaces/default/pods",
        {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": pod}, "spec": spec},
    )

    def ended() -> str | None:
        status = json.loads(rig.kubectl("-n", "default", "get", "pod", pod, "-o", "json"))["status"]
        return str(status["phase"]) if status["phase"] in ("Succeeded", "Failed") else None

    assert eventually(ended, within_s=60, what=f"{image} prints its version") == "Succeeded"
    log = rig.kubectl("-n", "default", "logs", pod)
    assert f"version {image.tag.removeprefix('v')}" in log
