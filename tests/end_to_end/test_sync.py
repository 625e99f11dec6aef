"""Syncs to a real API server: objects are created, repaired, pruned and kept."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nimlab.cluster.interface import Propagation
from nimlab.objects.applyset import ApplySet
from nimlab.objects.manifest import Manifest, ObjectKey
from tests.support.api_proxy import run_proxy
from tests.support.lab import Lab, git, remove_namespaces
from tests.support.paths import REPOSITORY

pytestmark = pytest.mark.live


def synced(lab: Lab, *arguments: str) -> str:
    """Sync, require success, and return stdout."""
    answer = lab.run("sync", *arguments)
    assert answer.code == 0, answer.out + answer.err
    return answer.out


def assert_in_sync(lab: Lab) -> None:
    """Require that a dry run has nothing to do."""
    answer = lab.run("sync", "--dry-run", "--exit-code")
    assert answer.code == 0, answer.out + answer.err


def put(lab: Lab, manifest: Manifest, manager: str) -> Manifest:
    """Apply an object with force, as another field manager."""
    return lab.cluster.apply(manifest, manager=manager, force=True, dry_run=False)


def env_of(lab: Lab, pod: str) -> dict[str, str]:
    live = lab.get("Pod", pod)
    assert live is not None
    return {e["name"]: e["value"] for e in live["spec"]["containers"][0]["env"]}


def test_first_sync_starts_both_experiments(lab: Lab) -> None:
    out = synced(lab)
    assert "9 of 9 peers running" in out
    listed = lab.run("list")
    assert listed.code == 0
    rows = [line.split() for line in listed.out.splitlines()]
    assert rows[0][:5] == ["EXPERIMENT", "FULLNAME", "SCALE", "RUNNING", "STARTED"]
    assert rows[1][:4] == ["blue", "nimp2p-exp-blue", "4", "4"]
    assert rows[2][:4] == ["purple", "nimp2p-exp-purple", "5", "5"]
    assert "in sync" in listed.out
    assert len(lab.names("Pod")) == 9


def test_unchanged_lab_costs_one_list_per_kind_and_no_write(lab: Lab, tmp_path: Path) -> None:
    synced(lab)
    with run_proxy(lab.kubeconfig, tmp_path) as proxy:
        through = Lab(lab.root, lab.namespace, proxy.kubeconfig, lab.cluster, lab.capture)
        assert_in_sync(through)
        assert [request.method for request in proxy.seen] == ["GET"] * len(proxy.seen)
        assert len(proxy.seen) == 2 + 8  # the parent, the lease, and 8 LISTs, one per kind
        proxy.seen.clear()
        assert "0 created, 0 updated" in synced(through)
        assert proxy.writes == []


def test_drift_is_found_and_repaired(lab: Lab) -> None:
    synced(lab)
    lab.kubectl("scale", "statefulset/nimp2p-exp-purple", "--replicas=2")
    lab.kubectl("set", "env", "statefulset/nimp2p-exp-blue", "MSGRATE=1")
    lab.kubectl("delete", "service", "nimp2p-exp-blue")
    lab.kubectl("label", "configmap", "nimp2p-exp-blue-spec", "team=red")
    dry = lab.run("sync", "--dry-run", "--exit-code", "--output", "json")
    assert dry.code == 3
    pending = {(o["key"], o["action"]) for o in json.loads(dry.out)["objects"] if o["action"] != "keep"}
    assert pending == {
        (f"StatefulSet/{lab.namespace}/nimp2p-exp-purple", "update"),
        (f"StatefulSet/{lab.namespace}/nimp2p-exp-blue", "update"),
        (f"Service/{lab.namespace}/nimp2p-exp-blue", "create"),
    }
    synced(lab)
    assert_in_sync(lab)
    config = lab.get("ConfigMap", "nimp2p-exp-blue-spec")
    assert config is not None
    assert config["metadata"]["labels"]["team"] == "red"
    assert env_of(lab, "nimp2p-exp-blue-0")["MSGRATE"] == "2000"


def test_removed_file_prunes_its_objects_but_not_copies_of_them(lab: Lab) -> None:
    synced(lab)
    original = lab.get("ConfigMap", "nimp2p-exp-blue-spec")
    assert original is not None
    copy = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "copy",
            "namespace": lab.namespace,
            "labels": original["metadata"]["labels"],
            "annotations": original["metadata"]["annotations"],
        },
        "data": {"a": "b"},
    }
    lab.cluster.create(copy)
    before = {kind: lab.names(kind) for kind in ("Service", "StatefulSet", "NetworkPolicy")}
    (lab.root / "experiments" / "blue.yaml").unlink()
    out = synced(lab)
    assert "pruned" in out
    for kind, names in before.items():
        assert lab.names(kind) == [name for name in names if "blue" not in name]
    assert "copy" in lab.names("ConfigMap")
    assert "nimp2p-exp-blue-spec" not in lab.names("ConfigMap")
    assert [name for name in lab.names("Pod") if "blue" in name] == []
    assert len(lab.names("Pod")) == 5
    assert_in_sync(lab)


def test_broken_file_blocks_every_prune_and_the_result_is_reported(lab: Lab) -> None:
    synced(lab)
    (lab.root / "experiments" / "blue.yaml").unlink()
    lab.edit("purple", "peers: 5", "peers: 6")
    lab.write("red", "apiVersion: nimlab.dev/v1\nkind: Experiment\n")
    answer = lab.run("sync")
    assert answer.code == 1
    assert "experiments/red.yaml" in answer.err
    assert "red" in answer.out
    assert "never prunes" in answer.out
    assert "nimp2p-exp-blue" in lab.names("StatefulSet")
    assert len([n for n in lab.names("Pod") if "purple" in n]) == 6


def test_new_number_of_peers_reaches_the_environment_of_every_peer(lab: Lab) -> None:
    (lab.root / "experiments" / "purple.yaml").unlink()
    assert lab.run("create", "--name", "purple", "--peers", "5").code == 0
    synced(lab)
    answer = lab.run("scale", "purple", "--peers", "7", "--sync")
    assert answer.code == 0, answer.err
    for number in range(7):
        assert env_of(lab, f"nimp2p-exp-purple-{number}")["PEERS"] == "7"


def test_sync_of_one_experiment_prunes_no_other_experiment(lab: Lab) -> None:
    synced(lab)
    (lab.root / "experiments" / "blue.yaml").unlink()
    lab.edit("purple", "peers: 5", "peers: 6")
    synced(lab, "purple")
    assert "nimp2p-exp-blue" in lab.names("StatefulSet")
    synced(lab, "blue")
    assert "nimp2p-exp-blue" not in lab.names("StatefulSet")
    assert lab.run("sync", "bleu").code == 1


def test_empty_folder_deletes_everything_only_if_allowed(lab: Lab) -> None:
    synced(lab)
    for path in (lab.root / "experiments").iterdir():
        path.unlink()
    answer = lab.run("sync")
    assert answer.code == 1
    assert "--allow-empty" in answer.out
    assert len(lab.names("StatefulSet")) == 2
    answer = lab.run("sync", "--allow-empty", "--max-prune", "100%")
    assert answer.code == 0, answer.out
    assert lab.names("StatefulSet") == []


@pytest.mark.parametrize("limit", ["3", "40%"])
def test_prune_limit_is_enforced(lab: Lab, limit: str) -> None:
    synced(lab)
    (lab.root / "experiments" / "blue.yaml").unlink()
    answer = lab.run("sync", "--max-prune", limit)
    assert answer.code == 1
    assert "limit" in answer.out
    assert "nimp2p-exp-blue" in lab.names("StatefulSet")


def test_renamed_experiments_never_run_together_with_the_old_experiments(lab: Lab) -> None:
    synced(lab)
    folder = lab.root / "experiments"
    for old, new in (("blue", "green"), ("purple", "red")):
        text = (folder / f"{old}.yaml").read_text(encoding="utf-8")
        lab.write(new, text.replace(f"name: {old}", f"name: {new}"))
        (folder / f"{old}.yaml").unlink()
    before = lab.names("StatefulSet")
    dry = lab.run("sync", "--dry-run", "--max-prune", "3", "--output", "json")
    assert dry.code == 1
    document = json.loads(dry.out)
    assert [e["name"] for e in document["experiments"] if e["held"]] == ["green", "red"]
    assert document["summary"]["create"] == 0
    assert document["summary"]["held"] == sum(o["action"] == "create" for o in document["objects"])
    answer = lab.run("sync", "--max-prune", "3")
    assert answer.code == 1
    assert "2 new experiments are not created: green, red" in answer.out
    assert "--max-prune" in answer.out
    assert "--no-prune" in answer.out
    assert lab.names("StatefulSet") == before
    assert lab.names("Service") == before
    run = json.loads(lab.run("sync", "--max-prune", "3", "--output", "json").out)
    assert run["outcomes"]["created"] == 0
    assert run["outcomes"]["failed"] == 0
    synced(lab, "--max-prune", "100%")
    assert lab.names("StatefulSet") == ["nimp2p-exp-green", "nimp2p-exp-red"]


def test_renamed_experiment_is_held_back_while_another_file_is_broken(lab: Lab) -> None:
    synced(lab)
    text = (lab.root / "experiments" / "blue.yaml").read_text(encoding="utf-8")
    lab.write("green", text.replace("name: blue", "name: green"))
    (lab.root / "experiments" / "blue.yaml").unlink()
    lab.write("purple", "kind: [")
    before = lab.names("StatefulSet")
    answer = lab.run("sync")
    assert answer.code == 1
    assert "a new experiment is not created: green" in answer.out
    assert lab.names("StatefulSet") == before


def test_no_prune_keeps_orphans(lab: Lab) -> None:
    synced(lab)
    (lab.root / "experiments" / "blue.yaml").unlink()
    synced(lab, "--no-prune")
    assert "nimp2p-exp-blue" in lab.names("StatefulSet")
    assert "orphaned" in lab.run("list").out


def test_protected_object_is_never_pruned(lab: Lab) -> None:
    synced(lab)
    lab.kubectl("annotate", "configmap", "nimp2p-exp-blue-spec", "nimlab.dev/protect=true")
    (lab.root / "experiments" / "blue.yaml").unlink()
    synced(lab)
    assert "nimp2p-exp-blue-spec" in lab.names("ConfigMap")
    assert "nimp2p-exp-blue" not in lab.names("StatefulSet")


def test_field_that_a_controller_owns_is_a_conflict_and_is_kept(lab: Lab) -> None:
    synced(lab)
    mine = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "nimp2p-exp-purple", "namespace": lab.namespace},
        "spec": {"replicas": 3},
    }
    put(lab, mine, "hpa-controller")
    (lab.root / "experiments" / "blue.yaml").unlink()
    answer = lab.run("sync")
    assert answer.code == 1
    assert "hpa-controller" in answer.out
    assert "spec.replicas" in answer.out
    live = lab.get("StatefulSet", "nimp2p-exp-purple")
    assert live is not None
    assert live["spec"]["replicas"] == 3
    assert "nimp2p-exp-blue" in lab.names("StatefulSet")
    synced(lab, "--take-ownership")
    live = lab.get("StatefulSet", "nimp2p-exp-purple")
    assert live is not None
    assert live["spec"]["replicas"] == 5


def test_object_of_another_manager_is_not_taken_over(lab: Lab) -> None:
    lab.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": lab.namespace}})
    lab.kubectl("create", "service", "clusterip", "nimp2p-exp-blue", "--tcp=80")
    answer = lab.run("sync")
    assert answer.code == 1
    assert "was not created by nimlab" in answer.out
    assert lab.names("StatefulSet") == ["nimp2p-exp-purple"]


def test_many_new_experiments_cost_few_requests(lab: Lab) -> None:
    synced(lab)
    text = (lab.root / "experiments" / "blue.yaml").read_text(encoding="utf-8")
    names = [f"n{number}" for number in range(21)]
    for name in names:
        lab.write(name, text.replace("name: blue", f"name: {name}"))
    lab.kubectl("create", "service", "clusterip", "nimp2p-exp-n7", "--tcp=80")
    match = re.search(r"\((\d+) requests, no writes", lab.run("sync", "--dry-run").out)
    assert match is not None
    assert int(match[1]) <= 16
    plan = json.loads(lab.run("sync", "--dry-run", "--output", "json").out)
    (blocked,) = [o for o in plan["objects"] if "error" in o]
    assert blocked["name"] == "nimp2p-exp-n7"
    assert len([o for o in plan["objects"] if o["action"] == "create"]) >= 60


def test_removed_label_is_restored(lab: Lab) -> None:
    synced(lab)
    part_of = "applyset.kubernetes.io/part-of"
    lab.kubectl("label", "service", "nimp2p-exp-blue", f"{part_of}-")
    assert lab.run("sync", "--dry-run", "--exit-code").code == 3
    synced(lab)
    live = lab.get("Service", "nimp2p-exp-blue")
    assert live is not None
    assert part_of in live["metadata"]["labels"]
    assert_in_sync(lab)


def test_foreign_addition_is_reported_with_its_manager(lab: Lab) -> None:
    synced(lab)
    lab.kubectl("set", "env", "statefulset/nimp2p-exp-blue", "DEBUG=1")
    answer = lab.run("sync", "--dry-run")
    assert "foreign" in answer.out
    assert "env[DEBUG]" in answer.out
    assert "kubectl-set" in answer.out


def test_interrupted_restart_is_completed_by_the_next_sync(lab: Lab) -> None:
    synced(lab)
    key = ObjectKey("StatefulSet", lab.namespace, "nimp2p-exp-purple")
    live = lab.cluster.get(key)
    assert live is not None
    lab.edit("purple", "interval: 2000ms", "interval: 500ms")
    crashed = lab.run("render", "purple", "--output", "json")
    manifest = next(m for m in json.loads(crashed.out) if m["kind"] == "StatefulSet")
    put(lab, manifest, "nimlab")  # simulates a sync that crashed between the apply and the restart
    assert env_of(lab, "nimp2p-exp-purple-0")["MSGRATE"] == "2000"
    synced(lab)
    for number in range(5):
        assert env_of(lab, f"nimp2p-exp-purple-{number}")["MSGRATE"] == "500"
    assert_in_sync(lab)


def test_scaling_down_restarts_only_the_remaining_peers(lab: Lab) -> None:
    synced(lab)
    lab.edit("purple", "peers: 5", "peers: 2")
    (change,) = [
        o
        for o in json.loads(lab.run("sync", "--dry-run", "--output", "json").out)["objects"]
        if o["kind"] == "StatefulSet" and o["action"] == "update"
    ]
    assert change["restarts"] == 2
    answer = lab.run("sync")
    assert "2 peers of the old revision deleted together" in answer.err + answer.out
    assert [env_of(lab, f"nimp2p-exp-purple-{n}")["PEERS"] for n in (0, 1)] == ["2", "2"]
    assert len([p for p in lab.names("Pod") if "purple" in p]) == 2
    assert_in_sync(lab)


def test_immutable_change_replaces_the_object_only_if_allowed(lab: Lab) -> None:
    synced(lab)
    template = lab.root / "templates" / "experiment" / "statefulset.yaml.j2"
    text = template.read_text(encoding="utf-8")
    assert "podManagementPolicy: Parallel" in text
    template.write_text(
        text.replace("podManagementPolicy: Parallel", "podManagementPolicy: OrderedReady"),
        encoding="utf-8",
    )
    answer = lab.run("sync")
    assert answer.code == 1
    assert "podManagementPolicy" in answer.out
    lab.edit("purple", "peers: 5", "peers: 5\n  onImmutableChange: recreate")
    lab.edit("blue", "peers: 4", "peers: 4\n  onImmutableChange: orphan")
    before = lab.get("Pod", "nimp2p-exp-blue-0")
    synced(lab)
    after = lab.get("Pod", "nimp2p-exp-blue-0")
    assert before is not None
    assert after is not None
    assert before["metadata"]["uid"] == after["metadata"]["uid"]
    live = lab.get("StatefulSet", "nimp2p-exp-purple")
    assert live is not None
    assert live["spec"]["podManagementPolicy"] == "OrderedReady"
    assert_in_sync(lab)


def test_missing_image_fails_early_with_the_reason(lab: Lab) -> None:
    lab.edit("blue", "peers: 4", "peers: 4\n  image: katakuri100/nimp2p:no-such-image")
    answer = lab.run("sync", "--timeout", "60s")
    assert answer.code == 4, answer.out
    assert "ImagePullBackOff" in answer.out + answer.err
    assert "no-such-image" in answer.out + answer.err
    shown = lab.run("status", "blue")
    assert "ImagePullBackOff" in shown.out


def test_held_lock_is_respected_and_an_expired_lock_is_acquired(lab: Lab) -> None:
    synced(lab)
    key = ApplySet(name="experiments", namespace=lab.namespace).lease_key
    lease = lab.cluster.get(key)
    assert lease is not None

    def hold(renewed: str) -> None:
        live = lab.cluster.get(key)
        assert live is not None
        spec = {"holderIdentity": "ada", "leaseDurationSeconds": 60, "renewTime": renewed}
        lab.cluster.replace({**live, "spec": spec})

    hold("2999-01-01T00:00:00.000000Z")
    lab.edit("purple", "peers: 5", "peers: 6")
    answer = lab.run("sync")
    assert answer.code == 1
    assert "ada" in answer.err
    hold("2020-01-01T00:00:00.000000Z")
    synced(lab)


def test_older_commit_is_refused(lab: Lab) -> None:
    git(lab.root, "init", "-q", "-b", "main")
    git(lab.root, "add", "-A")
    git(lab.root, "commit", "-qm", "one")
    first = git(lab.root, "rev-parse", "HEAD")
    lab.edit("purple", "peers: 5", "peers: 6")
    git(lab.root, "commit", "-qam", "two")
    synced(lab)
    git(lab.root, "checkout", "-q", first)
    answer = lab.run("sync")
    assert answer.code == 1
    assert "--allow-older" in answer.out
    assert len([n for n in lab.names("Pod") if "purple" in n]) == 6
    synced(lab, "--allow-older")
    assert len([n for n in lab.names("Pod") if "purple" in n]) == 5


def test_forbidden_list_is_an_error_and_prunes_nothing(lab: Lab, tmp_path: Path) -> None:
    synced(lab)
    (lab.root / "experiments" / "blue.yaml").unlink()
    denied: dict[str, Any] = {"kind": "Status", "code": 403, "message": "no", "reason": "Forbidden"}
    with run_proxy(lab.kubeconfig, tmp_path) as proxy:
        proxy.fault = lambda seen: (403, denied) if "/services?" in seen.path else None
        through = Lab(lab.root, lab.namespace, proxy.kubeconfig, lab.cluster, lab.capture)
        answer = through.run("sync")
        assert answer.code == 1
        assert "forbidden" in answer.err
        assert proxy.writes == []


def test_forbidden_list_of_namespaces_is_not_an_empty_list(lab: Lab, tmp_path: Path) -> None:
    """If the parent records a namespace, a sync must read it; otherwise the namespace would look deleted."""
    name = f"go-{secrets.token_hex(3)}"
    head = f"apiVersion: nimlab.dev/v1\nkind: Experiment\nmetadata: {{name: {name}}}\n"
    lab.write(name, head + "spec: {contract: dst-go, peers: 3}\n")
    denied: dict[str, Any] = {"kind": "Status", "code": 403, "message": "no", "reason": "Forbidden"}
    try:
        synced(lab, "--no-wait")
        (lab.root / "experiments" / f"{name}.yaml").unlink()
        with run_proxy(lab.kubeconfig, tmp_path) as proxy:
            proxy.fault = lambda seen: (403, denied) if seen.path.startswith("/api/v1/namespaces?") else None
            answer = replace(lab, kubeconfig=proxy.kubeconfig).run("sync")
            assert answer.code == 1, answer.out
            assert "forbidden" in answer.err
            assert proxy.writes == []
        parent = lab.get("ConfigMap", "nimlab-experiments")
        assert parent is not None
        kinds = parent["metadata"]["annotations"]["applyset.kubernetes.io/contains-group-kinds"]
        assert "Namespace" in kinds.split(",")
    finally:
        remove_namespaces(lab.cluster, [f"nimp2p-exp-{name}"])


def test_sync_waits_for_a_terminating_object(lab: Lab) -> None:
    synced(lab)
    live = lab.get("ConfigMap", "nimp2p-exp-blue-spec")
    assert live is not None
    lab.kubectl("patch", "configmap", "nimp2p-exp-blue-spec", "--type=merge", "-p",
                '{"metadata":{"finalizers":["example.org/hold"]}}')  # fmt: skip
    lab.cluster.delete(
        ObjectKey("ConfigMap", lab.namespace, "nimp2p-exp-blue-spec"),
        uid=live["metadata"]["uid"],
        resource_version=None,
        propagation=Propagation.BACKGROUND,
    )
    answer = lab.run("sync", "--timeout", "1s")
    assert answer.code == 1
    assert "still being deleted" in answer.out
    lab.kubectl("patch", "configmap", "nimp2p-exp-blue-spec", "--type=merge", "-p",
                '{"metadata":{"finalizers":null}}')  # fmt: skip
    synced(lab)
    assert_in_sync(lab)


def test_interrupted_sync_reports_its_changes_and_exits_130(lab: Lab) -> None:
    lab.edit("purple", "cpu: 50m", 'cpu: "900"')  # more than any node provides, so the peers never start
    command = [sys.executable, "-m", "nimlab", "sync", "--lab", str(lab.root)]
    running = subprocess.Popen(
        [*command, "--kubeconfig", str(lab.kubeconfig), "--timeout", "10m"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert running.stderr is not None
    for line in running.stderr:
        if line.startswith("blue") and "settled" in line:
            break
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=30)
    assert running.returncode == 130, out + err
    assert "stopping" in err
    assert "8 created" in out
    lease = lab.get("Lease", "nimlab-experiments")
    assert lease is not None
    assert not lease["spec"].get("holderIdentity")


def test_unschedulable_peers_are_reported_with_the_reason(lab: Lab) -> None:
    lab.edit("purple", "cpu: 50m", 'cpu: "900"')
    answer = lab.run("sync", "--timeout", "4m", "--output", "json")
    assert answer.code == 4, answer.out + answer.err
    (purple,) = [p for p in json.loads(answer.out)["peers"] if p["experiment"] == "purple"]
    assert {trouble["reason"] for trouble in purple["troubles"]} == {"Unschedulable"}
    assert "Insufficient cpu" in purple["troubles"][0]["message"]
    assert purple["waitedSeconds"] < 60


def test_peers_rejected_by_a_quota_are_reported_with_the_reason(lab: Lab) -> None:
    lab.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": lab.namespace}})
    lab.kubectl("create", "quota", "small", "--hard=pods=6")
    answer = lab.run("sync", "--timeout", "60s")
    assert answer.code == 4, answer.out + answer.err
    assert "exceeded quota" in answer.out + answer.err


def test_refused_sync_prints_json_if_requested(lab: Lab) -> None:
    answer = lab.run("sync", "nobody", "--output", "json")
    assert answer.code == 1
    assert json.loads(answer.out)["refusal"]["code"] == "plan"


def test_logs_of_simulated_peers_are_an_error_with_a_hint(lab: Lab) -> None:
    synced(lab)
    answer = lab.run("logs", "blue", "--peer", "0")
    assert answer.code == 1
    assert "Pod/" in answer.err
    assert "simulated nodes have no logs" in answer.err
