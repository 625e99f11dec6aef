from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nimlab.sandbox import down, is_up, read_state
from nimlab.sandbox.folder_layout import Layout, exclude_from_git, restrict_permissions, write_private
from nimlab.sandbox.saved_processes import Daemon, Record, load_record, save_record
from nimlab.sandbox.state_values import PART_NAMES
from nimlab.value_cache import default_cache
from tests.support.lab import git

RECORD = Record(
    version="v1.34.4",
    nodes=3,
    ports={"etcd": 1, "kube-apiserver": 2},
    daemons={"etcd": Daemon(pid=7, started=1.25)},
)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    home = tmp_path / "a sandbox"
    home.mkdir()
    return Layout(home=home)


def test_a_saved_record_is_loaded_unchanged(layout: Layout) -> None:
    save_record(layout, RECORD)
    assert load_record(layout) == RECORD
    assert stat.S_IMODE(layout.record.stat().st_mode) == 0o600
    assert [p.name for p in layout.home.iterdir()] == ["state.json"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"format": 2}',
        '{"format": 1, "version": "v1", "nodes": "many", "ports": {}, "daemons": {}}',
        '{"format": 1, "version": "v1", "nodes": 1, "ports": [], "daemons": {}}',
        '{"format": 1, "version": "v1", "nodes": 1, "ports": {}, "daemons": {"etcd": 7}}',
    ],
)
def test_an_invalid_record_is_ignored(layout: Layout, content: str) -> None:
    layout.record.write_text(content)
    assert load_record(layout) is None
    assert read_state(layout.home) is None
    assert not is_up(layout.home)


@pytest.mark.parametrize("before", [None, "", "build.log\n", "*\n", "link"])
def test_the_whole_folder_is_excluded_from_git(tmp_path: Path, before: str | None) -> None:
    home = tmp_path / "lab" / ".nimlab" / "sandbox"
    home.mkdir(parents=True)
    ignore = home.parent / ".gitignore"
    if before == "link":
        ignore.symlink_to(tmp_path / "elsewhere")
    elif before is not None:
        ignore.write_text(before, encoding="utf-8")
    (home / "kubeconfig").write_text("x", encoding="utf-8")
    (home.parent / "build.log").write_text("x", encoding="utf-8")
    exclude_from_git(Layout(home=home))
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    assert git(tmp_path, "status", "--porcelain") == ""
    assert stat.S_IMODE(home.parent.stat().st_mode) == 0o700
    assert not (tmp_path / "elsewhere").exists()


def test_a_home_outside_the_lab_excludes_only_itself_from_git(layout: Layout) -> None:
    (layout.home / "kubeconfig").write_text("x", encoding="utf-8")
    (layout.home.parent / "mine").write_text("x", encoding="utf-8")
    exclude_from_git(layout)
    git(layout.home.parent, "init", "-q")
    git(layout.home.parent, "add", "-A")
    assert git(layout.home.parent, "status", "--porcelain") == "A  mine"
    assert ".gitignore" in layout.own_names


def test_permissions_of_an_older_sandbox_are_restricted(layout: Layout) -> None:
    layout.pki.mkdir()
    for folder in (layout.home, layout.pki):
        folder.chmod(0o755)
    paths = [layout.kubeconfig, layout.record, layout.pki / "admin.key"]
    for path in paths:
        path.write_text("x", encoding="utf-8")
        path.chmod(0o644)
    restrict_permissions(layout)
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o600}
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in (layout.home, layout.pki)} == {0o700}


def test_a_private_file_replaces_a_public_one(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, b"new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_missing_folder_is_not_a_sandbox(tmp_path: Path) -> None:
    steps: list[Any] = []
    assert read_state(tmp_path / "none" / "sandbox") is None
    assert not is_up(tmp_path / "none" / "sandbox")
    assert not down(tmp_path / "none" / "sandbox", report=steps.append)
    assert not down(tmp_path / "sandbox", report=steps.append)
    assert steps == []
    assert list(tmp_path.iterdir()) == []


def test_a_sandbox_is_up_if_all_pids_exist_and_the_port_is_open(layout: Layout) -> None:
    this_process = Daemon(pid=os.getpid(), started=0.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        record = replace(
            RECORD, ports={"kube-apiserver": port}, daemons=dict.fromkeys(PART_NAMES, this_process)
        )
        save_record(layout, record)
        assert is_up(layout.home)
        save_record(layout, record.with_daemon("kwok", Daemon(pid=2**22 + 1, started=0.0)))
        assert not is_up(layout.home)
        save_record(layout, replace(record, daemons={"etcd": this_process}))
        assert not is_up(layout.home)
    save_record(layout, record)
    assert not is_up(layout.home)


def test_the_cache_follows_the_xdg_specification(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/some/cache")
    assert default_cache() == Path("/some/cache/nimlab")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "/home/someone")
    assert default_cache() == Path("/home/someone/.cache/nimlab")


@pytest.mark.process
def test_the_package_imports_only_light_modules() -> None:
    code = (
        "import sys, nimlab.sandbox; "
        "print([m for m in ('psutil', 'cryptography', 'ssl', 'subprocess') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert json.loads(result.stdout) == []
