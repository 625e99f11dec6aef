"""If `namespace` in lab.yaml changes, the lab moves completely or not at all, without other labs' objects."""

from __future__ import annotations

import dataclasses
import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from nimlab.objects.applyset_parent import BEGUN, COMMIT, FORMER, LAB
from tests.access.test_pipeline_roles import account_kubeconfig
from tests.end_to_end.test_stale_commit import commit, recorded
from tests.support.lab import Lab, git, make_lab, remove_namespaces

pytestmark = pytest.mark.live

SYNC = ("sync", "--no-wait")


@pytest.fixture
def elsewhere(lab: Lab) -> Iterator[str]:
    """Yield the name of a second namespace; remove the namespace afterwards."""
    name = f"lab-{secrets.token_hex(4)}"
    yield name
    remove_namespaces(lab.cluster, [name, f"nimp2p-exp-own-{lab.namespace}"])


def moved(lab: Lab, namespace: str) -> Lab:
    """Change the namespace in lab.yaml and return the changed lab."""
    path = lab.root / "lab.yaml"
    text = path.read_text(encoding="utf-8")
    assert f"namespace: {lab.namespace}" in text
    path.write_text(text.replace(f"namespace: {lab.namespace}", f"namespace: {namespace}"), encoding="utf-8")
    return dataclasses.replace(lab, namespace=namespace)


def members(lab: Lab) -> list[str]:
    """Return all objects in the lab's namespace of the kinds that a sync of experiments writes."""
    kinds = ("ConfigMap", "Service", "StatefulSet", "NetworkPolicy")
    return [f"{kind}/{name}" for kind in kinds for name in lab.names(kind) if name != "kube-root-ca.crt"]


def give_id(lab: Lab, lab_id: str) -> None:
    """Add an id to lab.yaml."""
    path = lab.root / "lab.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("kind: Lab\n", f"kind: Lab\nmetadata: {{id: {lab_id}}}\n"), encoding="utf-8")


def in_git(lab: Lab) -> Lab:
    """Commit the lab to a new Git repository."""
    git(lab.root, "init", "-q", "-b", "main")
    commit(lab, f"lab in {lab.namespace}")
    return lab


@pytest.mark.parametrize("identity", ["Git", "an id", "a folder"])
@pytest.mark.parametrize("committed", [True, False])
def test_sync_to_a_new_namespace_requires_move(
    lab: Lab, elsewhere: str, identity: str, committed: bool
) -> None:
    if identity == "an id":
        give_id(lab, lab.namespace)
    if identity == "Git":
        in_git(lab)
    assert lab.run(*SYNC).code == 0
    before = members(lab)
    new = moved(lab, elsewhere)
    if identity == "Git" and committed:
        commit(new, "move")
    for arguments in (("sync",), ("sync", "--dry-run"), ("sync", "blue"), ("sync", "--allow-older")):
        answer = new.run(*arguments)
        assert answer.code == 1, answer.out
        assert f"this lab was synced to namespace {lab.namespace}" in answer.out
        assert f"StatefulSet/{lab.namespace}/nimp2p-exp-blue" in answer.out, (
            "the plan lists the objects in the former namespace"
        )
        assert "--move" in answer.out
    assert members(lab) == before
    assert new.names("StatefulSet") == []
    dry_run = new.run("sync", "--move", "--dry-run")
    assert dry_run.code == 0, dry_run.out
    assert f"left in namespace {lab.namespace}" in dry_run.out
    assert members(lab) == before
    answer = new.run(*SYNC, "--move")
    assert answer.code == 0, answer.out + answer.err
    assert new.names("StatefulSet") == ["nimp2p-exp-blue", "nimp2p-exp-purple"]
    assert "nimlab-experiments" not in lab.names("ConfigMap")
    assert lab.names("Service") == []
    assert FORMER not in recorded(new)
    assert "0 created" in new.run(*SYNC).out
    back = moved(new, lab.namespace)
    assert f"synced to namespace {elsewhere}" in back.run("sync", "--dry-run").out


