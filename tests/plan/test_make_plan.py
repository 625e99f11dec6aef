"""Plans, and the decision about each object, for snapshots that the tests construct."""

from __future__ import annotations

import copy
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimlab.errors import Conflict, FieldConflict, Rejected
from nimlab.files.git_history import Commit, Relation
from nimlab.files.spec import BrokenFile, OnImmutableChange
from nimlab.objects.applyset import FIELD_MANAGER, MEMBER, PART_OF, ApplySet, stamp
from nimlab.objects.applyset_parent import Parent, Scope
from nimlab.objects.manifest import Manifest, ObjectKey, key_of
from nimlab.objects.takeover import takeover_of
from nimlab.plan.change import Action, Change
from nimlab.plan.make_plan import Plan, make_plan
from nimlab.plan.snapshot import Desired, Prediction, Snapshot
from nimlab.plan.sync_policy import PlanInputs, PruneLimit, SyncPolicy

SET = ApplySet(name="experiments", namespace="lab")
SHA = "a" * 40


def manifest(kind: str, name: str, experiment: str, **spec: Any) -> Manifest:
    """Return a manifest with the label and the annotation of a member."""
    api = {"StatefulSet": "apps/v1"}.get(kind, "v1")
    plain: Manifest = {
        "apiVersion": api,
        "kind": kind,
        "metadata": {"name": name, "namespace": "lab", "labels": {"experiment": experiment}},
        **spec,
    }
    if kind == "Namespace":
        del plain["metadata"]["namespace"]
    return stamp(plain, SET)


def workload(name: str, peers: int = 3, image: str = "a:1") -> Manifest:
    """Return the StatefulSet of one experiment, with the label and the annotation of a member."""
    container = {"name": "c", "image": image, "resources": {"requests": {"cpu": "50m", "memory": "16Mi"}}}
    return manifest(
        "StatefulSet",
        name,
        name,
        spec={
            "replicas": peers,
            "serviceName": name,
            "updateStrategy": {"type": "OnDelete"},
            "template": {"spec": {"containers": [container]}},
        },
    )


def live_of(desired: Manifest, **status: Any) -> Manifest:
    """Return the object as the server stores it after an apply by nimlab."""
    live = copy.deepcopy(desired)
    live["metadata"] |= {
        "uid": f"uid-{desired['metadata']['name']}",
        "resourceVersion": "7",
        "generation": 1,
        "managedFields": [
            {
                "manager": FIELD_MANAGER,
                "operation": "Apply",
                "apiVersion": desired["apiVersion"],
                "fieldsV1": {"f:metadata": {"f:labels": {f"f:{PART_OF}": {}, "f:experiment": {}}}},
            }
        ],
    }
    if desired["kind"] == "StatefulSet":
        peers = desired["spec"]["replicas"]
        full = {"replicas": peers, "readyReplicas": peers, "updatedReplicas": peers}
        live["status"] = {"observedGeneration": 1, **full, **status}
    return live


def group(name: str, *manifests: Manifest, how: OnImmutableChange = OnImmutableChange.FAIL) -> Desired:
    """Return the desired objects of one experiment."""
    return Desired(name=name, manifests=manifests, on_immutable_change=how, source=f"experiments/{name}.yaml")


def snapshot(*live: Manifest, predicted: dict[ObjectKey, Prediction] | None = None, **given: Any) -> Snapshot:
    """Return a snapshot of a cluster."""
    return Snapshot(
        **{
            "apply_set": SET,
            "parent": None,
            "lease": None,
            "namespace_exists": True,
            "live": {key_of(item): item for item in live},
            "predicted": predicted or {},
            **given,
        }
    )


def policy(**given: Any) -> PlanInputs:
    """Return the inputs of a run with a high prune limit; `given` sets fields of the policy or the inputs."""
    options = {field.name: given.pop(field.name) for field in fields(SyncPolicy) if field.name in given}
    limit = PruneLimit(objects=100, percent=None, spare_single=False)
    return PlanInputs(policy=SyncPolicy(**options), **{"limit": limit, **given})


def only(plan: Plan) -> Change:
    """Return the plan's only change."""
    (change,) = plan.changes
    return change


