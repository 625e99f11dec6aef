"""Execution of a plan in a cluster that other clients change, and the wait for the peers."""

from __future__ import annotations

import ast
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeGuard

import pytest

from nimlab.cluster.apply import (
    ApplyOptions,
    ExperimentSettled,
    ExperimentStuck,
    ObjectDone,
    Outcome,
    PeersProgress,
    WaitTarget,
    execute,
)
from nimlab.cluster.apply.readiness import Readiness, assess_readiness
from nimlab.cluster.apply.wait_for_peers import Pace
from nimlab.cluster.apply.watcher import Watcher
from nimlab.cluster.interface import Listing, Propagation
from nimlab.cluster.observe import observe
from nimlab.errors import Forbidden, PreconditionFailed
from nimlab.files.git_history import Commit
from nimlab.files.spec import OnImmutableChange
from nimlab.objects.applyset import ApplySet, stamp
from nimlab.objects.manifest import Manifest, ObjectKey
from nimlab.plan.change import Action
from nimlab.plan.make_plan import make_plan
from nimlab.plan.snapshot import Desired, Snapshot
from nimlab.report import format_event
from tests.plan.test_make_plan import group, manifest, policy
from tests.support.lab import Lab
from tests.support.paths import REPOSITORY

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
KEY = ObjectKey("StatefulSet", "lab", "red")
SET = ApplySet(name="experiments", namespace="lab")
RED = WaitTarget(experiment="red", workloads=frozenset({KEY}), terminating=frozenset())


def statefulset(wanted: int = 3, **status: Any) -> Manifest:
    """Return a live StatefulSet."""
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "red", "namespace": "lab", "generation": 1, "labels": {"experiment": "red"}},
        "spec": {"replicas": wanted, "updateStrategy": {"type": "OnDelete"}},
        "status": {"observedGeneration": 1, **status},
    }


def pod(number: int, reason: str | None = None, **metadata: Any) -> Manifest:
    """Return a live pod; if a reason is given, its container is waiting for this reason."""
    state = {"waiting": {"reason": reason}} if reason else {"running": {}}
    return {
        "kind": "Pod",
        "metadata": {
            "name": f"red-{number}",
            "namespace": "lab",
            "labels": {"experiment": "red"},
            **metadata,
        },
        "spec": {"containers": [{"name": "c", "image": "a:1"}]},
        "status": {"phase": "Pending", "containerStatuses": [{"name": "c", "state": state}]},
    }


def readiness_of(*objects: Manifest) -> Readiness:
    """Return the readiness after a complete LIST of these objects."""
    readiness = Readiness(SET, listed={"StatefulSet", "Pod"})
    for item in objects:
        readiness.update(item, NOW)
    return readiness


def assessed(readiness: Readiness, waited_s: float = 1, target: WaitTarget = RED) -> Any:
    """Return the event for the experiment after a wait of `waited_s`, with a timeout of one minute."""
    return assess_readiness(target, readiness, NOW, waited_s=waited_s, timeout_s=60)


def test_only_apply_writes_to_the_cluster() -> None:
    """Outside of `apply` and the HTTP client, each apply and patch is a dry run; no other writes exist."""
    folder = REPOSITORY / "nimlab" / "cluster"
    paths = [path for path in folder.rglob("*.py") if path.parent.name not in ("apply", "kube")]
    calls = [node for path in paths for node in ast.walk(ast.parse(path.read_text("utf-8"))) if is_call(node)]
    dry_runs = [keyword.value for call in calls for keyword in call.keywords if keyword.arg == "dry_run"]
    assert dry_runs, "the check must find the dry runs"
    assert all(isinstance(value, ast.Constant) and value.value is True for value in dry_runs)
    methods = {ast.unparse(call.func) for call in calls}
    assert not methods & {f"cluster.{name}" for name in ("create", "replace", "delete")}


