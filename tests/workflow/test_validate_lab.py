"""`validate` renders and checks everything, so it finds every error that would block a sync."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from nimlab.cli import main
from tests.support.lab import make_lab

EXPERIMENT = "templates/experiment"
PLATFORM = "templates/platform"
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_lab(tmp_path / "lab", "x")


def validate(root: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Return the problems; a second run, with the cache, must return the same problems."""
    answers = []
    for _ in range(2):
        capsys.readouterr()
        code = main(["validate", "--lab", str(root), "--output", "json"])
        problems: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["problems"]
        assert code == (1 if problems else 0)
        answers.append(problems)
    assert answers[0] == answers[1]
    return answers[0]


def places(problems: list[dict[str, Any]]) -> list[tuple[str, str, int]]:
    return [(problem["code"], problem["path"], problem["line"]) for problem in problems]


def change(root: Path, name: str, old: str, new: str) -> int:
    """Replace the first occurrence of a text in a file and return its line."""
    path = root / name
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return text[: text.index(old)].count("\n") + 1


def test_shipped_lab_is_valid(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert validate(root, capsys) == []


@pytest.mark.parametrize("folder", [EXPERIMENT, PLATFORM])
def test_broken_template_is_found_with_its_line(
    root: Path, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "service.yaml.j2" if folder == EXPERIMENT else "loki-service.yaml.j2"
    line = change(root, f"{folder}/{name}", "apiVersion: v1", "{% if %}\napiVersion: v1")
    assert places(validate(root, capsys)) == [("render", f"{folder}/{name}", line)]


@pytest.mark.parametrize("folder", [EXPERIMENT, PLATFORM])
def test_undefined_variable_is_found_once(
    root: Path, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "service.yaml.j2" if folder == EXPERIMENT else "loki-service.yaml.j2"
    line = change(root, f"{folder}/{name}", "apiVersion: v1", "apiVersion: {{ mistake }}")
    (problem,) = validate(root, capsys)
    assert places([problem]) == [("render", f"{folder}/{name}", line)]
    assert "mistake" in problem["what"]
    if folder == EXPERIMENT:
        assert "1 more experiment" in problem["what"]


@pytest.mark.parametrize("kind", ["statefulset", "service"])
@pytest.mark.parametrize("new", [None, "{}.yaml.j2.bak", "{}.yml.j2", "{}.yaml"])
def test_missing_or_misspelt_template_is_found(
    root: Path, kind: str, new: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = root / EXPERIMENT / f"{kind}.yaml.j2"
    if new is None:
        path.unlink()
    else:
        path.rename(path.with_name(new.format(kind)))
    (problem,) = validate(root, capsys)
    assert problem["code"] == "render"
    assert problem["path"].startswith(EXPERIMENT)


def test_missing_and_misspelt_folders_are_found(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / EXPERIMENT).rename(root / "templates" / "experimnt")
    assert {problem["path"] for problem in validate(root, capsys)} == {EXPERIMENT, "templates/experimnt"}
    (root / "templates" / "experimnt").rename(root / EXPERIMENT)
    (root / PLATFORM).rename(root / "templates" / "plattform")
    assert places(validate(root, capsys)) == [("file", "templates/plattform", 1)]


def test_missing_configuration_of_the_platform_is_found(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    next(iter(sorted((root / PLATFORM / "config").glob("prom*")))).unlink()
    (problem,) = validate(root, capsys)
    assert problem["code"] == "render"
    assert problem["path"].startswith(PLATFORM)


def test_rejected_manifest_is_located_in_its_template(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"{EXPERIMENT}/statefulset.yaml.j2"
    line = change(root, name, "      containers:", "      hostNetwork: true\n      containers:")
    (problem,) = validate(root, capsys)
    assert places([problem]) == [("guard", name, line)]
    assert "StatefulSet/" in problem["what"]


def test_rejected_manifest_of_the_platform_is_located_in_its_template(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"{PLATFORM}/loki-service.yaml.j2"
    change(root, name, "spec:", "spec:\n  type: NodePort")
    (problem,) = validate(root, capsys)
    assert (problem["code"], problem["path"]) == ("guard", name)


@pytest.mark.parametrize("experiments", [("blue", "purple"), ()])
def test_templates_are_rendered_for_unused_contracts_too(
    tmp_path: Path, experiments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_lab(tmp_path / "other", "x", experiments=experiments)
    mistake = "{% if peers == 2 %}{{ mistake }}{% endif %}\napiVersion: v1"
    line = change(root, f"{EXPERIMENT}/namespace.yaml.j2", "apiVersion: v1", mistake)
    (problem,) = validate(root, capsys)
    assert places([problem]) == [("render", f"{EXPERIMENT}/namespace.yaml.j2", line)]
    assert "contract `dst-go`" in problem["what"]
    assert "probe" not in problem["what"]


def test_every_violation_is_a_separate_problem(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(root, f"{EXPERIMENT}/service.yaml.j2", "spec:", "spec:\n  externalName: a.b")
    change(
        root,
        f"{EXPERIMENT}/statefulset.yaml.j2",
        "      containers:",
        "      hostPID: true\n      containers:",
    )
    assert [problem["path"] for problem in validate(root, capsys)] == [
        f"{EXPERIMENT}/service.yaml.j2",
        f"{EXPERIMENT}/statefulset.yaml.j2",
    ]


def test_problems_of_files_do_not_hide_those_of_templates(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(root, "experiments/blue.yaml", "peers: 4", "peers: 0")
    change(root, f"{EXPERIMENT}/service.yaml.j2", "apiVersion: v1", "apiVersion: {{ mistake }}")
    assert {problem["code"] for problem in validate(root, capsys)} == {"bad-value", "render"}


def test_change_after_a_cached_result_is_found(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert validate(root, capsys) == []
    change(root, f"{PLATFORM}/loki-service.yaml.j2", "apiVersion: v1", "apiVersion: {{ mistake }}")
    assert len(validate(root, capsys)) == 1
    change(root, f"{PLATFORM}/loki-service.yaml.j2", "apiVersion: {{ mistake }}", "apiVersion: v1")
    assert validate(root, capsys) == []


@pytest.mark.parametrize(
    "name",
    [
        "experiments/blue.yaml", "contracts/nimp2p.yaml", "lab.yaml", f"{EXPERIMENT}/service.yaml.j2",
        f"{PLATFORM}/loki-service.yaml.j2", "schema/lab.schema.json",
    ],
)  # fmt: skip
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_merge_conflict_and_lfs_pointer_are_reported(
    root: Path, name: str, ends: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = root / name
    before = path.read_text(encoding="utf-8")
    theirs = f"{before}<<<<<<< HEAD\na: 1\n=======\na: 2\n>>>>>>> side\n"
    path.write_bytes(theirs.replace("\n", ends).encode())
    conflicts = [problem for problem in validate(root, capsys) if problem["path"] == name]
    assert [problem["line"] for problem in conflicts] == [before.count("\n") + 1]
    assert "merge conflict" in conflicts[0]["what"]
    path.write_bytes(LFS.replace("\n", ends).encode())
    (pointer,) = [problem for problem in validate(root, capsys) if problem["path"] == name]
    assert re.search("Git LFS", pointer["what"])