def parent(commit: str | None = None, begun: dict[str, str] | None = None) -> Parent:
    """Return a parent whose scope covers all objects."""
    scope = Scope(kinds=frozenset({"StatefulSet", "ConfigMap"}), namespaces=frozenset({"lab"}))
    return Parent(scope=scope, commit=commit, begun=begun or {}, version="1")


def test_missing_objects_are_created_in_apply_order() -> None:
    wanted = group("red", workload("red"), manifest("ConfigMap", "red", "red"))
    plan = make_plan([wanted], snapshot(), policy())
    assert [(c.action, c.key.kind) for c in plan.changes] == [
        (Action.CREATE, "ConfigMap"),
        (Action.CREATE, "StatefulSet"),
    ]
    (experiment,) = plan.experiments
    assert (experiment.added.pods, experiment.added.cpu_m, experiment.added.memory_bytes) == (
        3,
        150,
        3 * 16 * 2**20,
    )


def test_unchanged_object_is_kept_and_the_plan_is_empty() -> None:
    wanted = workload("red")
    plan = make_plan([group("red", wanted)], snapshot(live_of(wanted)), policy())
    assert only(plan).action is Action.KEEP
    assert plan.is_empty


def test_new_template_restarts_all_peers_and_scaling_restarts_none() -> None:
    old, new = live_of(workload("red")), workload("red", image="a:2")
    key = key_of(new)
    predicted = {key: Prediction(manifest={**live_of(new)})}
    change = only(make_plan([group("red", new)], snapshot(old, predicted=predicted), policy()))
    assert (change.action, change.restarts) == (Action.UPDATE, 3)
    assert [f.path for f in change.fields] == ["spec.template.spec.containers[c].image"]
    scaled = workload("red", peers=5)
    predicted = {key: Prediction(manifest=live_of(scaled))}
    change = only(make_plan([group("red", scaled)], snapshot(old, predicted=predicted), policy()))
    assert (change.action, change.restarts) == (Action.UPDATE, 0)


def test_outdated_peers_of_an_interrupted_sync_are_restarted() -> None:
    wanted = workload("red")
    change = only(make_plan([group("red", wanted)], snapshot(live_of(wanted, updatedReplicas=1)), policy()))
    assert (change.action, change.restarts) == (Action.UPDATE, 2)


@pytest.mark.parametrize(
    ("generation", "observed", "rollout", "how", "acts"),
    [
        (2, 2, "OnDelete", OnImmutableChange.FAIL, False),
        (2, 1, "OnDelete", OnImmutableChange.FAIL, True),
        (2, 1, "RollingUpdate", OnImmutableChange.FAIL, False),
        (1, None, "OnDelete", OnImmutableChange.FAIL, False),
        (1, None, "OnDelete", OnImmutableChange.ORPHAN, True),
    ],
)
def test_peers_may_be_outdated_until_the_controller_has_observed_the_change(
    generation: int, observed: int | None, rollout: str, how: OnImmutableChange, acts: bool
) -> None:
    desired = workload("red")
    desired["spec"]["updateStrategy"]["type"] = rollout
    live = live_of(desired, observedGeneration=observed)
    live["metadata"]["generation"] = generation
    change = only(make_plan([group("red", desired, how=how)], snapshot(live), policy()))
    assert (change.action, change.outdated_peers_possible) == (
        (Action.UPDATE, True) if acts else (Action.KEEP, False)
    )


def test_no_peer_can_be_outdated_with_zero_replicas() -> None:
    desired = workload("red")
    desired["spec"]["replicas"] = 0
    live = live_of(desired, replicas=3, updatedReplicas=0)
    live["metadata"]["generation"] = 2
    assert only(make_plan([group("red", desired)], snapshot(live), policy())).action is Action.KEEP


def test_rejected_apply_blocks_the_object_and_all_prunes() -> None:
    wanted, orphan = workload("red"), live_of(manifest("ConfigMap", "blue", "blue"))
    conflict = FieldConflict(
        "spec.replicas is owned by `hpa`",
        where="x",
        hint=None,
        conflicts=(Conflict(manager="hpa", field=".spec.replicas"),),
    )
    predicted = {key_of(wanted): Prediction(error=conflict)}
    plan = make_plan([group("red", wanted)], snapshot(live_of(wanted), orphan, predicted=predicted), policy())
    assert next(c for c in plan.changes if c.experiment == "red").error is conflict
    assert [stop.code for stop in plan.stops] == ["blocked"]


