"""Comparison of the folder with the commit in real repositories: a hidden file does not count as deleted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nimlab.files.git_history import Commit, read_commit
from nimlab.files.load import load_lab
from tests.support.lab import git, make_lab

pytestmark = pytest.mark.process  # each test creates several repositories


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignore the Git settings of the machine."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)


@pytest.fixture(params=["", "labs/the one"])
def root(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Create a committed lab, at the top of its repository and in a subfolder."""
    top = tmp_path / "repository"
    folder: Path = make_lab(top / request.param if request.param else top, "x")
    git(top, "init", "-q", "-b", "main")
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    """Commit all changes."""
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", "a change")


def head(root: Path) -> Commit:
    """Return the commit that is checked out."""
    commit = read_commit(root)
    assert commit is not None
    return commit


def hidden(root: Path) -> list[str]:
    """Return the paths of the hidden files."""
    return [file.path for file in head(root).hidden]


def top_of(root: Path) -> Path:
    return Path(git(root, "rev-parse", "--show-toplevel"))


def test_complete_folder_has_no_hidden_files_and_is_clean(root: Path) -> None:
    assert head(root).hidden == ()
    assert not head(root).dirty


@pytest.mark.parametrize("arguments", [("--no-cone",), ("--no-cone", "--sparse-index"), ("--cone",)])
def test_file_outside_a_sparse_checkout_is_hidden(root: Path, arguments: tuple[str, ...]) -> None:
    prefix = git(root, "rev-parse", "--show-prefix")
    included = [f"{prefix}contracts"] if "--cone" in arguments else ["/*", f"!/{prefix}experiments/blue.yaml"]
    git(top_of(root), "sparse-checkout", "set", *arguments, *included)
    before = head(root)
    assert "experiments/blue.yaml" in [file.path for file in before.hidden]
    assert before.dirty
    hint = next(file.hint for file in before.hidden if file.path == "experiments/blue.yaml")
    assert "`git sparse-checkout disable`" in hint
    git(top_of(root), "sparse-checkout", "disable")
    assert head(root).hidden == ()


@pytest.mark.parametrize(
    ("flag", "fix"),
    [("--skip-worktree", "--no-skip-worktree"), ("--assume-unchanged", "--no-assume-unchanged")],
)
@pytest.mark.parametrize(
    "name", ["experiments/blue.yaml", "contracts/dst-go.yaml", "templates/experiment/service.yaml.j2"]
)
def test_flagged_file_that_is_missing_or_differs_is_hidden(
    root: Path, flag: str, fix: str, name: str
) -> None:
    git(root, "update-index", flag, name)
    assert head(root).hidden == ()
    assert not head(root).dirty
    path = root / name
    before = path.read_bytes()
    path.write_bytes(before + b"# mine\n")
    assert hidden(root) == [name]
    assert head(root).dirty
    path.write_bytes(before)
    assert hidden(root) == []
    path.unlink()
    (file,) = head(root).hidden
    assert file.path == name
    assert f"git update-index {fix} {name}" in file.hint


def test_hint_for_both_flags_contains_both_commands(root: Path) -> None:
    name = "experiments/blue.yaml"
    git(root, "update-index", "--skip-worktree", name)
    git(root, "update-index", "--assume-unchanged", name)
    (root / name).unlink()
    (file,) = head(root).hidden
    assert "--no-skip-worktree" in file.hint
    assert "--no-assume-unchanged" in file.hint


def test_deleted_file_that_git_reports_is_not_hidden(root: Path) -> None:
    (root / "experiments" / "blue.yaml").unlink()
    assert head(root).hidden == ()
    assert head(root).dirty
    git(root, "add", "-A")
    assert head(root).hidden == ()
    commit(root)
    assert head(root).hidden == ()
    assert not head(root).dirty


def test_staged_file_that_git_hides_is_hidden(root: Path) -> None:
    path = root / "experiments" / "new.yaml"
    path.write_text("a: 1\n", encoding="utf-8")
    git(root, "add", "-A")
    git(root, "update-index", "--skip-worktree", "experiments/new.yaml")
    path.unlink()
    assert hidden(root) == ["experiments/new.yaml"]


def test_file_that_no_sync_reads_is_ignored(root: Path) -> None:
    (root / "experiments" / "README.md").write_text("x", encoding="utf-8")
    commit(root)
    git(root, "update-index", "--skip-worktree", "experiments/README.md")
    (root / "experiments" / "README.md").unlink()
    assert head(root).hidden == ()
    assert not head(root).dirty


@pytest.mark.parametrize("name", ['a"b.yaml', "ä b.yaml", "a\nb.yaml", "[a]*.yaml", ":a.yaml"])
def test_unusual_file_names_are_compared_literally(root: Path, name: str) -> None:
    path = root / "experiments" / name
    path.write_text("a: 1\n", encoding="utf-8")
    assert head(root).dirty
    commit(root)
    assert not head(root).dirty
    git(root, "update-index", "--skip-worktree", "--", f"experiments/{name}")
    if "\n" not in name:
        assert not head(root).dirty
    path.unlink()
    assert hidden(root) == [f"experiments/{name}"]


