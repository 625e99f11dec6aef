"""Git facts that are read from real repositories in temporary folders."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from nimlab.errors import NimlabError
from nimlab.files.git_history import Commit, Relation, read_commit, relation_to, remedy_for, removed_in
from tests.support.lab import git

pytestmark = pytest.mark.process  # each test creates several repositories


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignore the Git settings of the machine."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Create a repository with one commit: a lab with one experiment."""
    folder = tmp_path / "lab"
    (folder / "experiments").mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    (folder / "lab.yaml").write_text("a: 1\n", encoding="utf-8")
    (folder / "experiments" / "blue.yaml").write_text("a: 1\n", encoding="utf-8")
    commit(folder)
    return folder


def commit(root: Path) -> str:
    """Commit all changes, or create an empty commit; return the sha."""
    git(root, "add", "-A")
    git(root, "commit", "-q", "--allow-empty", "-m", "a change")
    return git(root, "rev-parse", "HEAD")


def head(root: Path) -> Commit:
    """Return the commit that is checked out; assert that there is one."""
    commit = read_commit(root)
    assert commit is not None
    return commit


def test_commit_branch_and_clean_state_are_read(root: Path) -> None:
    sha = git(root, "rev-parse", "HEAD")
    assert read_commit(root) == Commit(sha=sha, branch="main", dirty=False)


def test_detached_head_has_no_branch(root: Path) -> None:
    git(root, "checkout", "-q", "--detach")
    assert head(root).branch is None


@pytest.mark.parametrize(
    "name", ["lab.yaml", "experiments/blue.yaml", "experiments/new.yaml", "contracts/a.yaml"]
)
def test_changed_or_new_input_is_dirty(root: Path, name: str) -> None:
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text("b: 2\n", encoding="utf-8")
    assert head(root).dirty


def test_ignored_input_is_dirty_but_an_ignored_editor_file_is_not(root: Path) -> None:
    (root / ".gitignore").write_text("local-*\n*.swp\n/schema/\n", encoding="utf-8")
    commit(root)
    (root / "experiments" / "blue.swp").write_text("x", encoding="utf-8")
    assert not head(root).dirty
    (root / "experiments" / "local-a.yaml").write_text("a: 1\n", encoding="utf-8")
    assert head(root).dirty
    (root / "experiments" / "local-a.yaml").unlink()
    (root / "schema").mkdir()
    (root / "schema" / "a.json").write_text("{}", encoding="utf-8")
    assert head(root).dirty


def test_removed_input_is_dirty(root: Path) -> None:
    (root / "experiments" / "blue.yaml").unlink()
    assert head(root).dirty


def test_staged_input_is_dirty(root: Path) -> None:
    (root / "experiments" / "blue.yaml").write_text("b: 2\n", encoding="utf-8")
    git(root, "add", "-A")
    assert head(root).dirty


def test_file_that_no_sync_reads_is_not_dirty(root: Path) -> None:
    (root / "notes.txt").write_text("x", encoding="utf-8")
    (root / "plan.json").write_text("{}", encoding="utf-8")
    assert not head(root).dirty


def test_change_outside_a_lab_in_a_subfolder_is_not_dirty(root: Path) -> None:
    lab = root / "labs" / "one"
    (lab / "experiments").mkdir(parents=True)
    (lab / "lab.yaml").write_text("a: 1\n", encoding="utf-8")
    commit(root)
    (root / "experiments" / "blue.yaml").write_text("b: 2\n", encoding="utf-8")
    assert not head(lab).dirty
    (lab / "lab.yaml").write_text("b: 2\n", encoding="utf-8")
    assert head(lab).dirty