def is_call(node: ast.AST) -> TypeGuard[ast.Call]:
    """Return True for a function call."""
    return isinstance(node, ast.Call)


FULL = {"replicas": 3, "readyReplicas": 3, "updatedReplicas": 3}


def test_pods_of_another_lab_with_the_same_experiment_are_ignored() -> None:
    """A watch over all namespaces reports them too."""
    live = statefulset(**{**FULL, "readyReplicas": 0})
    foreign = pod(0, "InvalidImageName", namespace="another-lab")
    assert isinstance(assessed(readiness_of(live, foreign)), PeersProgress)
    assert isinstance(assessed(readiness_of(live, pod(0, "InvalidImageName"))), ExperimentStuck)


def test_there_is_no_event_before_everything_is_listed() -> None:
    assert assess_readiness(RED, Readiness(SET), NOW, waited_s=99, timeout_s=60) is None


def test_event_reports_progress_settlement_or_timeout() -> None:
    assert assessed(readiness_of(statefulset(**FULL))) == ExperimentSettled(
        experiment="red", running=3, after_s=1
    )
    half = readiness_of(statefulset(replicas=2, readyReplicas=1))
    assert assessed(half) == PeersProgress(experiment="red", running=1, wanted=3, leaving=0)
    stuck = assessed(half, waited_s=61)
    assert isinstance(stuck, ExperimentStuck)
    assert stuck.timed_out


def test_remaining_time_is_estimated_from_the_pace_so_far() -> None:
    pace = Pace(since_s=10, missing=1000)
    assert pace.left_s(900, 12) is None  # too early for an estimate
    assert pace.left_s(1000, 60) is None  # no peer has started
    assert pace.left_s(750, 20) == 30
    assert pace.left_s(0, 50) == 0
    progress = PeersProgress(experiment="red", running=250, wanted=1000, leaving=0)
    assert progress == replace(progress, left_s=30), "a new estimate alone is not a new event"
    for left_s, words in (
        (None, "running"),
        (4, "running"),
        (30, "about 30 s left"),
        (150, "about 2 min left"),
    ):
        line = format_event(replace(progress, left_s=left_s), paint=False)
        assert line is not None
        assert line.endswith(words)
    line = format_event(
        PeersProgress(experiment="red", running=9, wanted=0, leaving=9, left_s=20), paint=False
    )
    assert line is not None
    assert line.endswith("9 peers left to delete, about 20 s left")


def test_outdated_and_surplus_peers_are_awaited() -> None:
    assert isinstance(assessed(readiness_of(statefulset(**{**FULL, "updatedReplicas": 2}))), PeersProgress)
    assert isinstance(assessed(readiness_of(statefulset(wanted=2, **FULL))), PeersProgress)


def test_fatal_trouble_ends_the_wait_and_transient_trouble_does_not() -> None:
    half = statefulset(replicas=3, readyReplicas=2)
    stuck = assessed(readiness_of(half, pod(0, "ImagePullBackOff")))
    assert isinstance(stuck, ExperimentStuck)
    assert [t.reason for t in stuck.troubles] == ["ImagePullBackOff"]
    assert isinstance(assessed(readiness_of(half, pod(0, "ErrImagePull"))), PeersProgress)
    leaving = pod(0, "ImagePullBackOff", deletionTimestamp="2026-01-01T00:00:00Z")
    assert isinstance(assessed(readiness_of(half, leaving)), PeersProgress)
    recovered = readiness_of(half, pod(0, "ImagePullBackOff"), pod(0))
    assert isinstance(assessed(recovered), PeersProgress)
    deleted = readiness_of(half, pod(0, "ImagePullBackOff"))
    deleted.remove(pod(0))
    assert isinstance(assessed(deleted), PeersProgress)