def test_name_that_is_not_utf8_is_printable(root: Path) -> None:
    name = os.fsdecode(b"experiments/\xff.yaml")
    (root / name).write_text("a: 1\n", encoding="utf-8")
    commit(root)
    git(root, "update-index", "--skip-worktree", name)
    (root / name).unlink()
    problems = load_lab(root, hidden=head(root).hidden).problems
    assert [str(p.location) for p in problems] == ["experiments/\\udcff.yaml:1:1"]
    "".join(map(str, problems)).encode()


def test_name_in_another_case_is_dirty_where_git_ignores_case(root: Path) -> None:
    git(root, "config", "core.ignoreCase", "true")
    blue = root / "experiments" / "blue.yaml"
    (root / "experiments" / "Blue.yaml").write_bytes(blue.read_bytes())
    assert head(root).dirty
    blue.unlink()
    assert head(root).dirty


def test_content_is_compared_as_git_stores_it(root: Path) -> None:
    (root / ".gitattributes").write_text("*.yaml text eol=crlf\n", encoding="utf-8")
    commit(root)
    path = root / "experiments" / "blue.yaml"
    path.unlink()
    git(root, "checkout", "-q", "--", "experiments/blue.yaml")
    assert b"\r\n" in path.read_bytes()
    git(root, "update-index", "--skip-worktree", "experiments/blue.yaml")
    assert head(root).hidden == ()


def test_file_system_monitor_is_ignored(root: Path) -> None:
    monitor = root.parent / "monitor"
    monitor.write_text("#!/bin/sh\nprintf 'token\\0'\n", encoding="utf-8")
    monitor.chmod(0o755)
    git(root, "config", "core.fsmonitor", str(monitor))
    git(root, "status")
    git(root, "update-index", "--fsmonitor-valid", "experiments/blue.yaml")
    (root / "experiments" / "blue.yaml").write_text("a: 1\n", encoding="utf-8")
    assert head(root).dirty


def test_submodule_that_is_not_checked_out_is_hidden(tmp_path: Path, root: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    (other / "green.yaml").write_text("a: 1\n", encoding="utf-8")
    commit(other)
    git(root, "rm", "-q", "-r", "experiments")
    prefix = git(root, "rev-parse", "--show-prefix")
    allowed = ("-c", "protocol.file.allow=always")
    git(top_of(root), *allowed, "submodule", "--quiet", "add", str(other), f"{prefix}experiments")
    commit(root)
    assert head(root).hidden == ()
    assert not head(root).dirty
    inside = root / "experiments"
    git(inside, "update-index", "--skip-worktree", "green.yaml")
    (inside / "green.yaml").unlink()
    assert hidden(root) == ["experiments/green.yaml"]
    git(inside, "update-index", "--no-skip-worktree", "green.yaml")
    assert hidden(root) == []
    git(top_of(root), "config", "diff.ignoreSubmodules", "all")
    assert head(root).dirty
    git(top_of(root), "submodule", "--quiet", "deinit", "--force", "--all")
    (file,) = head(root).hidden
    assert file.path == "experiments"
    assert "git submodule update --init" in file.hint


def test_file_removed_in_an_unfinished_merge_is_hidden(root: Path) -> None:
    path = root / "experiments" / "blue.yaml"
    git(root, "checkout", "-q", "-b", "side")
    path.unlink()
    commit(root)
    git(root, "checkout", "-q", "main")
    path.write_text(path.read_text(encoding="utf-8") + "# more\n", encoding="utf-8")
    commit(root)
    with pytest.raises(Exception, match="merge"):
        git(root, "merge", "-q", "side")
    path.unlink()
    assert hidden(root) == ["experiments/blue.yaml"]


def test_unreadable_index_makes_lab_yaml_a_hidden_file(root: Path) -> None:
    index = Path(git(root, "rev-parse", "--absolute-git-dir")) / "index"
    index.write_bytes(b"x")
    assert hidden(root) == ["lab.yaml"]
    assert head(root).dirty


def test_hidden_files_differ_between_worktrees(tmp_path: Path, root: Path) -> None:
    prefix = git(root, "rev-parse", "--show-prefix")
    second = tmp_path / "second"
    git(root, "worktree", "add", "-q", "--detach", str(second))
    git(second, "sparse-checkout", "set", "--no-cone", "/*", f"!/{prefix}experiments/blue.yaml")
    assert hidden(second / prefix) == ["experiments/blue.yaml"]
    assert hidden(root) == []


def test_hidden_file_is_a_problem_and_its_experiment_is_broken(root: Path) -> None:
    git(root, "update-index", "--skip-worktree", "experiments/blue.yaml")
    (root / "experiments" / "blue.yaml").unlink()
    files = load_lab(root, hidden=head(root).hidden)
    assert [(p.code, p.location.path) for p in files.problems] == [("hidden", "experiments/blue.yaml")]
    assert [(b.name, b.source) for b in files.broken] == [("blue", "experiments/blue.yaml")]


def test_untracked_copy_of_the_lab_has_no_commit(root: Path) -> None:
    export = root / "export"
    export.mkdir()
    (export / "lab.yaml").write_bytes((root / "lab.yaml").read_bytes())
    assert read_commit(export) is None
    git(root, "add", "export/lab.yaml")
    assert head(export).dirty
    git(root, "rm", "-q", "--cached", "export/lab.yaml", "lab.yaml")
    assert head(root).dirty
