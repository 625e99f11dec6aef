"""The value cache reuses values only for equal inputs and equal code; its own failures are ignored."""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from nimlab.files.load import load_lab
from nimlab.files.load.schema_cache import SCHEMAS
from nimlab.objects.manifest import Manifest
from nimlab.render import load_templates, render_experiment
from nimlab.value_cache import ValueCache, code_stamp
from tests.support.lab import Lab
from tests.support.paths import REPOSITORY, SAMPLE_LAB

FOLDER = "templates/experiment"


def saved(path: Path, stamp: str = "s", **values: object) -> Path:
    """Write a cache file with these values and return its path."""
    value_cache = ValueCache(path, stamp)
    for digest, value in values.items():
        value_cache.put(digest, value)
    value_cache.save(forget=True)
    return path


def test_each_get_returns_an_equal_new_value(tmp_path: Path) -> None:
    value = [{"a": "é\u2028 \ue000", "b": [1, True, None, 0.5], "c": {}}]
    path = saved(tmp_path / "deep" / "file", one=value)
    value_cache = ValueCache(path, "s")
    first = value_cache.get("one")
    assert first == value
    first[0]["c"]["changed"] = 1
    assert value_cache.get("one") == value
    assert value_cache.get("two") is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_a_file_with_another_stamp_or_a_corrupt_file_is_ignored(tmp_path: Path) -> None:
    path = saved(tmp_path / "file", one=[1])
    assert ValueCache(path, "other").get("one") is None
    path.write_bytes(b"\xff\n")
    assert ValueCache(path, "s").get("one") is None
    path.write_bytes(b"")
    assert ValueCache(path, "s").get("one") is None


def test_a_file_with_any_flipped_bit_is_ignored(tmp_path: Path) -> None:
    path = saved(tmp_path / "file", one=["nimp2p:v2.0.14"])
    good = path.read_bytes()
    for place in range(len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        assert ValueCache(path, "s").get("one") is None, place
    path.write_bytes(good)
    assert ValueCache(path, "s").get("one") == ["nimp2p:v2.0.14"]


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_is_ignored(tmp_path: Path, mode: int) -> None:
    path = saved(tmp_path / "file", one=[1])
    path.chmod(mode)
    assert ValueCache(path, "s").get("one") is None


def test_a_file_of_another_user_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "file", one=[1])
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    assert ValueCache(path, "s").get("one") is None


@pytest.mark.live
def test_a_cache_folder_inside_the_lab_is_not_used(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(lab.root / ".cache"))
    assert lab.run("sync", "--no-wait").code == 0
    assert not (lab.root / ".cache").exists()
    monkeypatch.setenv("XDG_CACHE_HOME", str(lab.root.parent / "cache"))
    assert lab.run("sync", "--no-wait").code == 0
    assert len([*(lab.root.parent / "cache").rglob("rendered/*")]) == 1


def test_the_stamp_depends_on_the_content_of_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = shutil.copytree(REPOSITORY / "nimlab", tmp_path / "nimlab")
    monkeypatch.setattr("nimlab.value_cache.__file__", str(package / "cache.py"))
    before, path = code_stamp(), package / "yaml_and_json.py"
    status, text = path.stat(), path.read_text(encoding="utf-8")
    path.write_text(text.replace("canonical", "canonicaL", 1), encoding="utf-8")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert code_stamp() != before


def test_save_with_forget_removes_unused_values(tmp_path: Path) -> None:
    path = saved(tmp_path / "file", one=[1], two=[2])
    partial_run = ValueCache(path, "s")
    partial_run.get("one")
    partial_run.save(forget=False)
    assert ValueCache(path, "s").get("two") == [2]
    full_run = ValueCache(path, "s")
    full_run.get("one")
    full_run.save(forget=True)
    assert ValueCache(path, "s").get("two") is None


def test_a_folder_that_cannot_be_written_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file instead of a folder", encoding="ascii")
    saved(tmp_path / "file" / "below", one=[1])


