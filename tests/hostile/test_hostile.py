"""Hostile files and templates: nimlab rejects each at its position, in limited time and memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nimlab.cli import main
from nimlab.workflow.desired_lab import read_desired_lab
from nimlab.yaml_and_json import to_yaml_safe_json
from tests.hostile.changed import BASES, CHANGES
from tests.hostile.files import CODE_LIKE, HEAD, REFUSED
from tests.hostile.run import TEMPLATE, cases, lay_out
from tests.hostile.templates import TEMPLATES
from tests.support.api_proxy import run_proxy
from tests.support.lab import Sandbox
from tests.support.paths import REPOSITORY

CPU_LIMIT_S = 2.0
MEMORY_LIMIT_MB = 200


@pytest.mark.process
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("kind", ["files", "templates"])
def test_hostile_input_is_rejected_at_its_position_in_limited_time_and_memory(
    kind: str, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "tests.hostile.run", kind, str(tmp_path / "lab")],
        cwd=REPOSITORY,
        check=False,
        capture_output=True,
        text=True,
        timeout=900,
    )
    lines = [json.loads(line) for line in process.stdout.splitlines()]
    assert process.returncode == 0, f"{lines[-1] if lines else ''}: {process.stderr[-2000:]}"
    results = [line for line in lines if "name" in line]
    assert [line["name"] for line in results] == list(cases(kind))
    if kind == "files":
        expected = {case.name: case.message for case in REFUSED}
    else:
        expected = {name: change[3] for name, change in CHANGES.items()}
    wrong = {
        line["name"]: fault for line in results if (fault := fault_of(line, expected.get(line["name"], "")))
    }
    assert wrong == {}
    slowest, largest = max(r["cpu_s"] for r in results), max(r["rss_mb"] for r in results)
    figure(
        f"hostile {kind}: {len(results)} rejected with their places, "
        f"the slowest in {slowest:.1f} s, at most {largest:.0f} MB"
    )


def fault_of(result: dict[str, Any], expected: str) -> str | None:
    """Return what is wrong with the result of a case; None if the result is as expected."""
    if "crash" in result:
        return str(result["crash"])
    if not result["reported"]:
        return "accepted"
    if any(not where for _, where, _ in result["reported"]):
        return f"no place: {result['reported']}"
    if not any(expected in what for _, _, what in result["reported"]):
        return f"rejected for another reason: {result['reported'][:3]}"
    if result["name"] in CHANGES and any("\n" in what for _, _, what in result["reported"]):
        return f"rejected for more than one reason: {result['reported'][:3]}"
    if result["cpu_s"] > CPU_LIMIT_S:
        return f"{result['cpu_s']:.1f} s"
    if result["rss_mb"] > MEMORY_LIMIT_MB:
        return f"{result['rss_mb']:.0f} MB"
    return None


def test_number_of_cases_is_large_and_their_names_are_unique() -> None:
    assert len(REFUSED) + len(TEMPLATES) + len(CHANGES) >= 200
    assert len({case.name for case in REFUSED}) == len(REFUSED)
    assert not CHANGES.keys() & TEMPLATES.keys()


@pytest.mark.parametrize("base", BASES)
def test_the_base_of_each_hostile_template_is_valid(base: str, tmp_path: Path) -> None:
    lay_out(tmp_path / "lab")
    shipped = read_desired_lab(tmp_path / "lab", None)
    (tmp_path / "lab" / TEMPLATE).write_text(BASES[base], encoding="utf-8")
    desired_lab = read_desired_lab(tmp_path / "lab", None)
    assert desired_lab.errors == ()
    assert [len(group.manifests) for group in desired_lab.desired] == [
        len(group.manifests) + 1 for group in shipped.desired
    ]


@pytest.mark.parametrize("text", CODE_LIKE, ids=lambda text: repr(text)[:30])
def test_text_that_looks_like_code_is_rendered_unchanged(text: str, tmp_path: Path) -> None:
    def rendered(description: str) -> Any:
        lay_out(tmp_path / "lab")
        metadata = to_yaml_safe_json({"name": "green", "owner": description, "description": description})
        path = tmp_path / "lab" / "experiments" / "green.yaml"
        path.write_text(f"{HEAD}metadata: {metadata}\nspec: {{contract: nimp2p}}\n", encoding="utf-8")
        desired_lab = read_desired_lab(tmp_path / "lab", frozenset({"green"}))
        assert desired_lab.errors == ()
        (green,) = desired_lab.desired
        return green.manifests

    def shape(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shape(item) for key, item in value.items()}
        return [shape(item) for item in value] if isinstance(value, list | tuple) else type(value)

    manifests = rendered(text)
    (config,) = [m for m in manifests if m["kind"] == "ConfigMap"]
    document = json.loads(config["data"]["experiment.json"])
    assert document["metadata"]["description"] == document["metadata"]["owner"] == text
    assert shape(manifests) == shape(rendered("harmless"))


@pytest.mark.live
@pytest.mark.parametrize("name", ["syntax: alias bomb", "name: path", "lab: namespace with a newline"])
def test_hostile_file_is_never_sent_to_the_server(name: str, tmp_path: Path, sandbox: Sandbox) -> None:
    """The test allows only GET requests, and no request for the hostile experiment."""
    lay_out(tmp_path / "lab")
    cases("files")[name](tmp_path / "lab")
    with run_proxy(sandbox.kubeconfig, tmp_path) as proxy:
        flags = ["--lab", str(tmp_path / "lab"), "--kubeconfig", str(proxy.kubeconfig)]
        assert main(["sync", "green", *flags]) == 1
    assert {request.method for request in proxy.seen} <= {"GET"}
    assert not any("green" in request.path for request in proxy.seen)
