"""What waiting makes of what it sees, and a plan that is told to stop."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

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
from nimlab.cluster.apply.readiness import Readiness, judge
from nimlab.cluster.apply.wait_for_peers import Pace
from nimlab.cluster.apply.watcher import Watcher
from nimlab.cluster.observe import observe
from nimlab.cluster.port import Listing, Propagation
from nimlab.errors import Forbidden, PreconditionFailed
from nimlab.files.git import Commit
from nimlab.files.spec import OnImmutableChange
from nimlab.objects.applyset import ApplySet, stamp
from nimlab.objects.manifest import Manifest, ObjectKey
from nimlab.plan.change import Action
from nimlab.plan.make_plan import make_plan
from nimlab.plan.snapshot import Desired, Snapshot
from nimlab.report import format_event
from tests.plan.test_make_plan import group, manifest, policy
from tests.support.lab import Lab

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
KEY = ObjectKey("StatefulSet", "lab", "red")
SET = ApplySet(name="experiments", namespace="lab")
RED = WaitTarget(experiment="red", workloads=frozenset({KEY}), leaving=frozenset())


def statefulset(wanted: int = 3, **status: Any) -> Manifest:
    """A live StatefulSet."""
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "red", "namespace": "lab", "generation": 1, "labels": {"experiment": "red"}},
        "spec": {"replicas": wanted, "updateStrategy": {"type": "OnDelete"}},
        "status": {"observedGeneration": 1, **status},
    }


def pod(number: int, reason: str | None = None, **metadata: Any) -> Manifest:
    """A live pod, perhaps one that waits for a reason."""
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


def board(*objects: Manifest) -> Readiness:
    """A board on which everything has been listed."""
    found = Readiness(SET, listed={"StatefulSet", "Pod"})
    for item in objects:
        found.put(item, NOW)
    return found


def judged(found: Readiness, waited_s: float = 1, one: WaitTarget = RED) -> Any:
    """How the experiment stands after some time, with a minute to wait."""
    return judge(one, found, NOW, waited_s=waited_s, timeout_s=60)


FULL = {"replicas": 3, "readyReplicas": 3, "updatedReplicas": 3}


def test_nothing_is_said_before_everything_was_listed() -> None:
    assert judge(RED, Readiness(SET), NOW, waited_s=99, timeout_s=60) is None


def test_settled_progress_and_timeout() -> None:
    assert judged(board(statefulset(**FULL))) == ExperimentSettled(experiment="red", running=3, after_s=1)
    half = board(statefulset(replicas=2, readyReplicas=1))
    assert judged(half) == PeersProgress(experiment="red", running=1, wanted=3, leaving=0)
    stuck = judged(half, waited_s=61)
    assert isinstance(stuck, ExperimentStuck)
    assert stuck.timed_out


def test_how_long_it_still_takes_is_told_by_the_pace_so_far() -> None:
    pace = Pace(since_s=10, missing=1000)
    assert pace.left_s(900, 12) is None  # too early to tell
    assert pace.left_s(1000, 60) is None  # none has come
    assert pace.left_s(750, 20) == 30
    assert pace.left_s(0, 50) == 0
    progress = PeersProgress(experiment="red", running=250, wanted=1000, leaving=0)
    assert progress == replace(progress, left_s=30), "a new estimate alone is no news"
    for left_s, words in (
        (None, "running"),
        (4, "running"),
        (30, "about 30 s left"),
        (150, "about 2 min left"),
    ):
        said = format_event(replace(progress, left_s=left_s), paint=False)
        assert said is not None
        assert said.endswith(words)
    said = format_event(
        PeersProgress(experiment="red", running=9, wanted=0, leaving=9, left_s=20), paint=False
    )
    assert said is not None
    assert said.endswith("9 peers left to delete, about 20 s left")


def test_old_peers_and_surplus_peers_are_waited_for() -> None:
    assert isinstance(judged(board(statefulset(**{**FULL, "updatedReplicas": 2}))), PeersProgress)
    assert isinstance(judged(board(statefulset(wanted=2, **FULL))), PeersProgress)


def test_fatal_trouble_ends_the_waiting_and_passing_trouble_does_not() -> None:
    half = statefulset(replicas=3, readyReplicas=2)
    stuck = judged(board(half, pod(0, "ImagePullBackOff")))
    assert isinstance(stuck, ExperimentStuck)
    assert [t.reason for t in stuck.troubles] == ["ImagePullBackOff"]
    assert isinstance(judged(board(half, pod(0, "ErrImagePull"))), PeersProgress)
    leaving = pod(0, "ImagePullBackOff", deletionTimestamp="2026-01-01T00:00:00Z")
    assert isinstance(judged(board(half, leaving)), PeersProgress)
    mended = board(half, pod(0, "ImagePullBackOff"), pod(0))
    assert isinstance(judged(mended), PeersProgress)
    gone = board(half, pod(0, "ImagePullBackOff"))
    gone.drop(pod(0))
    assert isinstance(judged(gone), PeersProgress)


def test_trouble_that_becomes_fatal_with_time_needs_no_event() -> None:
    homeless = pod(0)
    homeless["status"] = {
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
    found = board(statefulset(replicas=3), homeless)
    assert isinstance(judged(found), PeersProgress)
    later = judge(RED, found, NOW + timedelta(seconds=16), waited_s=16, timeout_s=60)
    assert isinstance(later, ExperimentStuck)
    assert not later.timed_out


def refusal(at: datetime) -> Manifest:
    """The event of a StatefulSet whose pods are refused."""
    return {
        "involvedObject": {"kind": "StatefulSet", "namespace": "lab", "name": "red"},
        "reason": "FailedCreate",
        "type": "Warning",
        "message": "create Pod red-0 in StatefulSet red failed error: exceeded quota: q",
        "lastTimestamp": at.isoformat(),
    }


def test_refused_pods_end_the_waiting_after_a_grace() -> None:
    found = board(statefulset())
    found.note_refusal(refusal(NOW), NOW - timedelta(seconds=11))
    stuck = judged(found)
    assert isinstance(stuck, ExperimentStuck)
    assert "exceeded quota" in stuck.troubles[0].message
    secret = statefulset()
    env = [{"name": "API_TOKEN", "value": "exceeded"}]
    secret["spec"]["template"] = {"spec": {"containers": [{"name": "c", "env": env}]}}
    found.put(secret, NOW)
    told = judged(found)
    assert isinstance(told, ExperimentStuck)
    assert "(hidden) quota" in told.troubles[0].message
    fresh = board(statefulset())
    fresh.note_refusal(refusal(NOW), NOW)
    assert isinstance(judged(fresh), PeersProgress)
    old = board(statefulset())
    old.note_refusal(refusal(NOW - timedelta(minutes=5)), NOW - timedelta(seconds=11))
    assert isinstance(judged(old), PeersProgress)


def test_pruned_workloads_and_namespaces_are_awaited_until_gone() -> None:
    space = ObjectKey("Namespace", "", "n")
    one = WaitTarget(experiment="red", workloads=frozenset(), leaving=frozenset({KEY, space}))
    found = board(statefulset(wanted=0, replicas=2))
    assert judged(found, one=one) is None, "nothing is known of the namespace"
    found.put_leaving("Namespace", [{"kind": "Namespace", "metadata": {"name": "n"}}])
    progress = judged(found, one=one)
    assert isinstance(progress, PeersProgress)
    assert progress.leaving == 2
    found.drop(statefulset())
    assert isinstance(judged(found, one=one), PeersProgress)
    found.put_leaving("Namespace", ())
    assert isinstance(judged(found, one=one), ExperimentSettled)


def test_fresh_list_replaces_what_was_known() -> None:
    found = board(statefulset(**FULL), pod(0, "CrashLoopBackOff"))
    found.forget("Pod", "lab")
    assert not any(found.troubled.values())
    found.forget("StatefulSet", "elsewhere")
    assert KEY in found.workloads


@pytest.mark.live
def test_told_to_stop_it_begins_nothing_more(lab: Lab) -> None:
    lab.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": lab.namespace}})
    apply_set = ApplySet(name="experiments", namespace=lab.namespace)
    wanted = manifest("ConfigMap", "a", "red")
    wanted["metadata"]["namespace"] = lab.namespace
    seen = Snapshot(
        apply_set=apply_set, parent=None, lease=None, namespace_exists=True, live={}, predicted={}
    )
    plan = make_plan([group("red", wanted)], seen, policy())
    stop = threading.Event()
    stop.set()
    options = ApplyOptions(parallel=2, take_ownership=False, timeout_s=5, version="0")
    events = list(execute(plan, lab.cluster, options, stop=stop))
    assert [e.outcome for e in events if isinstance(e, ObjectDone)] == [Outcome.NOT_ATTEMPTED]
    assert set(lab.names("ConfigMap")) - {"kube-root-ca.crt"} == {"nimlab-experiments"}


def config_map(lab: Lab, **data: str) -> Manifest:
    """A stamped ConfigMap of the experiment red in the lab's namespace."""
    plain = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "a", "namespace": lab.namespace, "labels": {"experiment": "red"}},
        "data": data,
    }
    return stamp(plain, ApplySet(name="experiments", namespace=lab.namespace))


