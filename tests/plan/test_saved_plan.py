"""Saved plans are executed exactly as saved, or not at all. The JSON of plans conforms to its schema."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from nimlab.errors import PlanError
from nimlab.objects.manifest import Manifest
from nimlab.plan.make_plan import make_plan
from nimlab.plan.saved_plan import ClusterIdentity, SavedPlan, differences_since, saved_plan_of
from nimlab.plan.sync_policy import SyncPolicy
from nimlab.sandbox.wait_until import wait_until
from nimlab.workflow.read_write_plan_file import identity_of
from tests.plan.test_make_plan import group, live_of, manifest, parent, policy, snapshot, workload
from tests.support.api_proxy import run_proxy
from tests.support.golden import GOLDEN
from tests.support.lab import Lab, git
from tests.support.paths import REPOSITORY

SCHEMA = json.loads((REPOSITORY / "schema" / "plan.schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


@pytest.mark.parametrize(
    "path", sorted([*GOLDEN.glob("report/*/plan.json"), *GOLDEN.glob("report/*/run.json")]), ids=str
)
def test_every_golden_plan_and_run_conforms_to_the_schema(path: Path) -> None:
    VALIDATOR.validate(json.loads(path.read_text(encoding="utf-8")))


def test_schema_is_strict_and_the_docs_describe_every_key() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    text = (REPOSITORY / "docs" / "plan-json.md").read_text(encoding="utf-8")
    objects = SCHEMA["$defs"]["object"]["properties"]
    missing = [name for name in {**SCHEMA["properties"], **objects} if f"`{name}`" not in text]
    assert missing == []
    good = json.loads((GOLDEN / "report" / "engineer" / "plan.json").read_text(encoding="utf-8"))
    for bad in ({**good, "more": 1}, {**good, "schemaVersion": 2}, {**good, "outcomes": {}}):
        assert not VALIDATOR.is_valid(bad)


@pytest.mark.parametrize(
    "document", [None, 1, [], {}, {"binding": {}}, {"binding": {"options": {"names": 1}}}]
)
def test_error_for_a_document_that_is_not_a_saved_plan_names_the_file(document: Any) -> None:
    with pytest.raises(PlanError) as caught:
        SavedPlan.from_json(document, "plan.json")
    assert caught.value.where == "plan.json"
    assert "--out" in str(caught.value.hint)


def saved_with_token(value: str, peers: int = 3) -> SavedPlan:
    """Return a saved plan whose live and desired objects contain a secret value."""
    wanted = workload("red", peers)
    wanted["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "API_TOKEN", "value": value}]
    return saved_plan(wanted, live_of(wanted))


def saved_plan(wanted: Manifest, live: Manifest, commit: str | None = None) -> SavedPlan:
    """Return a saved plan with one object."""
    plan = make_plan([group("red", wanted)], snapshot(live, parent=parent(commit)), policy())
    here = ClusterIdentity(object="Namespace/kube-system", id="1")
    return saved_plan_of(plan, SyncPolicy(), "nimlab/0", cluster=here, salt="5a17")


def test_digests_reveal_only_that_a_masked_value_has_changed() -> None:
    first, second = saved_with_token("hunter1"), saved_with_token("hunter2")
    assert first.objects == second.objects
    assert first == saved_with_token("hunter1")
    (difference,) = differences_since(first, second)
    assert "a masked value" in difference
    assert first.hidden not in (None, second.hidden)
    assert not any(
        "a masked value" in word for word in differences_since(first, saved_with_token("hunter2", peers=4))
    )
    salted = replace(first, salt="beef", hidden=None)
    assert "hunter" not in json.dumps(salted.to_json()), "the JSON contains no secret"


def test_masked_values_of_secrets_have_a_digest_and_plain_objects_have_none() -> None:
    def with_secret(value: str) -> SavedPlan:
        secret = manifest("Secret", "red", "red", data={"a": value})
        return saved_plan(secret, live_of(secret))

    assert with_secret("aHVudGVy").objects == with_secret("MHVudGVy").objects
    assert with_secret("aHVudGVy").hidden != with_secret("MHVudGVy").hidden
    plain = manifest("ConfigMap", "red", "red", data={"a": "b"})
    assert saved_plan(plain, live_of(plain)).hidden is None


def test_plan_is_valid_only_for_its_cluster_and_last_synced_commit() -> None:
    wanted = workload("red")
    now = saved_plan(wanted, live_of(wanted), commit="a" * 40)
    (difference,) = differences_since(saved_plan(wanted, live_of(wanted), commit="b" * 40), now)
    assert difference == "commit aaaaaaa has been synced since"
    for other in ({"object": "Namespace/kube-system", "id": "2"}, {"object": None, "id": "https://x"}):
        (difference,) = differences_since(replace(now, cluster=ClusterIdentity(**other)), now)
        assert difference.startswith("it was made for another cluster: ")
        assert str(other["id"]) in difference


def test_updates_by_controllers_do_not_invalidate_a_plan() -> None:
    wanted = workload("red")
    live = live_of(wanted)
    later = live_of(wanted, readyReplicas=0)
    later["metadata"]["resourceVersion"] = "8"
    assert saved_plan(wanted, later) == saved_plan(wanted, live)
    later["metadata"]["generation"] = 2
    assert saved_plan(wanted, later) != saved_plan(wanted, live)


def test_any_update_of_an_object_without_a_status_invalidates_a_plan() -> None:
    wanted = manifest("ConfigMap", "red", "red", data={"a": "b"})
    later = live_of(wanted)
    later["metadata"]["resourceVersion"] = "8"
    assert saved_plan(wanted, later) != saved_plan(wanted, live_of(wanted))


def test_plan_that_would_restart_more_peers_than_shown_is_invalid() -> None:
    wanted = workload("red")
    now = saved_plan(wanted, live_of(workload("red", peers=5)))
    (key,) = now.objects
    more = replace(now, objects={key: replace(now.objects[key], restarts=2)})
    assert differences_since(now, more) == (f"{key}: 2 peers would restart, not 0",)
    assert differences_since(more, now) == (), "fewer peers run than when the plan was made"


def test_saved_plan_is_unchanged_after_writing_and_reading_json() -> None:
    original = saved_with_token("x")
    text = json.dumps({"binding": original.to_json()})
    assert SavedPlan.from_json(json.loads(text), "plan.json") == original


def saved(lab: Lab, *arguments: str) -> Path:
    """Save a plan and return its file."""
    path = lab.root.parent / "plan.json"
    answer = lab.run("sync", "--dry-run", "--out", str(path), *arguments)
    assert answer.code == 0, answer.out + answer.err
    VALIDATOR.validate(json.loads(path.read_text(encoding="utf-8")))
    return path


@pytest.mark.live
def test_saved_plan_is_executed_as_it_was_shown(lab: Lab) -> None:
    assert lab.run("sync").code == 0
    (lab.root / "experiments" / "blue.yaml").unlink()
    lab.edit("purple", "peers: 5", "peers: 6")
    path = saved(lab, "--max-prune", "100%")
    document = json.loads(path.read_text(encoding="utf-8"))
    answer = lab.run("sync", "--plan", str(path), "--output", "json", "--timeout", "60s")
    assert answer.code == 0, answer.out + answer.err
    run = json.loads(answer.out)
    VALIDATOR.validate(run)
    done = {"create": "created", "update": "updated", "prune": "pruned", "keep": "unchanged"}
    assert [(o["key"], o["outcome"]) for o in run["objects"]] == [
        (o["key"], done[o["action"]]) for o in document["objects"]
    ]
    assert lab.run("sync", "--dry-run", "--exit-code").code == 0
    again = lab.run("sync", "--plan", str(path))
    assert again.code == 1
    assert "no longer valid" in again.err


def scale_by_hand(lab: Lab) -> None:
    lab.kubectl("scale", "statefulset/nimp2p-exp-blue", "--replicas=2")


def delete_object(lab: Lab) -> None:
    lab.kubectl("delete", "configmap", "nimp2p-exp-blue-spec")


def sync_again(lab: Lab) -> None:
    assert lab.run("sync").code == 0


def add_commit(lab: Lab) -> None:
    git(lab.root, "commit", "-q", "--allow-empty", "-m", "two")


def edit_file(lab: Lab) -> None:
    lab.edit("purple", "peers: 6", "peers: 7")


def change_tool(lab: Lab) -> None:
    path = lab.root.parent / "plan.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document["binding"]["tool"] = "nimlab/0.0"
    path.write_text(json.dumps(document), encoding="utf-8")


@pytest.mark.live
@pytest.mark.parametrize(
    ("interfere", "word"),
    [
        (scale_by_hand, "nimp2p-exp-blue has changed in the cluster"),
        (delete_object, "nimp2p-exp-blue-spec has changed in the cluster"),
        (sync_again, "has changed in the cluster"),
        (add_commit, "at commit"),
        (edit_file, "has changed in the files"),
        (change_tool, "made by nimlab/0.0"),
    ],
)
def test_plan_that_is_no_longer_valid_writes_nothing(
    lab: Lab, tmp_path: Path, interfere: Callable[[Lab], None], word: str
) -> None:
    git(lab.root, "init", "-q", "-b", "main")
    git(lab.root, "add", "-A")
    git(lab.root, "commit", "-qm", "one")
    assert lab.run("sync").code == 0
    lab.edit("purple", "peers: 5", "peers: 6")
    path = saved(lab)
    interfere(lab)
    with run_proxy(lab.kubeconfig, tmp_path) as proxy:
        through = Lab(lab.root, lab.namespace, proxy.kubeconfig, lab.cluster, lab.capture)
        answer = through.run("sync", "--plan", str(path))
        assert answer.code == 1
        assert word in answer.err
        assert proxy.writes == []


def test_saved_plan_rejects_options_that_would_change_it(lab: Lab) -> None:
    assert lab.run("sync", "--dry-run", "--take-ownership", "blue", "--out", "no/such/folder/x").code == 1
    path = saved(lab, "--max-prune", "3", "blue")
    for option in ("--no-prune", "--take-ownership", "--allow-empty", "--dry-run", "purple"):
        answer = lab.run("sync", "--plan", str(path), option)
        assert answer.code == 2, option
    assert lab.run("sync", "--out", str(path)).code == 2
    assert lab.run("sync", "--plan", str(path)).code == 0
    assert lab.names("StatefulSet") == ["nimp2p-exp-blue"]


@pytest.mark.live
def test_plan_that_only_creates_is_invalid_in_another_cluster(lab: Lab, tmp_path: Path) -> None:
    """No object of the plan exists yet, so only the identity of the cluster can make the plan invalid."""
    path = saved(lab)
    bound_to = json.loads(path.read_text(encoding="utf-8"))["binding"]["cluster"]
    assert bound_to["object"] == "Namespace/kube-system"
    lab.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": lab.namespace}})
    # a controller creates this ConfigMap in every namespace
    assert wait_until(lambda: lab.get("ConfigMap", "kube-root-ca.crt") is not None, within_s=10)
    later = saved(lab)
    document = json.loads(later.read_text(encoding="utf-8"))
    assert document["binding"]["cluster"]["object"] == f"ConfigMap/{lab.namespace}/kube-root-ca.crt"
    for at in ("object", "id"):
        other = json.loads(json.dumps(document))
        other["binding"]["cluster"][at] = "x"
        path.write_text(json.dumps(other), encoding="utf-8")
        refused = lab.run("sync", "--plan", str(path))
        assert refused.code == 1
        assert "another cluster" in refused.err
    address = ClusterIdentity(object=None, id=lab.cluster.host)
    assert identity_of(lab.cluster, lab.namespace, like=address) == address
    later.write_text(json.dumps(document), encoding="utf-8")
    with run_proxy(lab.kubeconfig, tmp_path) as proxy:
        through = replace(lab, kubeconfig=proxy.kubeconfig)
        assert through.run("sync", "--no-wait", "--plan", str(later)).code == 0


@pytest.mark.live
def test_saved_plan_contains_no_secret(lab: Lab) -> None:
    assert lab.run("sync").code == 0
    lab.kubectl("set", "env", "statefulset/nimp2p-exp-blue", "API_TOKEN=hunter2")
    assert "hunter2" not in saved(lab).read_text(encoding="utf-8")
