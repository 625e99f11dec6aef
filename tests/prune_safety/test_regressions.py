"""What the random situations have found in nimlab, each in its smallest case, so that it stays mended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from nimlab.errors import ClusterError
from nimlab.files.spec import OnImmutableChange
from nimlab.objects.applyset import ApplySet
from nimlab.objects.applyset_parent import Parent, Scope
from nimlab.objects.manifest import key_of
from nimlab.plan.change import Action
from nimlab.plan.make_plan import Plan, make_plan
from nimlab.plan.snapshot import Desired, Prediction, Snapshot
from nimlab.plan.sync_policy import PruneLimit
from tests.plan.test_make_plan import policy as inputs_of
from tests.prune_safety.object_variants import entry, fields_of
from tests.prune_safety.oracle import PART_OF, PROTECT, Home, Object, member, plain
from tests.prune_safety.server_fixtures import Ground, ask, run, widen
from tests.support.api_proxy import Seen, run_proxy
from tests.support.lab import Lab

HOME: Final = Home("lab")


def live_of(item: Object, number: int = 1) -> Object:
    """The object as the server shows it after we have applied it."""
    item["metadata"] |= {"uid": f"uid-{number}", "resourceVersion": str(number), "generation": 1}
    item["metadata"]["managedFields"] = [entry(fields_of(item))]
    return item


def plan_of(*live: Object, desired: tuple[Desired, ...] = (), **given: Any) -> Plan:
    """The plan of a run that nothing holds back, but for what is given."""
    seen = Snapshot(
        apply_set=ApplySet(name="experiments", namespace="lab"),
        parent=Parent(scope=Scope(kinds=frozenset(), namespaces=frozenset({"lab"})), commit=None),
        lease=None,
        namespace_exists=True,
        live={key_of(item): item for item in live},
        predicted={key_of(item): Prediction() for one in desired for item in one.manifests},
    )
    limit = PruneLimit(objects=None, percent=None, spare_single=False)
    options: dict[str, Any] = {"limit": limit, "allow_empty": True, **given}
    return make_plan(desired, seen, inputs_of(**options))


def workload(name: str, **spec: str) -> Object:
    """A StatefulSet of an experiment, as we would send it."""
    item = member(HOME, "StatefulSet", "lab", f"nimp2p-exp-{name}", name)
    item["spec"].update(spec)
    return item


def group(item: Object, how: OnImmutableChange) -> Desired:
    """An experiment that wants this one object."""
    name = item["metadata"]["labels"]["experiment"]
    return Desired(name=name, manifests=(item,), on_immutable_change=how, source=f"experiments/{name}.yaml")


def test_label_that_somebody_changed_does_not_choose_what_a_narrowed_run_prunes() -> None:
    """`kubectl label statefulset nimp2p-exp-blue experiment=red --overwrite`, then `nimlab sync red`."""
    blue = live_of(workload("blue"))
    blue["metadata"]["labels"]["experiment"] = "red"
    ours = blue["metadata"]["managedFields"][0]["fieldsV1"]["f:metadata"]["f:labels"]
    del ours["f:experiment"]  # as the server does it: the label is kubectl's now
    red = workload("red")
    plan = plan_of(
        live_of(workload("red")),
        blue,
        desired=(group(red, OnImmutableChange.FAIL),),
        names=frozenset({"red"}),
    )
    assert plan.count(Action.PRUNE) == 0


@pytest.mark.live
def test_narrowed_sync_leaves_what_another_file_wants(ground: Ground) -> None:
    lab, home = ground.lab()
    for name in ("red", "blue"):
        ask(lab, name)
    run(lab)
    blue = plain("StatefulSet", home.namespace, f"{home.prefix}blue")
    ground.admin.merge(blue, {"labels": {"experiment": "red"}}, "kubectl-label")
    seen = ground.alive()
    lab.run("sync", "--no-wait", "red")
    ground.judge(seen, set(), "sync red")


def rename(lab: Lab) -> None:
    """A typo: nothing else has the right ending."""
    path = lab.root / "experiments" / "blue.yaml"
    path.rename(path.with_suffix(".yml"))


def link(lab: Lab) -> None:
    """A link, which isn't read."""
    path = lab.root / "experiments" / "blue.yaml"
    path.rename(lab.root / "blue.yaml")
    path.symlink_to(lab.root / "blue.yaml")