def test_unverified_plan_compares_with_the_desired_fields() -> None:
    wanted = workload("red", peers=5)
    predicted = {key_of(wanted): Prediction()}
    change = only(
        make_plan([group("red", wanted)], snapshot(live_of(workload("red")), predicted=predicted), policy())
    )
    assert change.unverified
    assert [(f.path, f.old, f.new) for f in change.fields] == [("spec.replicas", 3, 5)]


def test_suspect_object_without_a_dry_run_is_never_kept() -> None:
    """Removing a field restarts peers too. A suspect object is reported even if no field differs."""
    wanted, old = workload("red"), live_of(workload("red"))
    container = old["spec"]["template"]["spec"]["containers"][0]
    container["args"] = ["-v"]
    ours: dict[str, Any] = {'k:{"name":"c"}': {"f:args": {}}}
    (entry,) = old["metadata"]["managedFields"]
    entry["fieldsV1"]["f:spec"] = {"f:template": {"f:spec": {"f:containers": ours}}}
    without_dry_run = {key_of(wanted): Prediction()}
    plan = make_plan([group("red", wanted)], snapshot(old, predicted=without_dry_run), policy())
    change = only(plan)
    assert (change.action, change.restarts, change.unverified) == (Action.UPDATE, 3, True)
    assert [(f.path, f.old) for f in change.fields] == [("spec.template.spec.containers[c].args", ["-v"])]
    del container["args"]
    plan = make_plan([group("red", wanted)], snapshot(old, predicted=without_dry_run), policy())
    assert (only(plan).action, only(plan).fields, only(plan).restarts) == (Action.UPDATE, (), 0)
    assert "not proven" in only(plan).reason
    assert not plan.is_empty


def test_takeover_is_predicted_without_the_server() -> None:
    wanted, old = workload("red"), live_of(workload("red"))
    container = old["spec"]["template"]["spec"]["containers"][0]
    container["env"] = [{"name": "OURS", "value": "1"}, {"name": "DEBUG", "value": "1"}]
    item = 'k:{"name":"DEBUG"}'
    added: dict[str, Any] = {
        "f:containers": {'k:{"name":"c"}': {"f:env": {item: {".": {}, "f:name": {}, "f:value": {}}}}}
    }
    fields = {"f:spec": {"f:template": {"f:spec": added}}}
    theirs = {"manager": "kubectl-edit", "operation": "Update", "apiVersion": "apps/v1", "fieldsV1": fields}
    old["metadata"]["managedFields"].append(theirs)
    takeover = takeover_of(wanted, old, remove_foreign=True)
    predicted = {key_of(wanted): Prediction(takeover=takeover)}
    change = only(make_plan([group("red", wanted)], snapshot(old, predicted=predicted), policy()))
    assert [f.path for f in change.fields] == ["spec.template.spec.containers[c].env[DEBUG]"]
    assert (change.restarts, change.unverified, change.foreign) == (3, True, ())
    old["status"]["updatedReplicas"] = 1
    change = only(make_plan([group("red", wanted)], snapshot(old, predicted=predicted), policy()))
    assert change.restarts == 1, "the other peers do not have the removed field"


@pytest.mark.parametrize(
    ("how", "blocked", "restarts"),
    [
        (OnImmutableChange.FAIL, True, 3),
        (OnImmutableChange.ORPHAN, False, 0),
        (OnImmutableChange.RECREATE, False, 3),
    ],
)
def test_immutable_change_is_a_replacement_that_must_be_allowed(
    how: OnImmutableChange, blocked: bool, restarts: int
) -> None:
    old, new = workload("red"), workload("red")
    new["spec"]["serviceName"] = "other"
    seen = snapshot(live_of(old), predicted={key_of(new): Prediction()})
    change = only(make_plan([group("red", new, how=how)], seen, policy()))
    assert change.action is Action.REPLACE
    assert (change.error is not None, change.restarts) == (blocked, restarts)
    assert "spec.serviceName" in change.reason
    refused = {key_of(new): Prediction(error=Rejected("dnsPolicy: Unsupported value"))}
    seen = snapshot(live_of(old), predicted=refused)
    assert only(make_plan([group("red", new, how=how)], seen, policy())).error is not None