def test_trouble_becomes_fatal_after_its_grace_period_without_an_event() -> None:
    unscheduled = pod(0)
    unscheduled["status"] = {
        "phase": "Pending",
        "conditions": [
            {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": "Insufficient cpu",
                "lastTransitionTime": NOW.isoformat(),
            }
        ],
    }
    readiness = readiness_of(statefulset(replicas=3), unscheduled)
    assert isinstance(assessed(readiness), PeersProgress)
    later = assess_readiness(RED, readiness, NOW + timedelta(seconds=16), waited_s=16, timeout_s=60)
    assert isinstance(later, ExperimentStuck)
    assert not later.timed_out


def rejection_event(at: datetime) -> Manifest:
    """Return the event of a StatefulSet whose pods are rejected."""
    return {
        "involvedObject": {"kind": "StatefulSet", "namespace": "lab", "name": "red"},
        "reason": "FailedCreate",
        "type": "Warning",
        "message": "create Pod red-0 in StatefulSet red failed error: exceeded quota: q",
        "lastTimestamp": at.isoformat(),
    }


def test_rejected_pods_end_the_wait_after_a_grace_period() -> None:
    readiness = readiness_of(statefulset())
    readiness.record_rejection(rejection_event(NOW), NOW - timedelta(seconds=11))
    stuck = assessed(readiness)
    assert isinstance(stuck, ExperimentStuck)
    assert "exceeded quota" in stuck.troubles[0].message
    secret = statefulset()
    env = [{"name": "API_TOKEN", "value": "exceeded"}]
    secret["spec"]["template"] = {"spec": {"containers": [{"name": "c", "env": env}]}}
    readiness.update(secret, NOW)
    redacted = assessed(readiness)
    assert isinstance(redacted, ExperimentStuck)
    assert "(hidden) quota" in redacted.troubles[0].message
    fresh = readiness_of(statefulset())
    fresh.record_rejection(rejection_event(NOW), NOW)
    assert isinstance(assessed(fresh), PeersProgress)
    old = readiness_of(statefulset())
    old.record_rejection(rejection_event(NOW - timedelta(minutes=5)), NOW - timedelta(seconds=11))
    assert isinstance(assessed(old), PeersProgress)


def test_pruned_workloads_and_namespaces_are_awaited_until_deleted() -> None:
    namespace = ObjectKey("Namespace", "", "n")
    target = WaitTarget(experiment="red", workloads=frozenset(), terminating=frozenset({KEY, namespace}))
    readiness = readiness_of(statefulset(wanted=0, replicas=2))
    assert assessed(readiness, target=target) is None, "the namespace has not been listed"
    readiness.record_terminating("Namespace", [{"kind": "Namespace", "metadata": {"name": "n"}}])
    progress = assessed(readiness, target=target)
    assert isinstance(progress, PeersProgress)
    assert progress.leaving == 2
    readiness.remove(statefulset())
    assert isinstance(assessed(readiness, target=target), PeersProgress)
    readiness.record_terminating("Namespace", ())
    assert isinstance(assessed(readiness, target=target), ExperimentSettled)


def test_new_list_replaces_the_known_objects() -> None:
    readiness = readiness_of(statefulset(**FULL), pod(0, "CrashLoopBackOff"))
    readiness.clear("Pod", "lab")
    assert not any(readiness.troubled.values())
    readiness.clear("StatefulSet", "elsewhere")
    assert KEY in readiness.workloads


@pytest.mark.live
def test_after_stop_no_further_object_is_written(lab: Lab) -> None:
    lab.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": lab.namespace}})
    apply_set = ApplySet(name="experiments", namespace=lab.namespace)
    wanted = manifest("ConfigMap", "a", "red")
    wanted["metadata"]["namespace"] = lab.namespace
    snapshot = Snapshot(
        apply_set=apply_set, parent=None, lease=None, namespace_exists=True, live={}, predicted={}
    )
    plan = make_plan([group("red", wanted)], snapshot, policy())
    stop = threading.Event()
    stop.set()
    options = ApplyOptions(parallel=2, take_ownership=False, timeout_s=5, version="0")
    events = list(execute(plan, lab.cluster, options, stop=stop))
    assert [event.outcome for event in events if isinstance(event, ObjectDone)] == [Outcome.NOT_ATTEMPTED]
    assert set(lab.names("ConfigMap")) - {"kube-root-ca.crt"} == {"nimlab-experiments"}