def break_contract(lab: Lab) -> None:
    """An error in a file that no experiment uses."""
    (lab.root / "experiments" / "blue.yaml").unlink()
    (lab.root / "contracts" / "dst-go.yaml").write_text("a: [", encoding="utf-8")


def overbook(lab: Lab) -> None:
    """More than the lab allows."""
    (lab.root / "experiments" / "blue.yaml").unlink()
    path = lab.root / "lab.yaml"
    text = path.read_text(encoding="utf-8")
    assert "limits:" in text
    path.write_text(text.replace("limits:", "limits:\n    peers: 1"), encoding="utf-8")


@pytest.mark.live
@pytest.mark.parametrize("spoil", [rename, link, break_contract, overbook])
def test_any_error_in_any_file_stops_every_prune(ground: Ground, spoil: Callable[[Lab], None]) -> None:
    """The README: "It deletes nothing at all after any error in any file"; and it isn't a success."""
    lab, _ = ground.lab()
    for name in ("red", "blue"):
        ask(lab, name)
    run(lab)
    spoil(lab)
    seen = ground.alive()
    answer = lab.run("sync", "--no-wait")
    assert "error[" in answer.err
    ground.judge(seen, set(), answer.err)
    assert answer.code == 1


def forge_label_only(item: Object) -> None:
    """Somebody's own object, made with the labels of ours."""
    item["metadata"]["annotations"] = {}
    item["metadata"]["managedFields"] = [entry(fields_of(item), "kubectl-create", "Update")]


def forge_protected(item: Object) -> None:
    """Ours, and not to be deleted."""
    item["metadata"]["annotations"][PROTECT] = "true"