def test_the_oldest_of_many_files_is_removed(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / f"old-{number}").write_text("", encoding="ascii")
        os.utime(tmp_path / f"old-{number}", (number, number))
    saved(tmp_path / "file", one=[1])
    assert len([*tmp_path.iterdir()]) == 100
    assert not (tmp_path / "old-0").exists()


def rendered(value_cache: ValueCache | None, prefix: str = "nimp2p-exp-") -> list[Manifest]:
    """Return all manifests of the shipped lab with this prefix."""
    files = load_lab(SAMPLE_LAB)
    lab = replace(files.lab, prefix=prefix)
    templates = load_templates(SAMPLE_LAB, FOLDER, value_cache)
    return [m for experiment in files.experiments for m in render_experiment(templates, experiment, lab)]


def test_cached_manifests_equal_rendered_manifests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    value_cache = ValueCache(path, code_stamp())
    fresh = rendered(value_cache)
    value_cache.save(forget=True)
    assert fresh == rendered(None)

    monkeypatch.setattr("nimlab.render.jinja_sandbox.CompiledTemplates", None)  # rendering fails from here on
    assert rendered(ValueCache(path, code_stamp())) == fresh
    with pytest.raises(TypeError):
        rendered(ValueCache(path, "other code"))
    with pytest.raises(TypeError):
        rendered(ValueCache(path, code_stamp()), prefix="else-")


@pytest.mark.live
def test_the_next_run_renders_a_changed_template(lab: Lab) -> None:
    assert lab.run("sync").code == 0
    assert lab.run("sync", "--dry-run", "--exit-code").code == 0
    path = lab.root / FOLDER / "configmap.yaml.j2"
    path.write_text(path.read_text(encoding="utf-8") + "immutable: true\n", encoding="utf-8")
    answer = lab.run("sync", "--dry-run", "--exit-code")
    assert answer.code == 3, answer.out + answer.err
    assert "immutable" in answer.out


def copied(tmp_path: Path) -> Path:
    """Copy the files of the shipped lab without templates; return the folder."""
    for name in ("experiments", "contracts", "schema"):
        shutil.copytree(SAMPLE_LAB / name, tmp_path / "lab" / name)
    shutil.copy(SAMPLE_LAB / "lab.yaml", tmp_path / "lab")
    return tmp_path / "lab"


def test_cached_documents_equal_validated_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = copied(tmp_path)
    value_cache = ValueCache(tmp_path / "file", "s")
    checked = load_lab(root, value_cache=value_cache)
    value_cache.save(forget=True)
    assert checked == load_lab(root)

    # Reading YAML fails from here on.
    monkeypatch.setattr("nimlab.files.load.schema_cache.read_document", None)
    assert load_lab(root, value_cache=ValueCache(tmp_path / "file", "s")) == checked
    schemas = tmp_path / "schema"
    shutil.copytree(SCHEMAS, schemas)
    for folder in (schemas, root / "schema"):
        path = folder / "experiment.schema.json"
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("Purpose of the experiment.", "Purpose."), encoding="utf-8")
    monkeypatch.setattr("nimlab.files.load.schema_cache.SCHEMAS", schemas)
    with pytest.raises(TypeError):
        load_lab(root, value_cache=ValueCache(tmp_path / "file", "s"))


def test_a_new_problem_in_a_cached_document_has_a_place(tmp_path: Path) -> None:
    root = copied(tmp_path)
    value_cache = ValueCache(tmp_path / "file", "s")
    assert not load_lab(root, value_cache=value_cache).problems
    (root / "contracts" / "nimp2p.yaml").unlink()
    problems = load_lab(root, value_cache=value_cache).problems
    assert problems == load_lab(root).problems
    assert {p.code for p in problems} == {"unknown-reference"}
    assert all(p.location.line and p.excerpt for p in problems)


def test_an_invalid_document_is_not_cached(tmp_path: Path) -> None:
    root = copied(tmp_path)
    (root / "experiments" / "purple.yaml").write_text("kind: Experiment\n", encoding="utf-8")
    value_cache = ValueCache(tmp_path / "file", "s")
    assert (
        load_lab(root, value_cache=value_cache).problems
        == load_lab(root, value_cache=value_cache).problems
        != ()
    )