def test_commit_is_none_without_a_repository_a_commit_or_git(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert read_commit(tmp_path) is None
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    git(fresh, "init", "-q")
    assert read_commit(fresh) is None
    sha = head(root)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_commit(root) is None
    assert relation_to(root, sha, "0" * 40) is Relation.UNKNOWN
    assert removed_in(root, "experiments/blue.yaml") is None


def test_environment_of_a_hook_in_another_repository_is_ignored(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    sha = git(root, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
    assert read_commit(root) == Commit(sha=sha, branch="main", dirty=False)


def test_repository_of_another_user_is_an_error_with_a_remedy(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(NimlabError, match="trust") as caught:
        read_commit(root)
    assert caught.value.hint is not None
    assert f"git config --global --add safe.directory {root}" in caught.value.hint


def test_reading_the_commit_writes_nothing(root: Path) -> None:
    index = root / ".git" / "index"
    os.utime(root / "lab.yaml", (1, 1))  # git would now refresh its index, unless nimlab disables this
    before = index.read_bytes()
    read_commit(root)
    assert index.read_bytes() == before


def test_relation_corresponds_to_the_history(root: Path) -> None:
    old = head(root)
    new_sha = commit(root)
    new = head(root)
    assert relation_to(root, new, new_sha) is Relation.SAME
    assert relation_to(root, new, old.sha) is Relation.NEWER
    assert relation_to(root, old, new_sha) is Relation.OLDER


def test_separate_branches_are_diverged_until_merged(root: Path) -> None:
    git(root, "checkout", "-q", "-b", "side")
    side = commit(root)
    git(root, "checkout", "-q", "main")
    (root / "notes.txt").write_text("x", encoding="utf-8")
    commit(root)
    assert relation_to(root, head(root), side) is Relation.DIVERGED
    git(root, "merge", "-q", "--no-edit", "side")
    assert relation_to(root, head(root), side) is Relation.NEWER


@pytest.mark.parametrize("recorded", ["0" * 40, "", "main", "--help", "-q", "0" * 39, "A" * 40, "0" * 65])
def test_commit_that_is_not_in_the_clone_is_unknown(root: Path, recorded: str) -> None:
    assert relation_to(root, head(root), recorded) is Relation.UNKNOWN


def test_without_a_commit_the_relation_is_unknown(root: Path) -> None:
    assert relation_to(root, None, git(root, "rev-parse", "HEAD")) is Relation.UNKNOWN


def test_recorded_text_never_reaches_git_as_an_option(root: Path) -> None:
    branch = "a" * 39  # git accepts this branch name, so nimlab must not pass it to git
    git(root, "branch", branch)
    assert relation_to(root, head(root), branch) is Relation.UNKNOWN


def test_relation_in_a_shallow_clone_is_unknown(tmp_path: Path, root: Path) -> None:
    first = git(root, "rev-parse", "HEAD")
    git(root, "checkout", "-q", "-b", "side")
    commit(root)
    git(root, "checkout", "-q", "main")
    (root / "notes.txt").write_text("x", encoding="utf-8")
    commit(root)
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", "--depth=1", "--no-single-branch", root.as_uri(), str(clone))
    side = git(clone, "rev-parse", "origin/side")
    assert relation_to(clone, head(clone), first) is Relation.UNKNOWN
    assert relation_to(clone, head(clone), side) is Relation.UNKNOWN
    git(clone, "fetch", "-q", "--unshallow")
    assert relation_to(clone, head(clone), first) is Relation.NEWER
    assert relation_to(clone, head(clone), side) is Relation.DIVERGED


def test_commit_that_removed_a_file_is_found(root: Path) -> None:
    (root / "experiments" / "blue.yaml").unlink()
    sha = commit(root)
    commit(root)
    removal = removed_in(root, "experiments/blue.yaml")
    assert removal is not None
    assert sha.startswith(removal)


def test_no_removal_is_found_for_a_file_that_no_commit_removed(root: Path) -> None:
    path = root / "experiments" / "blue.yaml"
    assert removed_in(root, "experiments/blue.yaml") is None
    assert removed_in(root, "experiments/never.yaml") is None
    path.unlink()
    commit(root)
    path.write_text("a: 1\n", encoding="utf-8")
    commit(root)
    path.unlink()
    assert removed_in(root, "experiments/blue.yaml") is None


def test_git_settings_of_the_user_change_no_result(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = root.parent / "gitconfig"
    settings.write_text(
        "[log]\n\tshowSignature = true\n[color]\n\tui = always\n[status]\n\tshowUntrackedFiles = no\n"
        "[core]\n\tpager = false\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    (root / "experiments" / "blue.yaml").unlink()
    sha = commit(root)
    assert head(root) == Commit(sha=sha, branch="main", dirty=False)
    removal = removed_in(root, "experiments/blue.yaml")
    assert removal is not None
    assert sha.startswith(removal)
    (root / "experiments" / "new.yaml").write_text("a: 1\n", encoding="utf-8")
    assert head(root).dirty


def test_names_that_are_not_utf8_are_handled(root: Path) -> None:
    name = b"experiments/\xff.yaml"
    with Path(os.fsdecode(os.fsencode(root) + b"/" + name)).open("w", encoding="utf-8") as file:
        file.write("a: 1\n")
    git(root, "-c", "core.quotePath=false", "checkout", "-q", "-b", os.fsdecode(b"\xff"))
    commit_facts = head(root)
    assert commit_facts.dirty
    assert commit_facts.branch == "�"


def test_commit_of_a_broken_repository_is_none(root: Path) -> None:
    shutil.rmtree(root / ".git" / "objects")
    assert read_commit(root) is None


def test_folder_that_git_cannot_compare_is_dirty(root: Path) -> None:
    (root / ".git" / "index").write_bytes(b"x")
    assert head(root).dirty


def test_remedy_for_a_shallow_clone_is_to_fetch_the_history(tmp_path: Path, root: Path) -> None:
    first = git(root, "rev-parse", "HEAD")
    commit(root)
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", "--depth=1", root.as_uri(), str(clone))
    assert "`git fetch --unshallow`" in remedy_for(clone, head(clone), first)
    assert "`git fetch --unshallow`" in remedy_for(clone, head(clone), "0" * 40)
    git(clone, "fetch", "-q", "--unshallow")
    assert "unshallow" not in remedy_for(clone, head(clone), "0" * 40)


def test_remedy_for_a_missing_commit_is_to_fetch_it(tmp_path: Path, root: Path) -> None:
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", root.as_uri(), str(clone))
    newer = commit(root)
    remedy = remedy_for(clone, head(clone), newer)
    assert f"`git fetch origin {newer}`" in remedy
    assert "rewritten" in remedy
    git(clone, "fetch", "-q", "origin", newer)
    git(clone, "fetch", "-q")
    assert relation_to(clone, head(clone), newer) is Relation.OLDER


def test_remedy_after_a_rewritten_history_does_not_suggest_a_fetch(root: Path) -> None:
    commit(root)
    recorded = commit(root)
    git(root, "reset", "-q", "--hard", "HEAD~1")
    (root / "notes.txt").write_text("x", encoding="utf-8")
    commit(root)
    assert relation_to(root, head(root), recorded) is Relation.DIVERGED
    remedy = remedy_for(root, head(root), recorded)
    assert "the history was rewritten" in remedy
    assert "git fetch" not in remedy


def test_remedy_for_a_commit_on_another_branch_names_the_branch(root: Path) -> None:
    git(root, "checkout", "-q", "-b", "side")
    recorded = commit(root)
    git(root, "checkout", "-q", "main")
    (root / "notes.txt").write_text("x", encoding="utf-8")
    commit(root)
    assert "`git merge side`" in remedy_for(root, head(root), recorded)


def test_remedy_without_git_is_to_clone(root: Path) -> None:
    assert "clone" in remedy_for(root, None, git(root, "rev-parse", "HEAD"))


@pytest.mark.parametrize("name", ["GIT_GLOB_PATHSPECS", "GIT_ICASE_PATHSPECS", "GIT_NAMESPACE", "GIT_PREFIX"])
def test_environment_does_not_change_the_meaning_of_paths(
    root: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = root / "experiments" / "[b]lue.yaml"
    path.write_text("a: 1\n", encoding="utf-8")
    commit(root)
    path.unlink()
    sha = commit(root)
    monkeypatch.setenv(name, "1")
    removal = removed_in(root, "experiments/[b]lue.yaml")
    assert removal is not None
    assert sha.startswith(removal)
    assert removed_in(root, "experiments/BLUE.yaml") is None