def forge_owned(item: Object) -> None:
    """An operator's."""
    item["metadata"]["ownerReferences"] = [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": "u"}]


@pytest.mark.parametrize("forge", [forge_label_only, forge_protected, forge_owned])
@pytest.mark.parametrize("how", [OnImmutableChange.RECREATE, OnImmutableChange.ORPHAN])
def test_replacement_deletes_only_what_has_every_proof(
    forge: Callable[[Object], None], how: OnImmutableChange
) -> None:
    live = live_of(workload("red", serviceName="theirs"))
    forge(live)
    plan = plan_of(live, desired=(group(workload("red"), how),))
    assert [c.key for c in plan.changes if c.action is Action.REPLACE and c.error is None] == []


@pytest.mark.live
def test_object_of_somebody_is_not_replaced_for_a_label(ground: Ground) -> None:
    lab, home = ground.lab()
    theirs = plain("StatefulSet", home.namespace, f"{home.prefix}blue")
    theirs["metadata"]["labels"] = {PART_OF: home.id}
    theirs["spec"]["podManagementPolicy"] = "OrderedReady"
    ground.admin.create(theirs)
    ask(lab, "blue")
    path = lab.root / "experiments" / "blue.yaml"
    path.write_text(path.read_text(encoding="utf-8") + "  onImmutableChange: recreate\n", encoding="utf-8")
    seen = ground.alive()
    lab.run("sync", "--no-wait")
    ground.judge(seen, set(), "sync")


@pytest.mark.live
def test_protection_that_comes_between_saves_from_a_replacement(ground: Ground, tmp_path: Path) -> None:
    """Metadata don't count as a generation, so the re-check before the DELETE doesn't see them."""
    lab, home = ground.lab()
    ask(lab, "blue")
    run(lab)
    template = lab.root / "templates" / "experiment" / "statefulset.yaml.j2"
    text = template.read_text(encoding="utf-8")
    assert "podManagementPolicy: Parallel" in text
    template.write_text(text.replace("Policy: Parallel", "Policy: OrderedReady"), encoding="utf-8")
    path = lab.root / "experiments" / "blue.yaml"
    path.write_text(path.read_text(encoding="utf-8") + "  onImmutableChange: recreate\n", encoding="utf-8")
    item = plain("StatefulSet", home.namespace, f"{home.prefix}blue")
    seen = ground.alive()

    def fault(request: Seen) -> None:
        if request.method == "DELETE":
            ground.admin.merge(item, {"annotations": {PROTECT: "true"}})

    with run_proxy(lab.kubeconfig, tmp_path) as proxy:
        proxy.fault = fault
        replace(lab, kubeconfig=proxy.kubeconfig).run("sync", "--no-wait")
    ground.judge(seen, set(), "sync")


def test_label_alone_makes_no_object_ours() -> None:
    """Without the label the same object is rejected, because nimlab did not create it."""
    live = live_of(member(HOME, "ConfigMap", "lab", "nimp2p-exp-red", "red"))
    forge_label_only(live)
    wanted = member(HOME, "ConfigMap", "lab", "nimp2p-exp-red", "red")
    plan = plan_of(live, desired=(group(wanted, OnImmutableChange.FAIL),))
    assert [c.error.code for c in plan.changes if c.error is not None] == ["ownership"]


def own_space(ground: Ground, home: Home) -> str:
    """A namespace of an experiment that no file asks for any more, with two objects of ours in it."""
    name = f"{home.prefix}go"
    ground.spaces.append(name)
    ground.admin.apply(member(home, "Namespace", "", name, "go"))
    for kind in ("ConfigMap", "NetworkPolicy"):
        ground.admin.apply(member(home, kind, name, "pod", "go"))
    return name


@pytest.fixture
def go(ground: Ground) -> tuple[Lab, Home, str]:
    """A lab with one experiment, and the namespace of a second one, left over."""
    lab, home = ground.lab()
    ask(lab, "red")
    run(lab)
    name = own_space(ground, home)
    widen(ground, home)
    return lab, home, name


def is_there(ground: Ground, namespace: str) -> bool:
    """True while the namespace isn't on its way out."""
    return ("Namespace", "", namespace) in ground.alive()


@pytest.mark.live
def test_namespace_stays_for_an_object_made_anew_under_the_name_of_ours(
    ground: Ground, go: tuple[Lab, Home, str], tmp_path: Path
) -> None:
    """Somebody makes a ConfigMap of his own where ours has just been pruned, before the last look."""
    lab, _, name = go

    def fault(request: Seen) -> None:
        if request.method == "DELETE" and "/networkpolicies/" in request.path:
            ground.admin.create(plain("ConfigMap", name, "pod"))

    with run_proxy(lab.kubeconfig, tmp_path) as proxy:
        proxy.fault = fault
        replace(lab, kubeconfig=proxy.kubeconfig).run("sync", "--no-wait")
    assert is_there(ground, name)


@pytest.mark.live
def test_namespace_stays_for_an_object_whose_owner_is_outside(
    ground: Ground, go: tuple[Lab, Home, str]
) -> None:
    """What a cluster-scoped owner has put into the namespace is not made of ours."""
    lab, _, name = go
    owner = ground.admin.get(plain("Namespace", "", "default"))
    assert owner is not None
    item = plain("Secret", name, "theirs")
    about = {"apiVersion": "v1", "kind": "Namespace", "name": "default", "uid": owner["metadata"]["uid"]}
    item["metadata"]["ownerReferences"] = [about]
    ground.admin.create(item)
    lab.run("sync", "--no-wait")
    assert is_there(ground, name)


def definition(group: str, kind: str, version: str) -> Object:
    """A kind of somebody's."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    served = {"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    plural = kind.lower() + "s"
    names = {"kind": kind, "plural": plural, "singular": kind.lower()}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [served]},
    }


@pytest.fixture
def define(ground: Ground) -> Iterator[Callable[[str, str], str]]:
    """Return a function that defines a kind in a group of the test's own, and returns its group."""
    group = f"t{ground.tag}.example.org"
    made: list[Object] = []

    def make(kind: str, version: str) -> str:
        made.append(ground.admin.create(definition(group, kind, version)))
        return group

    yield make
    for item in made:
        ground.admin.delete(item)


def put_custom(ground: Ground, path: str, kind: str, name: str) -> None:
    """Make an object of a kind that has just been defined, as soon as the server knows it."""
    body = {"apiVersion": "/".join(path.split("/")[2:4]), "kind": kind, "metadata": {"name": name}}
    deadline = time.monotonic() + 20
    while True:
        try:
            ground.admin.send("POST", path, body)
        except ClusterError:
            assert time.monotonic() < deadline, f"{kind} never came"
            threading.Event().wait(0.1)
        else:
            break


def wait_until_told(ground: Ground, group: str, kinds: int) -> None:
    """Wait until discovery tells of all kinds of the group."""
    deadline = time.monotonic() + 20
    while True:
        path, accept = "/apis", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        cluster = ground.admin.cluster
        told = cluster.transport.json("GET", path, verb="get", where=path, accept=accept)["items"]
        found = [v["resources"] for g in told if g["metadata"]["name"] == group for v in g["versions"]]
        if sum(len(resources) for resources in found) >= kinds:
            return
        assert time.monotonic() < deadline, "discovery never told of the kinds"
        threading.Event().wait(0.1)


@pytest.mark.live
def test_namespace_stays_for_a_kind_that_only_an_older_version_of_its_group_has(
    ground: Ground, go: tuple[Lab, Home, str], define: Callable[[str, str], str]
) -> None:
    """As gateway.networking.k8s.io has Gateway in v1 and TCPRoute in v1alpha2 only."""
    lab, _, name = go
    group = define("Widget", "v1")
    define("Gadget", "v1alpha1")
    put_custom(ground, f"/apis/{group}/v1alpha1/namespaces/{name}/gadgets", "Gadget", "theirs")
    wait_until_told(ground, group, 2)
    lab.run("sync", "--no-wait")
    assert is_there(ground, name)


@pytest.mark.live
def test_namespace_stays_for_a_kind_of_the_same_name_in_another_group(
    ground: Ground, go: tuple[Lab, Home, str], define: Callable[[str, str], str]
) -> None:
    """As serving.knative.dev has a Service of its own."""
    lab, _, name = go
    group = define("ConfigMap", "v1")
    put_custom(ground, f"/apis/{group}/v1/namespaces/{name}/configmaps", "ConfigMap", "pod")
    wait_until_told(ground, group, 1)
    lab.run("sync", "--no-wait")
    assert is_there(ground, name)


def test_plan_spares_a_namespace_that_holds_something_of_another_experiment() -> None:
    """The act refuses what this plan promises, so each sync fails, and a dry run says what won't happen."""
    space = live_of(member(HOME, "Namespace", "", "nimp2p-exp-go", "go"))
    other = live_of(member(HOME, "ConfigMap", "nimp2p-exp-go", "kept", "other"), 2)
    other["metadata"]["annotations"][PROTECT] = "true"
    plan = plan_of(space, other)
    assert [c.key for c in plan.changes if c.action is Action.PRUNE] == []


def test_objects_that_only_carry_the_label_do_not_widen_the_limit() -> None:
    """All four of ours would go, 100 %; twelve copies of their labels make it 25 % of "the set's objects"."""
    ours = [live_of(member(HOME, "ConfigMap", "lab", f"c{n}", "blue"), n) for n in range(4)]
    copies = [live_of(member(HOME, "ConfigMap", "lab", f"copy-{n}", "blue"), n) for n in range(12)]
    for item in copies:
        forge_label_only(item)
    plan = plan_of(*ours, *copies, limit=PruneLimit(objects=None, percent=50, spare_single=False))
    assert plan.count(Action.PRUNE) == 4
    assert [stop.code for stop in plan.stops] == ["limit"]


@pytest.mark.live
def test_parent_that_says_less_than_there_is_hides_nothing(ground: Ground) -> None:
    """A lost parent does no harm: all kinds are listed. One that was edited, or restored, leaks for ever."""
    lab, home = ground.lab()
    ask(lab, "red")
    run(lab)
    name = own_space(ground, home)
    ground.admin.apply(member(home, "ResourceQuota", home.namespace, "left", "go"))
    lab.run("sync", "--no-wait", "--max-prune", "900")
    assert not is_there(ground, name)
    assert ground.admin.get(plain("ResourceQuota", home.namespace, "left")) is None