def config_map(lab: Lab, **data: str) -> Manifest:
    """Return a ConfigMap of the experiment red, with nimlab's labels, in the lab's namespace."""
    plain = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "a", "namespace": lab.namespace, "labels": {"experiment": "red"}},
        "data": data,
    }
    return stamp(plain, ApplySet(name="experiments", namespace=lab.namespace))


def recreate(lab: Lab, *, with_proofs: bool) -> None:
    """Delete the ConfigMap, and write a new ConfigMap with the same name and labels.

    If `with_proofs` is True, the new ConfigMap is applied as nimlab. Otherwise, it is created by a POST, so
    that it does not have all proofs.
    """
    key = ObjectKey("ConfigMap", lab.namespace, "a")
    live = lab.cluster.get(key)
    assert live is not None
    uid = live["metadata"]["uid"]
    lab.cluster.delete(key, uid=uid, resource_version=None, propagation=Propagation.BACKGROUND)
    if with_proofs:
        lab.cluster.apply(config_map(lab, annotations="yes"), manager="nimlab", force=False, dry_run=False)
    else:
        lab.cluster.create(config_map(lab, annotations="yes"))


@pytest.mark.live
@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("with_proofs", [True, False])
def test_object_recreated_after_the_plan_is_not_touched(lab: Lab, wanted: bool, with_proofs: bool) -> None:
    """An update or a prune changes only the object with the planned uid."""
    lab.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": lab.namespace}})
    apply_set = ApplySet(name="experiments", namespace=lab.namespace)
    lab.cluster.apply(config_map(lab, ours="1"), manager="nimlab", force=False, dry_run=False)
    desired = [group("red", config_map(lab, ours="2"))] if wanted else []
    snapshot = observe(
        lab.cluster, desired, apply_set, take_ownership=False, remove_foreign=False, parallel=2
    )
    plan = make_plan(desired, snapshot, policy(allow_empty=True))
    assert [change.action for change in plan.changes] == [Action.UPDATE if wanted else Action.PRUNE]
    recreate(lab, with_proofs=with_proofs)
    options = ApplyOptions(parallel=2, take_ownership=True, timeout_s=5, version="0")
    events = list(execute(plan, lab.cluster, options, stop=threading.Event()))
    assert [event.outcome for event in events if isinstance(event, ObjectDone)] == [Outcome.FAILED]
    live = lab.cluster.get(ObjectKey("ConfigMap", lab.namespace, "a"))
    assert live is not None
    assert live["data"] == {"annotations": "yes"}


@pytest.mark.live
@pytest.mark.parametrize("annotations", [{"nimlab.dev/commit": "f" * 40}, {"a-note": "for all"}])
def test_sync_replaces_only_its_own_record_on_the_parent(lab: Lab, annotations: dict[str, str]) -> None:
    lab.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": lab.namespace}})
    apply_set = ApplySet(name="experiments", namespace=lab.namespace)
    desired = [group("red", config_map(lab))]
    snapshot = observe(
        lab.cluster, desired, apply_set, take_ownership=False, remove_foreign=False, parallel=2
    )
    head = Commit(sha="a" * 40, branch="main", dirty=False)
    plan = make_plan(desired, snapshot, policy(commit=head))
    options = ApplyOptions(parallel=2, take_ownership=False, timeout_s=5, version="0")
    run = execute(plan, lab.cluster, options, stop=threading.Event())
    next(run)
    written = lab.cluster.get(apply_set.parent_key)
    assert written is not None
    written["metadata"]["annotations"] |= annotations
    lab.cluster.replace(written)
    if "a-note" in annotations:
        list(run)
        parent = lab.cluster.get(apply_set.parent_key)
        assert parent is not None
        assert (
            parent["metadata"]["annotations"].items()
            >= {"nimlab.dev/commit": head.sha, **annotations}.items()
        )
    else:
        with pytest.raises(PreconditionFailed):
            list(run)