def test_incomplete_move_is_completed_by_the_next_move(lab: Lab, elsewhere: str) -> None:
    in_git(lab)
    assert lab.run(*SYNC).code == 0
    lab.kubectl("annotate", "service/nimp2p-exp-blue", "nimlab.dev/protect=true")
    new = moved(lab, elsewhere)
    answer = new.run(*SYNC, "--move")
    assert answer.code == 0, answer.out + answer.err
    assert lab.names("Service") == ["nimp2p-exp-blue"], "a protected object is kept"
    assert recorded(new)[FORMER] == lab.namespace
    answer = new.run("sync", "--dry-run", "--exit-code")
    assert answer.code == 1, "objects of the lab are left behind"
    assert f"Service/{lab.namespace}/nimp2p-exp-blue" in answer.out
    lab.kubectl("annotate", "service/nimp2p-exp-blue", "nimlab.dev/protect-")
    assert new.run(*SYNC, "--move").code == 0
    assert lab.names("Service") == []
    assert FORMER not in recorded(new)
    assert new.run("sync", "--dry-run", "--exit-code").code in (0, 4)


def test_experiment_in_its_own_namespace_moves_without_a_restart(lab: Lab, elsewhere: str) -> None:
    in_git(lab)
    contract = (lab.root / "contracts" / "nimp2p.yaml").read_text(encoding="utf-8")
    (lab.root / "contracts" / "own.yaml").write_text(
        contract.replace("name: nimp2p", "name: own", 1).replace(
            "isolation: label", "isolation: namespace\n  workload: pod\n  service: nimp2p-service"
        ),
        encoding="utf-8",
    )
    blue = (lab.root / "experiments" / "blue.yaml").read_text(encoding="utf-8")
    name = f"own-{lab.namespace}"
    lab.write(name, blue.replace("name: blue", f"name: {name}").replace("contract: nimp2p", "contract: own"))
    commit(lab, "an experiment in its own namespace")
    answer = lab.run(*SYNC)
    assert answer.code == 0, answer.out + answer.err
    namespace = f"nimp2p-exp-{name}"
    workload = lab.get("StatefulSet", "pod", namespace)
    assert workload is not None
    new = moved(lab, elsewhere)
    answer = new.run(*SYNC, "--move", "--max-prune", "100%")
    assert answer.code == 0, answer.out + answer.err
    after = lab.get("StatefulSet", "pod", namespace)
    assert after is not None
    assert after["metadata"]["uid"] == workload["metadata"]["uid"]
    assert after["spec"]["template"] == workload["spec"]["template"]
    assert "0 created" in new.run(*SYNC).out


def test_platform_can_move(lab: Lab, elsewhere: str) -> None:
    in_git(lab)
    assert lab.run("sync", "platform", "--no-wait").code == 0
    new = moved(lab, elsewhere)
    assert f"synced to namespace {lab.namespace}" in new.run("sync", "platform").out
    answer = new.run("sync", "platform", "--no-wait", "--move", "--max-prune", "100%")
    assert answer.code == 0, answer.out + answer.err
    assert lab.names("DaemonSet") == []
    assert new.names("DaemonSet") != []


def another(lab: Lab, tmp_path: Path, *, same_root: bool) -> Lab:
    """Return another lab with the same namespace. If `same_root` is True, it is a fork of the first lab."""
    root = tmp_path / "another" / "lab"
    if same_root:
        root.parent.mkdir()
        git(root.parent, "clone", "-q", lab.root.as_uri(), str(root))
        git(root, "reset", "-q", "--hard", "upstream")
    else:
        make_lab(root, lab.namespace)
        git(root, "init", "-q", "-b", "main")
    other = dataclasses.replace(lab, root=root)
    for name in ("blue", "purple"):
        (root / "experiments" / f"{name}.yaml").unlink()
    blue = (lab.root / "experiments" / "blue.yaml").read_text(encoding="utf-8")
    other.write("green", blue.replace("name: blue", "name: green"))
    commit(other, "another lab")
    return other


@pytest.mark.parametrize("same_root", [True, False], ids=["a fork", "an unrelated repository"])
def test_no_flag_allows_a_sync_to_another_labs_apply_set(lab: Lab, tmp_path: Path, same_root: bool) -> None:
    in_git(lab)
    git(lab.root, "tag", "upstream")
    lab.edit("blue", "peers: ", "peers: 1")
    commit(lab, "our own work")
    assert lab.run(*SYNC).code == 0
    before = (lab.names("StatefulSet"), recorded(lab))
    other = another(lab, tmp_path, same_root=same_root)
    if same_root:
        git(other.root, "remote", "remove", "origin")
        git(other.root, "tag", "-d", "upstream")
        git(other.root, "reflog", "expire", "--expire=now", "--all")
        git(other.root, "gc", "-q", "--prune=now")
    force = ("--allow-older", "--allow-empty", "--max-prune", "100%", "--take-ownership", "--remove-foreign")
    by_name = ("green", *(flag for flag in force if flag != "--allow-empty"))
    for arguments in ((), force, (*force, "--move"), by_name):
        answer = other.run(*SYNC, *arguments)
        assert answer.code == 1, answer.out
        assert "pass `--allow-older`" not in answer.out
        assert "choose another `spec.namespace`" in answer.out
    assert (lab.names("StatefulSet"), recorded(lab)) == before
    give_id(other, "green-lab")
    commit(other, "an id")
    assert other.run(*SYNC, *force).code == 1, (
        "an id in lab.yaml alone does not prove that the apply-set in the cluster belongs to this lab"
    )
    lab.kubectl("annotate", "configmap/nimlab-experiments", f"{LAB}=green-lab")
    assert other.run(*SYNC, *force).code == 0, "with the same id in both places, they are the same lab"


