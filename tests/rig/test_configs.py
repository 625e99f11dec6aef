"""The programs accept the configurations that nimlab renders for them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from nimlab.files.load import load_lab
from nimlab.render.render_platform import load_platform_templates, render_platform
from tests.rig.prepared import find_home, read_prepared
from tests.support.paths import SAMPLE_LAB

LAB = (SAMPLE_LAB / "lab.yaml").read_text(encoding="utf-8")
LABS = {
    "shipped": LAB,
    "other": LAB.replace("cadvisor: daemonset", "cadvisor: kubelet"),
}
CHECKS = {
    "prometheus.yaml": ("promtool", ["check", "config", "--syntax-only"]),
}


@pytest.mark.parametrize("lab", LABS)
@pytest.mark.parametrize("name", CHECKS)
def test_the_programs_accept_their_configurations(
    name: str, lab: str, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    folder = find_home()
    assert folder is not None
    files = load_lab(SAMPLE_LAB, {"lab.yaml": LABS[lab]})
    manifests = render_platform(load_platform_templates(SAMPLE_LAB), files)
    text = next(m["data"][name] for m in manifests if m["kind"] == "ConfigMap" and name in m["data"])
    program, arguments = CHECKS[name]
    for content, is_valid in (
        (text, True),
        (text.replace("relabel_configs", "relable").replace("retention", "x"), False),
    ):
        path = tmp_path / name
        path.write_text(content, encoding="utf-8")
        result = subprocess.run(
            [str(read_prepared(folder).programs[program]), *arguments, str(path)],
            capture_output=True,
            text=True,
            check=False,
            env={"HOSTNAME": "node1"},
        )
        assert (result.returncode == 0) is is_valid, result.stdout + result.stderr
    figure(f"rig: {program} accepts {name} of the {lab} lab, and rejects it with a misspelt key")
