"""Regression tests: the smallest case of each defect that the random tests have found."""

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
from tests.prune_safety.oracle import PART_OF, PROTECT, LabScope, Object, member, plain
from tests.prune_safety.server_fixtures import LiveServer, sync, widen_scope, write_experiment
from tests.support.api_proxy import Seen, run_proxy
from tests.support.lab import Lab

HOME: Final = LabScope("lab")


def live_of(item: Object, number: int = 1) -> Object:
    """Return the object as the server returns it after an apply by nimlab."""
    item["metadata"] |= {"uid": f"uid-{number}", "resourceVersion": str(number), "generation": 1}
    item["metadata"]["managedFields"] = [entry(fields_of(item))]
    return item


def plan_of(*live: Object, desired: tuple[Desired, ...] = (), **given: Any) -> Plan:
    """Return the plan of a run that allows all changes. `given` overrides options of the run."""
    snapshot = Snapshot(
        apply_set=ApplySet(name="experiments", namespace="lab"),
        parent=Parent(scope=Scope(kinds=frozenset(), namespaces=frozenset({"lab"})), commit=None),
        lease=None,
        namespace_exists=True,
        live={key_of(item): item for item in live},
        predicted={key_of(item): Prediction() for group in desired for item in group.manifests},
    )
    limit = PruneLimit(objects=None, percent=None, spare_single=False)
    options: dict[str, Any] = {"limit": limit, "allow_empty": True, **given}
    return make_plan(desired, snapshot, inputs_of(**options))


def workload(name: str, **spec: str) -> Object:
    """Return the StatefulSet of an experiment as nimlab sends it."""
    item = member(HOME, "StatefulSet", "lab", f"nimp2p-exp-{name}", name)
    item["spec"].update(spec)
    return item


def group(item: Object, how: OnImmutableChange) -> Desired:
    """Return the desired state of an experiment that has only this object."""
    name = item["metadata"]["labels"]["experiment"]
    return Desired(name=name, manifests=(item,), on_immutable_change=how, source=f"experiments/{name}.yaml")


def test_sync_by_name_ignores_a_label_that_another_manager_changed() -> None:
    """A user changes the label `experiment` of blue's object to `red`, and then syncs only red."""
    blue = live_of(workload("blue"))
    blue["metadata"]["labels"]["experiment"] = "red"
    ours = blue["metadata"]["managedFields"][0]["fieldsV1"]["f:metadata"]["f:labels"]
    del ours["f:experiment"]  # after this command, kubectl owns the label
    red = workload("red")
    plan = plan_of(
        live_of(workload("red")),
        blue,
        desired=(group(red, OnImmutableChange.FAIL),),
        names=frozenset({"red"}),
    )
    assert plan.count(Action.PRUNE) == 0


@pytest.mark.live
def test_sync_by_name_keeps_objects_that_another_file_specifies(server: LiveServer) -> None:
    lab, scope = server.lab()
    for name in ("red", "blue"):
        write_experiment(lab, name)
    sync(lab)
    blue = plain("StatefulSet", scope.namespace, f"{scope.prefix}blue")
    server.direct.merge(blue, {"labels": {"experiment": "red"}}, "kubectl-label")
    before = server.identities()
    lab.run("sync", "--no-wait", "red")
    server.check_deletions(before, set(), "sync red")


def rename(lab: Lab) -> None:
    """Rename a file so that its name has a wrong extension."""
    path = lab.root / "experiments" / "blue.yaml"
    path.rename(path.with_suffix(".yml"))


def link(lab: Lab) -> None:
    """Replace a file by a symbolic link, which nimlab does not read."""
    path = lab.root / "experiments" / "blue.yaml"
    path.rename(lab.root / "blue.yaml")
    path.symlink_to(lab.root / "blue.yaml")


def break_contract(lab: Lab) -> None:
    """Break a contract that no experiment uses."""
    (lab.root / "experiments" / "blue.yaml").unlink()
    (lab.root / "contracts" / "dst-go.yaml").write_text("a: [", encoding="utf-8")