@pytest.mark.live
def test_failed_apply_withholds_all_prunes(lab: Lab) -> None:
    lab.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": lab.namespace}})
    apply_set = ApplySet(name="experiments", namespace=lab.namespace)
    lab.cluster.apply(config_map(lab, ours="1"), manager="nimlab", force=False, dry_run=False)
    bad = config_map(lab)
    bad["metadata"] = {**bad["metadata"], "name": "b"}
    bad["metadata"]["labels"] = {**bad["metadata"]["labels"], "experiment": "blue"}
    bad["spec"] = {"no": "such field"}
    desired = [group("blue", bad)]
    snapshot = observe(
        lab.cluster, desired, apply_set, take_ownership=False, remove_foreign=False, parallel=2
    )
    plan = make_plan(desired, snapshot, policy())
    options = ApplyOptions(parallel=2, take_ownership=False, timeout_s=5, version="0")
    events = list(execute(plan, lab.cluster, options, stop=threading.Event()))
    outcomes = {event.key.name: event.outcome for event in events if isinstance(event, ObjectDone)}
    assert outcomes == {"b": Outcome.FAILED, "a": Outcome.NOT_ATTEMPTED}
    assert "a" in lab.names("ConfigMap")


def run_plan(lab: Lab, desired: Desired, change: Callable[[], None], **options: Any) -> list[ObjectDone]:
    """Observe and plan, call `change` to change the cluster, then execute the plan."""
    apply_set = ApplySet(name="experiments", namespace=lab.namespace)
    snapshot = observe(
        lab.cluster,
        [desired],
        apply_set,
        **{"take_ownership": False, "remove_foreign": False, **options},
        parallel=2,
    )
    plan = make_plan([desired], snapshot, policy())
    change()
    apply_options = ApplyOptions(parallel=2, take_ownership=False, timeout_s=5, version="0")
    events = execute(plan, lab.cluster, apply_options, stop=threading.Event())
    return [event for event in events if isinstance(event, ObjectDone)]


def workload_of(lab: Lab, **spec: Any) -> Manifest:
    """Return a StatefulSet of the lab, with nimlab's labels and without peers."""
    pod = {"containers": [{"name": "c", "image": "a:1", "env": [{"name": "OURS", "value": "1"}]}]}
    plain = manifest("StatefulSet", "red", "red")
    plain["metadata"] |= {"namespace": lab.namespace}
    plain["spec"] = {
        "replicas": 0,
        "serviceName": "red",
        "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "OnDelete"},
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod},
        **spec,
    }
    return stamp(plain, ApplySet(name="experiments", namespace=lab.namespace))


def env_names(lab: Lab) -> list[str]:
    """Return the names of the workload's environment variables."""
    live = lab.get("StatefulSet", "red")
    assert live is not None
    return [variable["name"] for variable in live["spec"]["template"]["spec"]["containers"][0]["env"]]


@pytest.mark.live
def test_foreign_fields_are_removed_by_name_even_if_their_index_has_changed(lab: Lab) -> None:
    lab.kubectl("create", "namespace", lab.namespace)
    desired = workload_of(lab)
    lab.cluster.apply(desired, manager="nimlab", force=False, dry_run=False)
    path = "/spec/template/spec/containers/0/env"

    def add(name: str, index: str) -> None:
        patch = [{"op": "add", "path": f"{path}/{index}", "value": {"name": name, "value": "x"}}]
        lab.kubectl(
            "patch", "statefulset/red", "--type=json", f"--field-manager={name}", "-p", json.dumps(patch)
        )

    add("planned", "-")
    done = run_plan(lab, group("red", desired), lambda: add("later", "0"), remove_foreign=True)
    assert [event.outcome for event in done] == [Outcome.UPDATED]
    assert sorted(env_names(lab)) == ["OURS", "later"]


