"""Clones of one repository sync in turn: no sync reverts a newer commit, even after interrupted syncs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from nimlab.objects.applyset_parent import BEGUN, COMMIT
from tests.end_to_end.test_concurrent_syncs import ended, release_lock, start
from tests.support.api_proxy import Broken, Seen, run_proxy
from tests.support.lab import Lab, git

pytestmark = pytest.mark.live


def commit(lab: Lab, what: str) -> str:
    """Commit all files in the lab's folder; return the id of the commit."""
    git(lab.root, "add", "-A")
    git(lab.root, "commit", "-qm", what)
    return git(lab.root, "rev-parse", "HEAD")


@pytest.fixture
def mine(lab: Lab) -> Lab:
    """Yield a lab in a Git repository, synced once."""
    git(lab.root, "init", "-q", "-b", "main")
    commit(lab, "one")
    assert lab.run("sync", "--no-wait").code == 0
    return lab


def clone_of(lab: Lab, *arguments: str) -> Lab:
    """Return the same lab in a clone of its repository."""
    root = lab.root.parent / "clone"
    git(lab.root.parent, "clone", "-q", *arguments, lab.root.as_uri(), str(root))
    return dataclasses.replace(lab, root=root)


def recorded(lab: Lab) -> dict[str, str]:
    """Return the annotations of the apply-set's parent."""
    parent = lab.get("ConfigMap", "nimlab-experiments")
    assert parent is not None
    return dict(parent["metadata"]["annotations"])


def scale(lab: Lab) -> int:
    """Return `replicas` of purple's StatefulSet in the cluster."""
    workload = lab.get("StatefulSet", "nimp2p-exp-purple")
    assert workload is not None
    return int(workload["spec"]["replicas"])


def more_peers(lab: Lab, peers: int) -> str:
    """Change the number of purple's peers, and commit the change; return the id of the commit."""
    text = (lab.root / "experiments" / "purple.yaml").read_text(encoding="utf-8")
    lines = [f"  peers: {peers}" if line.startswith("  peers:") else line for line in text.splitlines()]
    assert "\n".join(lines) != text.rstrip()
    lab.write("purple", "\n".join(lines) + "\n")
    return commit(lab, f"{peers} peers")


def test_clone_that_has_not_fetched_overwrites_nothing_and_records_nothing(mine: Lab) -> None:
    theirs = clone_of(mine)
    newest = more_peers(mine, 3)
    assert mine.run("sync", "--no-wait").code == 0
    more_peers(theirs, 4)
    for arguments in (("sync",), ("sync", "purple"), ("sync", "--dry-run")):
        answer = theirs.run(*arguments)
        assert answer.code == 1, answer.out
        assert "cannot determine whether this commit is newer" in answer.out
        assert "git fetch" in answer.out
    assert (scale(mine), recorded(mine)[COMMIT]) == (3, newest)
    answer = theirs.run("sync", "--allow-older", "--no-wait")
    assert answer.code == 0, answer.out
    assert scale(mine) == 4


def test_clone_that_has_not_fetched_may_sync_without_changes(mine: Lab) -> None:
    theirs = clone_of(mine)
    (mine.root / "README.md").write_text("hello\n", encoding="utf-8")
    newest = commit(mine, "a change")
    assert mine.run("sync", "--no-wait").code == 0
    answer = theirs.run("sync", "--no-wait")
    assert answer.code == 0, answer.out
    assert recorded(mine)[COMMIT] == newest


def test_shallow_clone_of_a_newer_commit_gets_the_hint_to_fetch_its_history(mine: Lab) -> None:
    (mine.root / "README.md").write_text("hello\n", encoding="utf-8")
    commit(mine, "between")
    more_peers(mine, 3)
    shallow = clone_of(mine, "--depth", "1")
    answer = shallow.run("sync", "--no-wait")
    assert answer.code == 1
    assert "--unshallow" in answer.out
    git(shallow.root, "fetch", "-q", "--unshallow")
    assert shallow.run("sync", "--no-wait").code == 0
    assert scale(mine) == 3


def test_older_commit_does_not_overwrite_a_newer_sync_by_name(mine: Lab) -> None:
    theirs = clone_of(mine)
    mine.edit("blue", "peers: ", "peers: 1")
    newest = more_peers(mine, 3)
    assert mine.run("sync", "purple", "--no-wait").code == 0
    assert recorded(mine)[BEGUN] == f"purple={newest}"
    git(theirs.root, "fetch", "-q")
    for arguments in (("sync",), ("sync", "purple")):
        answer = theirs.run(*arguments, "--no-wait")
        assert answer.code == 1
        assert "from which purple was synced later" in answer.out
    assert scale(mine) == 3
    assert theirs.run("sync", "blue", "--no-wait").code == 0, "purple's newer commit does not affect blue"
    assert mine.run("sync", "--no-wait").code == 0
    assert BEGUN not in recorded(mine)
    assert recorded(mine)[COMMIT] == newest


def test_commit_that_was_rebased_after_a_sync_by_name_is_synced(mine: Lab) -> None:
    """Commit, sync by name, rebase, push: the pipeline's clone does not contain the synced commit."""
    theirs = clone_of(mine)
    more_peers(mine, 3)
    assert mine.run("sync", "purple").code == 0, "outdated peers would be a pending change"
    (theirs.root / "README.md").write_text("hello\n", encoding="utf-8")
    commit(theirs, "a change")
    more_peers(theirs, 3)
    assert theirs.run("sync", "--no-wait").code == 0
    assert BEGUN not in recorded(mine)


@pytest.mark.parametrize("how", ["refused by the server", "killed"])
def test_older_commit_prunes_nothing_of_an_interrupted_sync(mine: Lab, tmp_path: Path, how: str) -> None:
    theirs = clone_of(mine)
    purple = (mine.root / "experiments" / "purple.yaml").read_text(encoding="utf-8")
    mine.write("green", purple.replace("purple", "green"))
    newest = more_peers(mine, 3)

    def fault(request: Seen) -> Broken | None:
        if request.is_write and "/statefulsets/nimp2p-exp-purple" in request.path:
            if how == "killed":
                running.kill()
            return Broken(status=403, body={"kind": "Status", "message": "not today"})
        return None

    with run_proxy(mine.kubeconfig, tmp_path) as proxy:
        proxy.fault = fault
        running = start(mine, "sync", "--no-wait", kubeconfig=proxy.kubeconfig)
        ((code, output),) = ended([running])
    assert code == (-9 if how == "killed" else 1), output
    assert recorded(mine)[BEGUN] == f"*={newest}"
    release_lock(mine)
    before = mine.names("ConfigMap")
    git(theirs.root, "fetch", "-q")
    answer = theirs.run("sync", "--no-wait")
    assert answer.code == 1, answer.out
    assert "older than" in answer.out
    assert mine.names("ConfigMap") == before
    assert mine.run("sync", "--no-wait").code == 0
    assert (scale(mine), BEGUN in recorded(mine)) == (3, False)