def exceed_limit(lab: Lab) -> None:
    """Request more peers than the lab allows."""
    (lab.root / "experiments" / "blue.yaml").unlink()
    path = lab.root / "lab.yaml"
    text = path.read_text(encoding="utf-8")
    assert "limits:" in text
    path.write_text(text.replace("limits:", "limits:\n    peers: 1"), encoding="utf-8")


@pytest.mark.live
@pytest.mark.parametrize("break_file", [rename, link, break_contract, exceed_limit])
def test_error_in_any_file_prevents_every_prune(
    server: LiveServer, break_file: Callable[[Lab], None]
) -> None:
    """If any file has an error, a sync deletes nothing and fails, as the README states."""
    lab, _ = server.lab()
    for name in ("red", "blue"):
        write_experiment(lab, name)
    sync(lab)
    break_file(lab)
    before = server.identities()
    answer = lab.run("sync", "--no-wait")
    assert "error[" in answer.err
    server.check_deletions(before, set(), answer.err)
    assert answer.code == 1


def make_label_only(item: Object) -> None:
    """Turn the object into a foreign object that has our labels."""
    item["metadata"]["annotations"] = {}
    item["metadata"]["managedFields"] = [entry(fields_of(item), "kubectl-create", "Update")]


def make_protected(item: Object) -> None:
    """Add the annotation that protects the object from deletion."""
    item["metadata"]["annotations"][PROTECT] = "true"