def test_creation_waits_for_the_terminating_object() -> None:
    wanted = workload("red")
    live = live_of(wanted)
    live["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    change = only(make_plan([group("red", wanted)], snapshot(live), policy()))
    assert change.action is Action.CREATE
    assert "being deleted" in change.reason


def test_object_of_another_set_is_never_taken_over() -> None:
    wanted = workload("red")
    live = live_of(wanted)
    live["metadata"]["labels"][PART_OF] = "applyset-other-v1"
    change = only(make_plan([group("red", wanted)], snapshot(live), policy(take_ownership=True)))
    assert change.error is not None
    assert change.error.code == "ownership"


def test_orphan_is_pruned_last_and_in_reverse_order() -> None:
    orphans = [live_of(workload("blue")), live_of(manifest("ConfigMap", "blue", "blue"))]
    plan = make_plan([group("red", workload("red"))], snapshot(*orphans), policy())
    pruned = [c.key.kind for c in plan.changes if c.action is Action.PRUNE]
    assert pruned == ["StatefulSet", "ConfigMap"]
    assert not plan.stops


def test_object_of_a_broken_file_is_not_an_orphan() -> None:
    broken = (BrokenFile(name="blue", source="experiments/blue.yaml"),)
    plan = make_plan([], snapshot(live_of(workload("blue"))), policy(broken=broken))
    assert plan.changes == ()
    assert not plan.is_empty


def test_prunes_are_withheld_while_a_file_is_broken() -> None:
    broken = (BrokenFile(name="red", source="experiments/red.yaml"),)
    plan = make_plan([], snapshot(live_of(workload("blue"))), policy(broken=broken, allow_empty=True))
    assert [stop.code for stop in plan.stops] == ["broken-files"]


def test_empty_folder_prunes_only_with_allow_empty() -> None:
    seen = snapshot(live_of(workload("blue")))
    assert [s.code for s in make_plan([], seen, policy()).stops] == ["empty"]
    assert make_plan([], seen, policy(allow_empty=True)).stops == ()


@pytest.mark.parametrize(
    ("limit", "stopped"),
    [
        (PruneLimit(objects=1, percent=None, spare_single=False), False),
        (PruneLimit(objects=0, percent=None, spare_single=False), True),
        (PruneLimit(objects=None, percent=50, spare_single=False), False),
        (PruneLimit(objects=None, percent=49, spare_single=False), True),
        (PruneLimit(objects=None, percent=49, spare_single=True), False),
    ],
)
def test_prune_limits(limit: PruneLimit, stopped: bool) -> None:
    red = workload("red")
    seen = snapshot(live_of(red), live_of(workload("blue")))
    plan = make_plan([group("red", red)], seen, policy(limit=limit))
    assert bool(plan.stops) is stopped


NONE = PruneLimit(objects=0, percent=None, spare_single=False)


@pytest.mark.parametrize(
    ("old_peers", "new_peers", "given", "held"),
    [
        (9, 9, {"limit": NONE}, ("green",)),
        (9, 9, {"broken": (BrokenFile(name="red", source="experiments/red.yaml"),)}, ("green",)),
        (9, 9, {"file_errors": 1}, ("green",)),
        (9, 9, {}, ()),
        (9, 9, {"limit": NONE, "prune": False}, ()),
        (0, 9, {"limit": NONE}, ()),
        (9, 0, {"limit": NONE}, ()),
    ],
)
def test_new_experiment_is_held_back_while_peers_are_not_pruned(
    old_peers: int, new_peers: int, given: dict[str, Any], held: tuple[str, ...]
) -> None:
    old, new = workload("blue", peers=old_peers), workload("green", peers=new_peers)
    assert make_plan([group("green", new)], snapshot(live_of(old)), policy(**given)).held == held


def test_changed_experiment_is_not_held_back() -> None:
    seen = snapshot(live_of(workload("blue")), live_of(manifest("Service", "red", "red", spec={})))
    service, red = manifest("Service", "red", "red", spec={}), workload("red", peers=9)
    plan = make_plan([group("red", service, red)], seen, policy(limit=NONE))
    assert [stop.code for stop in plan.stops] == ["limit"]
    assert plan.held == ()


def test_held_back_experiment_is_not_recorded_as_begun() -> None:
    commit = Commit(sha="a" * 40, branch=None, dirty=False)
    plan = make_plan(
        [group("green", workload("green"))],
        snapshot(live_of(workload("blue"))),
        policy(limit=NONE, commit=commit),
    )
    assert plan.held == ("green",)
    assert not plan.during.begun


def test_percentage_applies_to_two_experiments_with_spare_single() -> None:
    red = workload("red")
    seen = snapshot(live_of(red), live_of(workload("blue")), live_of(workload("green")))
    limit = PruneLimit(objects=20, percent=50, spare_single=True)
    assert [s.code for s in make_plan([group("red", red)], seen, policy(limit=limit)).stops] == ["limit"]


def test_spare_single_requires_labels_that_nimlab_applied() -> None:
    """Any client can label all objects with one experiment, so the percentage applies to such objects."""
    red, blue, green = workload("red"), live_of(workload("blue")), live_of(workload("green"))
    limit = PruneLimit(objects=20, percent=50, spare_single=True)
    for item in (blue, green):
        item["metadata"]["labels"]["experiment"] = "blue"
    green["metadata"]["managedFields"][0]["fieldsV1"]["f:metadata"]["f:labels"].pop("f:experiment")
    plan = make_plan([group("red", red)], snapshot(live_of(red), blue, green), policy(limit=limit))
    assert [stop.code for stop in plan.stops] == ["limit"]


@pytest.mark.parametrize("how", list(OnImmutableChange))
@pytest.mark.parametrize("is_terminating", [False, True])
def test_new_object_may_adopt_outdated_peers_after_an_interrupted_replacement(
    how: OnImmutableChange, is_terminating: bool
) -> None:
    red, old = workload("red"), live_of(workload("red"))
    old["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    change = only(make_plan([group("red", red, how=how)], snapshot(*[old] * is_terminating), policy()))
    assert change.action is Action.CREATE
    assert change.outdated_peers_possible is (how is OnImmutableChange.ORPHAN)


HEAD = Commit(sha="b" * 40, branch="main", dirty=False)


@pytest.mark.parametrize("relation", list(Relation))
@pytest.mark.parametrize(
    "recorded",
    [parent(SHA), parent("c" * 40, {"*": SHA}), parent(None, {"*": SHA})],
)
@pytest.mark.parametrize(
    ("left_over", "template"), [("blue", "a:1"), ("red", "a:2")], ids=["a prune", "an update"]
)
def test_only_descendants_of_the_synced_commit_may_change_anything(
    relation: Relation, recorded: Parent, left_over: str, template: str
) -> None:
    red = workload("red", image=template)
    predicted = {key_of(red): Prediction(manifest=live_of(red))} if template != "a:1" else {}
    live = {"red": live_of(workload("red")), left_over: live_of(workload(left_over))}
    seen = snapshot(*live.values(), parent=recorded, predicted=predicted)
    ages = {"c" * 40: Relation.NEWER, SHA: relation}
    plan = make_plan([group("red", red)], seen, policy(commit=HEAD, relations=ages))
    is_descendant = relation in (Relation.SAME, Relation.NEWER)
    assert (plan.refusal is None) is is_descendant
    allowed = make_plan([group("red", red)], seen, policy(commit=HEAD, relations=ages, allow_older=True))
    is_known = relation is not Relation.UNKNOWN or "c" * 40 in recorded.commits
    assert (allowed.refusal is None) is is_known, "an unknown commit may belong to another lab"
    if is_known:
        origin = recorded.commit or HEAD.sha
        assert allowed.after == Parent(scope=allowed.after.scope, commit=HEAD.sha, origin=origin)


def test_commit_of_unknown_age_changes_and_records_nothing() -> None:
    red = workload("red")
    seen = snapshot(live_of(red), parent=parent(SHA))
    plan = make_plan([group("red", red)], seen, policy(commit=HEAD, relations={SHA: Relation.UNKNOWN}))
    assert plan.refusal is None, "there is nothing to do"
    assert (plan.during.commit, plan.after.commit) == (SHA, SHA)
    new = group("green", workload("green"))
    for desired in ([group("red", red), new], [new], []):
        plan = make_plan(desired, seen, policy(commit=HEAD, allow_empty=True))
        assert plan.refusal is not None
        assert plan.after.commit == SHA
    plan = make_plan([new], seen, policy(commit=None))
    assert plan.refusal is not None
    assert "from a clone" in str(plan.refusal.hint)


@pytest.mark.parametrize("relation", list(Relation))
@pytest.mark.parametrize("changes", [True, False])
def test_commit_of_a_sync_by_name_restricts_only_this_experiment(relation: Relation, changes: bool) -> None:
    red = workload("red", image="a:2" if changes else "a:1")
    predicted = {key_of(red): Prediction(manifest=live_of(red))} if changes else {}
    recorded = parent("c" * 40, {"red": SHA})
    seen = snapshot(live_of(workload("red")), parent=recorded, predicted=predicted)
    ages = {"c" * 40: Relation.NEWER, SHA: relation}
    desired = [group("red", red), group("blue", workload("blue"))]
    plan = make_plan(desired, seen, policy(commit=HEAD, relations=ages))
    is_refused = relation is Relation.OLDER or (relation is Relation.UNKNOWN and changes)
    assert (plan.refusal is not None) is is_refused
    if plan.refusal is not None:
        assert "from which red was synced" in plan.refusal.what
    else:
        assert plan.after == Parent(scope=plan.after.scope, commit=HEAD.sha, origin="c" * 40)


def test_commit_begun_for_one_experiment_does_not_affect_the_others() -> None:
    red, blue = workload("red"), workload("blue")
    recorded = parent("c" * 40, {"red": SHA})
    ages = {"c" * 40: Relation.NEWER, SHA: Relation.OLDER}
    desired = [group("red", red), group("blue", blue)]
    plan = make_plan(
        desired[1:],
        snapshot(live_of(red), parent=recorded),
        policy(names=frozenset({"blue"}), commit=HEAD, relations=ages),
    )
    assert plan.refusal is None
    assert plan.during.begun == {"red": SHA, "blue": HEAD.sha}
    plan = make_plan(desired, snapshot(live_of(red), parent=recorded), policy(commit=HEAD, relations=ages))
    assert plan.refusal is not None


def test_commit_is_recorded_before_the_writes_and_as_synced_after_them() -> None:
    red, blue = group("red", workload("red")), live_of(workload("blue"))
    recorded = parent(SHA, {"green": "d" * 40})
    ages = {SHA: Relation.NEWER, "d" * 40: Relation.NEWER}
    plan = make_plan([red], snapshot(blue, parent=recorded), policy(commit=HEAD, relations=ages))
    assert (plan.during.commit, plan.during.begun) == (SHA, {"*": HEAD.sha})
    assert (plan.after.commit, plan.after.begun) == (HEAD.sha, {})
    withheld = make_plan(
        [red],
        snapshot(live_of(workload("red")), blue, parent=recorded),
        policy(commit=HEAD, relations=ages, limit=PruneLimit(objects=0, percent=None, spare_single=False)),
    )
    assert withheld.stops
    assert withheld.during.begun == recorded.begun, "no commit is begun if all changes are withheld"
    same = make_plan([red], snapshot(blue, parent=parent(HEAD.sha)), policy(commit=HEAD))
    assert same.during.begun == {}, "its commit is already recorded"


def test_run_by_name_changes_and_records_only_the_named_experiments() -> None:
    seen = snapshot(live_of(workload("blue")), live_of(workload("green")), parent=parent())
    plan = make_plan([], seen, policy(names=frozenset({"blue"}), commit=HEAD))
    assert [c.key.name for c in plan.changes] == ["blue"]
    assert plan.stops == ()
    assert plan.after.commit is None
    assert plan.after.begun == {"blue": HEAD.sha}
    assert plan.after.scope.kinds >= {"ConfigMap"}


def test_unknown_name_is_rejected_with_a_suggestion() -> None:
    plan = make_plan([], snapshot(live_of(workload("blue"))), policy(names=frozenset({"bleu"})))
    assert plan.refusal is not None
    plan = make_plan([group("blue", workload("blue"))], snapshot(), policy(names=frozenset({"blue", "bleu"})))
    assert plan.refusal is not None
    assert "blue" in str(plan.refusal.hint)


def test_namespace_stays_while_it_contains_foreign_or_protected_objects() -> None:
    namespace = live_of(manifest("Namespace", "nimp2p-exp-go", "go"))
    inside = live_of(manifest("ConfigMap", "c", "go"))
    inside["metadata"]["namespace"] = "nimp2p-exp-go"
    inside["metadata"]["annotations"][MEMBER] = "experiments:/ConfigMap:nimp2p-exp-go/c"
    foreign_objects = {"nimp2p-exp-go": (ObjectKey("Secret", "nimp2p-exp-go", "s"),)}
    plan = make_plan([], snapshot(namespace, inside), policy(allow_empty=True))
    assert [c.action for c in plan.changes] == [Action.PRUNE, Action.PRUNE]
    assert plan.changes[-1].key.kind == "Namespace"
    plan = make_plan(
        [], snapshot(namespace, inside, foreign_objects=foreign_objects), policy(allow_empty=True)
    )
    assert {c.key.kind: c.action for c in plan.changes}["Namespace"] is Action.KEEP
    inside["metadata"]["annotations"]["nimlab.dev/protect"] = "true"
    plan = make_plan([], snapshot(namespace, inside), policy(allow_empty=True))
    assert {c.action for c in plan.changes} == {Action.KEEP}


def test_scope_is_widened_before_a_sync_and_narrowed_after_it() -> None:
    red = workload("red")
    plan = make_plan([group("red", red)], snapshot(), policy())
    assert plan.after.scope == plan.during.scope
    assert plan.after.scope.kinds == {"StatefulSet"}
    plan = make_plan([group("red", red)], snapshot(live_of(red), parent=parent()), policy())
    assert plan.during.scope.kinds == {"StatefulSet", "ConfigMap"}
    assert plan.after.scope.kinds == {"StatefulSet"}


FOREIGN = st.fixed_dictionaries(
    {
        "label": st.booleans(),
        "member": st.sampled_from(["own", "other", None]),
        "applied": st.booleans(),
        "owner": st.booleans(),
        "protect": st.booleans(),
        "kind": st.sampled_from(["ConfigMap", "Service", "Secret", "Pod"]),
        "terminating": st.booleans(),
    }
)


@given(FOREIGN)
def test_only_objects_with_all_proofs_are_pruned(marks: dict[str, Any]) -> None:
    """An object without all proofs is foreign, and stays."""
    base = manifest(marks["kind"], "thing", "blue")
    live = live_of(base)
    metadata = live["metadata"]
    if not marks["label"]:
        del metadata["labels"][PART_OF]
    if marks["member"] == "other":
        metadata["annotations"][MEMBER] = "experiments:/ConfigMap:lab/original"
    elif marks["member"] is None:
        del metadata["annotations"][MEMBER]
    if not marks["applied"]:
        metadata["managedFields"] = []
    if marks["owner"]:
        metadata["ownerReferences"] = [{"uid": "u", "kind": "X", "name": "x", "apiVersion": "v1"}]
    if marks["protect"]:
        metadata["annotations"]["nimlab.dev/protect"] = "true"
    if marks["terminating"]:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    proven = (
        marks["label"]
        and marks["member"] == "own"
        and marks["applied"]
        and not (marks["owner"] or marks["protect"] or marks["terminating"])
        and marks["kind"] in ("ConfigMap", "Service")
    )
    plan = make_plan([], snapshot(live), policy(allow_empty=True))
    assert (only(plan).action is Action.PRUNE) is proven


@given(st.permutations(["red", "blue", "green"]))
def test_plan_does_not_depend_on_the_order_of_its_arguments(order: list[str]) -> None:
    groups = {name: group(name, workload(name)) for name in order}
    plan = make_plan([groups[name] for name in order], snapshot(), policy())
    assert [experiment.name for experiment in plan.experiments] == ["blue", "green", "red"]