def recreate(lab: Lab, *, with_proofs: bool) -> None:
    """Delete the ConfigMap and make another of the same name, with all our marks, perhaps even applied."""
    key = ObjectKey("ConfigMap", lab.namespace, "a")
    live = lab.cluster.get(key)
    assert live is not None
    uid = live["metadata"]["uid"]
    lab.cluster.delete(key, uid=uid, resource_version=None, propagation=Propagation.BACKGROUND)
    if with_proofs:
        lab.cluster.apply(config_map(lab, theirs="yes"), manager="nimlab", force=False, dry_run=False)
    else:
        lab.cluster.create(config_map(lab, theirs="yes"))


@pytest.mark.live
@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("with_proofs", [True, False])
def test_object_recreated_between_plan_and_act_is_left_alone(
    lab: Lab, wanted: bool, with_proofs: bool
) -> None:
    """An update and a prune are bound to the very object that the plan saw."""
    lab.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": lab.namespace}})
    apply_set = ApplySet(name="experiments", namespace=lab.namespace)
    lab.cluster.apply(config_map(lab, ours="1"), manager="nimlab", force=False, dry_run=False)
    desired = [group("red", config_map(lab, ours="2"))] if wanted else []
    seen = observe(lab.cluster, desired, apply_set, take_ownership=False, remove_foreign=False, parallel=2)
    plan = make_plan(desired, seen, policy(allow_empty=True))
    assert [c.action for c in plan.changes] == [Action.UPDATE if wanted else Action.PRUNE]
    recreate(lab, with_proofs=with_proofs)
    options = ApplyOptions(parallel=2, take_ownership=True, timeout_s=5, version="0")
    events = list(execute(plan, lab.cluster, options, stop=threading.Event()))
    assert [e.outcome for e in events if isinstance(e, ObjectDone)] == [Outcome.FAILED]
    left = lab.cluster.get(ObjectKey("ConfigMap", lab.namespace, "a"))
    assert left is not None
    assert left["data"] == {"theirs": "yes"}