def test_lab_in_another_folder_of_the_repository_is_another_lab(lab: Lab) -> None:
    top = lab.root.parent / "repository"
    (top / "labs").mkdir(parents=True)
    lab.root.rename(top / "labs" / "one")
    inner = dataclasses.replace(lab, root=top / "labs" / "one")
    make_lab(top / "labs" / "two", lab.namespace, experiments=("blue",))
    two = dataclasses.replace(lab, root=top / "labs" / "two")
    git(top, "init", "-q", "-b", "main")
    git(top, "add", "-A")
    git(top, "commit", "-qm", "two labs")
    assert inner.run(*SYNC).code == 0
    answer = two.run(*SYNC, "--allow-older", "--max-prune", "100%")
    assert answer.code == 1
    assert "another lab" in answer.out
    assert "`labs/one`" in answer.out
    assert lab.names("StatefulSet") == ["nimp2p-exp-blue", "nimp2p-exp-purple"]


def test_folder_without_git_prunes_nothing_of_another_folder(lab: Lab, tmp_path: Path) -> None:
    assert lab.run(*SYNC).code == 0
    other = dataclasses.replace(lab, root=make_lab(tmp_path / "other", lab.namespace, experiments=("blue",)))
    answer = other.run(*SYNC)
    assert answer.code == 1, answer.out
    assert "may belong to another lab" in answer.out
    assert lab.names("StatefulSet") == ["nimp2p-exp-blue", "nimp2p-exp-purple"]


def test_manually_changed_record_is_corrected_without_a_pending_change(lab: Lab) -> None:
    in_git(lab)
    assert lab.run(*SYNC).code == 0
    lab.kubectl("annotate", "configmap/nimlab-experiments", f"{BEGUN}=*={'d' * 40},purple={'e' * 40}")
    assert lab.run(*SYNC, "--allow-older").code == 0
    assert BEGUN not in recorded(lab)
    lab.edit("blue", "peers: ", "peers: 1")
    newest = commit(lab, "more peers")
    answer = lab.run(*SYNC)
    assert answer.code == 0, answer.out
    assert recorded(lab)[COMMIT] == newest


def test_saved_plan_of_a_move_is_executed_as_shown(lab: Lab, elsewhere: str, tmp_path: Path) -> None:
    in_git(lab)
    assert lab.run(*SYNC).code == 0
    new = moved(lab, elsewhere)
    file = tmp_path / "plan.json"
    assert new.run("sync", "--dry-run", "--move", "--out", str(file)).code == 0
    changes = json.loads(file.read_text(encoding="utf-8"))["objects"]
    pruned = [change["key"] for change in changes if change["action"] == "prune"]
    assert len(pruned) == 8
    assert new.run(*SYNC, "--plan", str(file)).code == 0
    assert lab.names("Service") == []


def test_move_with_experiment_names_is_a_usage_error(lab: Lab) -> None:
    assert lab.run("sync", "blue", "--move").code == 2


def test_namespace_that_the_credentials_cannot_read_is_reported(
    lab: Lab, elsewhere: str, tmp_path: Path
) -> None:
    in_git(lab)
    assert lab.run(*SYNC).code == 0
    new = moved(lab, elsewhere)
    commit(new, "move")
    reader = dataclasses.replace(new, kubeconfig=account_kubeconfig(new, tmp_path, "nimlab-plan"))
    answer = reader.run("sync", "--dry-run", "--output", "json")
    assert answer.code == 0, answer.out + answer.err
    assert json.loads(answer.out)["unchecked"] == [lab.namespace]
    assert f"not checked namespace {lab.namespace}" in reader.run("sync", "--dry-run").out