def make_owned(item: Object) -> None:
    """Add an owner reference to the object."""
    item["metadata"]["ownerReferences"] = [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": "u"}]


@pytest.mark.parametrize("make_variant", [make_label_only, make_protected, make_owned])
@pytest.mark.parametrize("how", [OnImmutableChange.RECREATE, OnImmutableChange.ORPHAN])
def test_replacement_deletes_only_objects_with_every_proof(
    make_variant: Callable[[Object], None], how: OnImmutableChange
) -> None:
    live = live_of(workload("red", serviceName="theirs"))
    make_variant(live)
    plan = plan_of(live, desired=(group(workload("red"), how),))
    assert [c.key for c in plan.changes if c.action is Action.REPLACE and c.error is None] == []


@pytest.mark.live
def test_foreign_object_with_our_label_is_not_replaced(server: LiveServer) -> None:
    lab, scope = server.lab()
    theirs = plain("StatefulSet", scope.namespace, f"{scope.prefix}blue")
    theirs["metadata"]["labels"] = {PART_OF: scope.id}
    theirs["spec"]["podManagementPolicy"] = "OrderedReady"
    server.direct.create(theirs)
    write_experiment(lab, "blue")
    path = lab.root / "experiments" / "blue.yaml"
    path.write_text(path.read_text(encoding="utf-8") + "  onImmutableChange: recreate\n", encoding="utf-8")
    before = server.identities()
    lab.run("sync", "--no-wait")
    server.check_deletions(before, set(), "sync")


@pytest.mark.live
def test_object_protected_just_before_its_delete_is_not_replaced(server: LiveServer, tmp_path: Path) -> None:
    """An object that is protected just before its DELETE is not replaced.

    The annotation does not change `metadata.generation`, so comparing the generation is not enough.
    """
    lab, scope = server.lab()
    write_experiment(lab, "blue")
    sync(lab)
    template = lab.root / "templates" / "experiment" / "statefulset.yaml.j2"
    text = template.read_text(encoding="utf-8")
    assert "podManagementPolicy: Parallel" in text
    template.write_text(text.replace("Policy: Parallel", "Policy: OrderedReady"), encoding="utf-8")
    path = lab.root / "experiments" / "blue.yaml"
    path.write_text(path.read_text(encoding="utf-8") + "  onImmutableChange: recreate\n", encoding="utf-8")
    item = plain("StatefulSet", scope.namespace, f"{scope.prefix}blue")
    before = server.identities()

    def fault(request: Seen) -> None:
        if request.method == "DELETE":
            server.direct.merge(item, {"annotations": {PROTECT: "true"}})

    with run_proxy(lab.kubeconfig, tmp_path) as proxy:
        proxy.fault = fault
        replace(lab, kubeconfig=proxy.kubeconfig).run("sync", "--no-wait")
    server.check_deletions(before, set(), "sync")


def test_label_alone_does_not_prove_ownership() -> None:
    """The plan reports an error for an object that has our labels, because nimlab did not create it."""
    live = live_of(member(HOME, "ConfigMap", "lab", "nimp2p-exp-red", "red"))
    make_label_only(live)
    wanted = member(HOME, "ConfigMap", "lab", "nimp2p-exp-red", "red")
    plan = plan_of(live, desired=(group(wanted, OnImmutableChange.FAIL),))
    assert [c.error.code for c in plan.changes if c.error is not None] == ["ownership"]


def own_space(server: LiveServer, scope: LabScope) -> str:
    """Create a left-over namespace that an experiment had for itself, with two of our objects in it."""
    name = f"{scope.prefix}go"
    server.spaces.append(name)
    server.direct.apply(member(scope, "Namespace", "", name, "go"))
    for kind in ("ConfigMap", "NetworkPolicy"):
        server.direct.apply(member(scope, kind, name, "pod", "go"))
    return name


@pytest.fixture
def make_left_over_namespace(server: LiveServer) -> tuple[Lab, LabScope, str]:
    """Create a lab with one experiment and a left-over namespace; return the lab and the namespace."""
    lab, scope = server.lab()
    write_experiment(lab, "red")
    sync(lab)
    name = own_space(server, scope)
    widen_scope(server, scope)
    return lab, scope, name


def is_there(server: LiveServer, namespace: str) -> bool:
    """Return whether the namespace exists and is not being deleted."""
    return ("Namespace", "", namespace) in server.identities()


@pytest.mark.live
def test_namespace_is_kept_if_a_foreign_object_replaces_a_pruned_one(
    server: LiveServer, make_left_over_namespace: tuple[Lab, LabScope, str], tmp_path: Path
) -> None:
    """Before nimlab's last check, another client creates a ConfigMap with the pruned ConfigMap's name."""
    lab, _, name = make_left_over_namespace

    def fault(request: Seen) -> None:
        if request.method == "DELETE" and "/networkpolicies/" in request.path:
            server.direct.create(plain("ConfigMap", name, "pod"))

    with run_proxy(lab.kubeconfig, tmp_path) as proxy:
        proxy.fault = fault
        replace(lab, kubeconfig=proxy.kubeconfig).run("sync", "--no-wait")
    assert is_there(server, name)


@pytest.mark.live
def test_namespace_is_kept_for_an_object_with_an_owner_outside_it(
    server: LiveServer, make_left_over_namespace: tuple[Lab, LabScope, str]
) -> None:
    """An object that has a cluster-scoped owner is foreign."""
    lab, _, name = make_left_over_namespace
    owner = server.direct.get(plain("Namespace", "", "default"))
    assert owner is not None
    item = plain("Secret", name, "theirs")
    about = {"apiVersion": "v1", "kind": "Namespace", "name": "default", "uid": owner["metadata"]["uid"]}
    item["metadata"]["ownerReferences"] = [about]
    server.direct.create(item)
    lab.run("sync", "--no-wait")
    assert is_there(server, name)


def definition(group: str, kind: str, version: str) -> Object:
    """Return a CustomResourceDefinition for a kind in a group."""
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
def define(server: LiveServer) -> Iterator[Callable[[str, str], str]]:
    """Yield a function that defines a kind in a new API group and returns the name of the group."""
    group = f"t{server.tag}.example.org"
    made: list[Object] = []

    def make(kind: str, version: str) -> str:
        made.append(server.direct.create(definition(group, kind, version)))
        return group

    yield make
    for item in made:
        server.direct.delete(item)


def put_custom(server: LiveServer, path: str, kind: str, name: str) -> None:
    """Create an object of a new kind as soon as the server accepts the kind."""
    body = {"apiVersion": "/".join(path.split("/")[2:4]), "kind": kind, "metadata": {"name": name}}
    deadline = time.monotonic() + 20
    while True:
        try:
            server.direct.send("POST", path, body)
        except ClusterError:
            assert time.monotonic() < deadline, f"{kind} did not become available"
            threading.Event().wait(0.1)
        else:
            break


def wait_for_discovery(server: LiveServer, group: str, kinds: int) -> None:
    """Wait until discovery lists all kinds of the group."""
    deadline = time.monotonic() + 20
    while True:
        path, accept = "/apis", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        cluster = server.direct.cluster
        groups = cluster.transport.json("GET", path, verb="get", where=path, accept=accept)["items"]
        resource_lists = [
            v["resources"] for g in groups if g["metadata"]["name"] == group for v in g["versions"]
        ]
        if sum(len(resources) for resources in resource_lists) >= kinds:
            return
        assert time.monotonic() < deadline, "discovery does not list the kinds"
        threading.Event().wait(0.1)


@pytest.mark.live
def test_namespace_is_kept_for_a_kind_that_only_an_older_api_version_has(
    server: LiveServer, make_left_over_namespace: tuple[Lab, LabScope, str], define: Callable[[str, str], str]
) -> None:
    """For example, gateway.networking.k8s.io has Gateway in v1 but TCPRoute only in v1alpha2."""
    lab, _, name = make_left_over_namespace
    group = define("Widget", "v1")
    define("Gadget", "v1alpha1")
    put_custom(server, f"/apis/{group}/v1alpha1/namespaces/{name}/gadgets", "Gadget", "theirs")
    wait_for_discovery(server, group, 2)
    lab.run("sync", "--no-wait")
    assert is_there(server, name)


@pytest.mark.live
def test_namespace_is_kept_for_a_kind_of_the_same_name_in_another_group(
    server: LiveServer, make_left_over_namespace: tuple[Lab, LabScope, str], define: Callable[[str, str], str]
) -> None:
    """For example, serving.knative.dev has its own kind Service."""
    lab, _, name = make_left_over_namespace
    group = define("ConfigMap", "v1")
    put_custom(server, f"/apis/{group}/v1/namespaces/{name}/configmaps", "ConfigMap", "pod")
    wait_for_discovery(server, group, 1)
    lab.run("sync", "--no-wait")
    assert is_there(server, name)


def test_plan_keeps_a_namespace_with_a_protected_object_of_another_experiment() -> None:
    """If the plan pruned the namespace, every sync would fail, because its execution rejects the deletion."""
    space = live_of(member(HOME, "Namespace", "", "nimp2p-exp-go", "go"))
    other = live_of(member(HOME, "ConfigMap", "nimp2p-exp-go", "kept", "other"), 2)
    other["metadata"]["annotations"][PROTECT] = "true"
    plan = plan_of(space, other)
    assert [c.key for c in plan.changes if c.action is Action.PRUNE] == []


def test_foreign_objects_with_the_label_do_not_count_for_the_prune_limit() -> None:
    """All four of our objects are pruned. This is 100 %, because twelve foreign objects do not count."""
    ours = [live_of(member(HOME, "ConfigMap", "lab", f"c{n}", "blue"), n) for n in range(4)]
    copies = [live_of(member(HOME, "ConfigMap", "lab", f"copy-{n}", "blue"), n) for n in range(12)]
    for item in copies:
        make_label_only(item)
    plan = plan_of(*ours, *copies, limit=PruneLimit(objects=None, percent=50, spare_single=False))
    assert plan.count(Action.PRUNE) == 4
    assert [stop.code for stop in plan.stops] == ["limit"]


@pytest.mark.live
def test_parent_that_lists_too_few_kinds_hides_no_object(server: LiveServer) -> None:
    """An edited or restored parent may list too few kinds. nimlab still finds and prunes all objects."""
    lab, scope = server.lab()
    write_experiment(lab, "red")
    sync(lab)
    name = own_space(server, scope)
    server.direct.apply(member(scope, "ResourceQuota", scope.namespace, "left", "go"))
    lab.run("sync", "--no-wait", "--max-prune", "900")
    assert not is_there(server, name)
    assert server.direct.get(plain("ResourceQuota", scope.namespace, "left")) is None