@pytest.mark.live
def test_object_created_after_the_plan_is_not_overwritten(lab: Lab) -> None:
    lab.kubectl("create", "namespace", lab.namespace)
    desired = config_map(lab, ours="1")

    def create() -> None:
        lab.kubectl("create", "configmap", "a", "--from-literal=annotations=1")

    done = run_plan(lab, group("red", desired), create)
    assert [event.outcome for event in done] == [Outcome.FAILED]
    live = lab.get("ConfigMap", "a")
    assert live is not None
    assert live["data"] == {"annotations": "1"}


@pytest.mark.live
@pytest.mark.parametrize("case", ["rejected", "changed"])
def test_replacement_that_became_invalid_after_the_plan_deletes_nothing(lab: Lab, case: str) -> None:
    """In one case the server rejects the new object; in the other, the old object changed after the plan."""
    lab.kubectl("create", "namespace", lab.namespace)
    lab.cluster.apply(workload_of(lab), manager="nimlab", force=False, dry_run=False)
    before = lab.get("StatefulSet", "red")
    assert before is not None
    desired = workload_of(lab, podManagementPolicy="OrderedReady")

    def interfere() -> None:
        if case == "rejected":
            desired["spec"]["template"]["spec"]["dnsPolicy"] = "Never"
        else:
            lab.kubectl("scale", "statefulset/red", "--replicas=1")

    done = run_plan(lab, group("red", desired, how=OnImmutableChange.RECREATE), interfere)
    assert [event.outcome for event in done] == [Outcome.FAILED]
    after = lab.get("StatefulSet", "red")
    assert after is not None
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert not after["metadata"].get("deletionTimestamp")


class NamespacedOnly:
    """A connection to the cluster that rejects LISTs over all namespaces and delays LISTs in `late`."""

    def __init__(self, lab: Lab, late: str) -> None:
        self.lab, self.late, self.released = lab, late, threading.Event()

    def pages(self, kind: str, *, namespace: str | None, **how: Any) -> Iterator[Listing]:
        """Reject a LIST over all namespaces; delay the LIST in the namespace `late`."""
        if namespace is None:
            raise Forbidden("list: forbidden in all namespaces", where=kind)
        if namespace == self.late:
            assert self.released.wait(60)
        return self.lab.cluster.pages(kind, namespace=namespace, **how)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.lab.cluster, name)


@pytest.mark.live
def test_kind_counts_as_listed_only_after_the_lists_of_all_namespaces(lab: Lab) -> None:
    late = f"{lab.namespace}-late"
    keys = [ObjectKey("StatefulSet", namespace, "red") for namespace in (lab.namespace, late)]
    targets = [WaitTarget(experiment="red", workloads=frozenset(), terminating=frozenset(keys))]
    apply_set = ApplySet(name="experiments", namespace=lab.namespace)
    cluster, readiness = NamespacedOnly(lab, late), Readiness(apply_set)

    with Watcher(cluster, targets, apply_set) as watcher:
        for _ in range(10):  # long enough for the LIST that is not delayed
            watcher.drain(readiness, NOW)
        assert assess_readiness(targets[0], readiness, NOW, waited_s=1, timeout_s=60) is None
        cluster.released.set()
        deadline_s = time.monotonic() + 30
        while "StatefulSet" not in readiness.listed and time.monotonic() < deadline_s:
            watcher.drain(readiness, NOW)
        assert isinstance(
            assess_readiness(targets[0], readiness, NOW, waited_s=1, timeout_s=60), ExperimentSettled
        )
