"""A sync with files that Git hides, to a real API server: the objects of these files are not pruned."""

from __future__ import annotations

import json

import pytest

from tests.support.lab import Lab, git

pytestmark = pytest.mark.live

BLUE = "nimp2p-exp-blue"


def commit(lab: Lab) -> None:
    """Commit the whole lab; create a repository if there is none."""
    if not (lab.root / ".git").exists():
        git(lab.root, "init", "-q", "-b", "main")
    git(lab.root, "add", "-A")
    git(lab.root, "commit", "-q", "--allow-empty", "-m", "a change")


@pytest.mark.parametrize("way", ["sparse", "--skip-worktree", "--assume-unchanged"])
def test_experiment_that_git_hides_is_not_pruned(lab: Lab, way: str) -> None:
    commit(lab)
    assert lab.run("sync").code == 0
    path = lab.root / "experiments" / "blue.yaml"
    if way == "sparse":
        git(lab.root, "sparse-checkout", "set", "--no-cone", "/*", "!/experiments/blue.yaml")
    else:
        git(lab.root, "update-index", way, "experiments/blue.yaml")
        path.unlink()
    for arguments in (
        ("sync",),
        ("sync", "--allow-empty"),
        ("sync", "blue"),
        ("sync", "--max-prune", "100%"),
    ):
        answer = lab.run(*arguments)
        assert answer.code == 1, answer.out + answer.err
        assert "experiments/blue.yaml:1:1: error[hidden]" in answer.err
        assert "clean" not in answer.err
    assert lab.get("StatefulSet", BLUE) is not None
    data = json.loads(lab.run("sync", "--dry-run", "--output", "json").out)
    assert data["commit"]["dirty"] is True
    assert lab.run("validate").code == 1
    git(lab.root, "sparse-checkout", "disable")
    git(lab.root, "update-index", "--no-skip-worktree", "experiments/blue.yaml")
    git(lab.root, "update-index", "--no-assume-unchanged", "experiments/blue.yaml")
    git(lab.root, "checkout", "-q", "--", "experiments/blue.yaml")
    answer = lab.run("sync")
    assert answer.code == 0
    assert "clean" in answer.err


def test_objects_of_a_template_that_git_hides_are_not_pruned(lab: Lab) -> None:
    commit(lab)
    assert lab.run("sync").code == 0
    name = "templates/experiment/networkpolicy.yaml.j2"
    git(lab.root, "update-index", "--skip-worktree", name)
    (lab.root / name).unlink()
    answer = lab.run("sync")
    assert answer.code == 1
    assert f"{name}:1:1: error[hidden]" in answer.err
    assert f"{BLUE}" in lab.names("NetworkPolicy")


def test_objects_of_a_deleted_file_are_pruned(lab: Lab) -> None:
    commit(lab)
    assert lab.run("sync").code == 0
    (lab.root / "experiments" / "blue.yaml").unlink()
    assert lab.run("sync").code == 0
    assert lab.get("StatefulSet", BLUE) is None


def test_lab_without_experiments_is_pruned_only_with_allow_empty(lab: Lab) -> None:
    commit(lab)
    assert lab.run("sync").code == 0
    git(lab.root, "rm", "-q", "-r", "experiments")
    git(lab.root, "commit", "-q", "-m", "the last experiments")
    assert not (lab.root / "experiments").exists()
    assert lab.run("validate").code == 0
    answer = lab.run("sync", "--max-prune", "100%")
    assert answer.code == 1
    assert "--allow-empty" in answer.out
    assert lab.get("StatefulSet", BLUE) is not None
    assert lab.run("sync", "--allow-empty", "--max-prune", "100%").code == 0
    assert lab.get("StatefulSet", BLUE) is None
    assert lab.run("list").code == 0
    assert lab.run("create", "--name", "green").code == 0
    assert (lab.root / "experiments" / "green.yaml").is_file()