@pytest.mark.live
@pytest.mark.parametrize("theirs", [{"nimlab.dev/commit": "f" * 40}, {"a-note": "for all"}])
def test_record_is_written_over_what_the_run_wrote_and_over_no_other_sync(
    lab: Lab, theirs: dict[str, str]
) -> None:
    lab.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": lab.namespace}})
    apply_set = ApplySet(name="experiments", namespace=lab.namespace)
    desired = [group("red", config_map(lab))]
    seen = observe(lab.cluster, desired, apply_set, take_ownership=False, remove_foreign=False, parallel=2)
    head = Commit(sha="a" * 40, branch="main", dirty=False)
    plan = make_plan(desired, seen, policy(commit=head))
    options = ApplyOptions(parallel=2, take_ownership=False, timeout_s=5, version="0")
    run = execute(plan, lab.cluster, options, stop=threading.Event())
    next(run)
    written = lab.cluster.get(apply_set.parent_key)
    assert written is not None
    written["metadata"]["annotations"] |= theirs
    lab.cluster.replace(written)
    if "a-note" in theirs:
        list(run)
        parent = lab.cluster.get(apply_set.parent_key)
        assert parent is not None
        assert parent["metadata"]["annotations"].items() >= {"nimlab.dev/commit": head.sha, **theirs}.items()
    else:
        with pytest.raises(PreconditionFailed):
            list(run)


@pytest.mark.live
def test_failed_apply_withholds_the_prunes_of_the_same_run(lab: Lab) -> None:
    lab.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": lab.namespace}})
    apply_set = ApplySet(name="experiments", namespace=lab.namespace)
    lab.cluster.apply(config_map(lab, ours="1"), manager="nimlab", force=False, dry_run=False)
    bad = config_map(lab)
    bad["metadata"] = {**bad["metadata"], "name": "b"}
    bad["metadata"]["labels"] = {**bad["metadata"]["labels"], "experiment": "blue"}
    bad["spec"] = {"no": "such field"}
    desired = [group("blue", bad)]
    seen = observe(lab.cluster, desired, apply_set, take_ownership=False, remove_foreign=False, parallel=2)
    plan = make_plan(desired, seen, policy())
    options = ApplyOptions(parallel=2, take_ownership=False, timeout_s=5, version="0")
    events = list(execute(plan, lab.cluster, options, stop=threading.Event()))
    outcomes = {e.key.name: e.outcome for e in events if isinstance(e, ObjectDone)}
    assert outcomes == {"b": Outcome.FAILED, "a": Outcome.NOT_ATTEMPTED}
    assert "a" in lab.names("ConfigMap")


def run_plan(lab: Lab, desired: Desired, change: Callable[[], None], **given: Any) -> list[ObjectDone]:
    """Look and plan, let something happen, then act on what was seen."""
    apply_set = ApplySet(name="experiments", namespace=lab.namespace)
    seen = observe(
        lab.cluster,
        [desired],
        apply_set,
        **{"take_ownership": False, "remove_foreign": False, **given},
        parallel=2,
    )
    plan = make_plan([desired], seen, policy())
    change()
    options = ApplyOptions(parallel=2, take_ownership=False, timeout_s=5, version="0")
    events = execute(plan, lab.cluster, options, stop=threading.Event())
    return [event for event in events if isinstance(event, ObjectDone)]


def workload_of(lab: Lab, **spec: Any) -> Manifest:
    """A StatefulSet of the lab, without peers."""
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
    """The names of the workload's env variables."""
    live = lab.get("StatefulSet", "red")
    assert live is not None
    return [e["name"] for e in live["spec"]["template"]["spec"]["containers"][0]["env"]]


@pytest.mark.live
def test_foreign_fields_are_removed_by_name_not_by_a_place_that_has_moved(lab: Lab) -> None:
    lab.kubectl("create", "namespace", lab.namespace)
    desired = workload_of(lab)
    lab.cluster.apply(desired, manager="nimlab", force=False, dry_run=False)
    path = "/spec/template/spec/containers/0/env"

    def add(name: str, place: str) -> None:
        patch = [{"op": "add", "path": f"{path}/{place}", "value": {"name": name, "value": "x"}}]
        lab.kubectl(
            "patch", "statefulset/red", "--type=json", f"--field-manager={name}", "-p", json.dumps(patch)
        )

    add("planned", "-")
    done = run_plan(lab, group("red", desired), lambda: add("later", "0"), remove_foreign=True)
    assert [one.outcome for one in done] == [Outcome.UPDATED]
    assert sorted(env_names(lab)) == ["OURS", "later"]


@pytest.mark.live
def test_object_made_since_the_look_is_not_overwritten(lab: Lab) -> None:
    lab.kubectl("create", "namespace", lab.namespace)
    desired = config_map(lab, ours="1")

    def somebody() -> None:
        lab.kubectl("create", "configmap", "a", "--from-literal=theirs=1")

    done = run_plan(lab, group("red", desired), somebody)
    assert [one.outcome for one in done] == [Outcome.FAILED]
    live = lab.get("ConfigMap", "a")
    assert live is not None
    assert live["data"] == {"theirs": "1"}


@pytest.mark.live
@pytest.mark.parametrize("why", ["refused", "changed"])
def test_replacement_that_has_become_wrong_since_the_plan_deletes_nothing(lab: Lab, why: str) -> None:
    """By now the server won't have the new object, or the old one isn't what the plan was made from."""
    lab.kubectl("create", "namespace", lab.namespace)
    lab.cluster.apply(workload_of(lab), manager="nimlab", force=False, dry_run=False)
    before = lab.get("StatefulSet", "red")
    assert before is not None
    desired = workload_of(lab, podManagementPolicy="OrderedReady")

    def meddle() -> None:
        if why == "refused":
            desired["spec"]["template"]["spec"]["dnsPolicy"] = "Never"
        else:
            lab.kubectl("scale", "statefulset/red", "--replicas=1")

    done = run_plan(lab, group("red", desired, how=OnImmutableChange.RECREATE), meddle)
    assert [one.outcome for one in done] == [Outcome.FAILED]
    after = lab.get("StatefulSet", "red")
    assert after is not None
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert not after["metadata"].get("deletionTimestamp")


class Narrow:
    """The real cluster for somebody who may look into namespaces one by one; one of them answers late."""

    def __init__(self, lab: Lab, late: str) -> None:
        self.lab, self.late, self.released = lab, late, threading.Event()

    def pages(self, kind: str, *, namespace: str | None, **how: Any) -> Iterator[Listing]:
        """Forbidden over all namespaces."""
        if namespace is None:
            raise Forbidden("list: not everywhere", where=kind)
        if namespace == self.late:
            assert self.released.wait(60)
        return self.lab.cluster.pages(kind, namespace=namespace, **how)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.lab.cluster, name)


@pytest.mark.live
def test_nothing_counts_as_listed_before_every_namespace_is(lab: Lab) -> None:
    late = f"{lab.namespace}-late"
    keys = [ObjectKey("StatefulSet", namespace, "red") for namespace in (lab.namespace, late)]
    awaited = [WaitTarget(experiment="red", workloads=frozenset(), leaving=frozenset(keys))]
    apply_set = ApplySet(name="experiments", namespace=lab.namespace)
    cluster, board = Narrow(lab, late), Readiness(apply_set)

    with Watcher(cluster, awaited, apply_set) as feed:
        for _ in range(10):  # long enough for the namespace that answers
            feed.drain(board, NOW)
        assert judge(awaited[0], board, NOW, waited_s=1, timeout_s=60) is None
        cluster.released.set()
        deadline_s = time.monotonic() + 30
        while "StatefulSet" not in board.listed and time.monotonic() < deadline_s:
            feed.drain(board, NOW)
        assert isinstance(judge(awaited[0], board, NOW, waited_s=1, timeout_s=60), ExperimentSettled)
