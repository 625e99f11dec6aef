"""An experiment's own namespace is deleted with the experiment, unless it contains a foreign object.

Deleting a namespace deletes its contents. Each case makes one change in a namespace, before or during the
sync.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest

from tests.prune_safety.direct_writes import DirectAccess
from tests.prune_safety.object_variants import METADATA_VARIANTS, Draft
from tests.prune_safety.oracle import PROTECT, LabScope, Object, member, plain
from tests.prune_safety.server_fixtures import Key, LiveServer, key_of, sync, widen_scope, write_experiment
from tests.prune_safety.write_sequences import LATE_CHANGES, WRITE_SEQUENCES, hold
from tests.support.api_proxy import Seen, run_proxy
from tests.support.lab import Lab

pytestmark = pytest.mark.live

OURS: Final = ("ConfigMap", "Service", "NetworkPolicy", "StatefulSet")


@dataclass(frozen=True, slots=True)
class OwnNamespace:
    """The own namespace of an experiment whose file was deleted, so that a sync prunes the experiment."""

    server: LiveServer
    scope: LabScope
    experiment: str

    @property
    def name(self) -> str:
        """The name of the namespace."""
        return self.scope.prefix + self.experiment

    @property
    def direct(self) -> DirectAccess:
        """The connection to the API server."""
        return self.server.direct

    def ours(self, kind: str) -> Object:
        """Return our object of this kind in the namespace. For the kind Namespace, return the namespace."""
        if kind == "Namespace":
            return member(self.scope, kind, "", self.name, self.experiment)
        return member(self.scope, kind, self.name, "pod", self.experiment)

    def theirs(self, kind: str, name: str = "theirs") -> Object:
        """Return a foreign object of this kind in the namespace."""
        return plain(kind, self.name, name)

    def copy(self) -> Object:
        """Return a copy of our ConfigMap with another name; its other metadata is the same."""
        item = self.ours("ConfigMap")
        item["metadata"]["name"] = "copy"
        return item


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A change by another client, and its effect on the deletion of the namespace.

    The change is made before the sync (`before`), at the first DELETE of an object in the namespace
    (`between`), or at the DELETE of the namespace itself (`at_last`). `goes` is True if the sync must delete
    the namespace. `stays` are the kinds of our objects that the sync must keep.
    """

    goes: bool
    before: Callable[[OwnNamespace], object] | None = None
    between: Callable[[OwnNamespace], object] | None = None
    at_last: Callable[[OwnNamespace], object] | None = None
    stays: tuple[str, ...] = ()


def _put(kind: str) -> Callable[[OwnNamespace], object]:
    return lambda space: space.direct.create(space.theirs(kind))


def _put_pod(space: OwnNamespace) -> None:
    body = {"spec": {"containers": [{"name": "c", "image": "a/b:1"}], "nodeSelector": {"no": "node"}}}
    space.direct.wait_for_account(space.name)
    space.direct.create({**space.theirs("Pod"), **body})


def _put_deployment(space: OwnNamespace) -> None:
    template = {
        "metadata": {"labels": {"no": "pod"}},
        "spec": {"containers": [{"name": "c", "image": "b:1"}]},
    }
    body = {"spec": {"replicas": 0, "selector": {"matchLabels": {"no": "pod"}}, "template": template}}
    space.direct.create({**space.theirs("Deployment"), **body})


def _put_rival(space: OwnNamespace) -> None:
    rival = LabScope(f"nowhere-{space.server.tag}", space.scope.prefix)
    space.direct.apply(member(rival, "ConfigMap", space.name, "rival", space.experiment))


def _protect(space: OwnNamespace) -> None:
    space.direct.merge(space.ours("Service"), {"annotations": {PROTECT: "true"}})


def _hold(space: OwnNamespace) -> None:
    item = space.ours("ConfigMap")
    hold(space.direct, item)
    space.server.held.append(item)


def _adopt(space: OwnNamespace) -> None:
    space.direct.merge(space.ours("Service"), {"ownerReferences": [space.direct.reference(space.name)]})


def _event(space: OwnNamespace) -> None:
    about = {"kind": "ConfigMap", "namespace": space.name, "name": "pod"}
    path = f"/api/v1/namespaces/{space.name}/events"
    metadata = {"name": "e", "namespace": space.name}
    event = {"apiVersion": "v1", "kind": "Event", "metadata": metadata, "involvedObject": about}
    space.direct.send("POST", path, {**event, "reason": "Test", "type": "Normal"})


def _child_of_ours(space: OwnNamespace) -> None:
    live = space.direct.get(space.ours("StatefulSet"))
    assert live is not None
    owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "pod", "uid": live["metadata"]["uid"]}
    item = space.theirs("ConfigMap", "child")
    item["metadata"]["ownerReferences"] = [owner]
    space.direct.create(item)


def _late_change(name: str) -> Callable[[OwnNamespace], object]:
    return lambda space: LATE_CHANGES[name].do(space.direct, space.ours("Namespace"))


CASES: Final[Mapping[str, Case]] = {
    "nothing else": Case(goes=True),
    "an event": Case(goes=True, before=_event),
    "a child of ours": Case(goes=True, before=_child_of_ours),
    "a config map": Case(goes=False, before=_put("ConfigMap")),
    "a secret": Case(goes=False, before=_put("Secret")),
    "a service account": Case(goes=False, before=_put("ServiceAccount")),
    "a role": Case(goes=False, before=_put("Role")),
    "a lease": Case(goes=False, before=_put("Lease")),
    "a claim": Case(goes=False, before=_put("PersistentVolumeClaim")),
    "a quota": Case(goes=False, before=_put("ResourceQuota")),
    "a pod": Case(goes=False, before=_put_pod),
    "a deployment": Case(goes=False, before=_put_deployment),
    "a member of another set": Case(goes=False, before=_put_rival),
    "a copy of ours": Case(goes=False, before=lambda s: s.direct.create(s.copy())),
    "a copy that we applied": Case(goes=False, before=lambda s: s.direct.apply(s.copy())),
    "ours, protected": Case(goes=False, before=_protect, stays=("Service",)),
    "ours, being deleted": Case(goes=False, before=_hold, stays=("ConfigMap",)),
    "ours, with another owner": Case(goes=False, before=_adopt, stays=("Service",)),
    "a secret created during the sync": Case(goes=False, between=_put("Secret")),
    "a pod created during the sync": Case(goes=False, between=_put_pod),
    "a copy created during the sync": Case(goes=False, between=lambda s: s.direct.create(s.copy())),
    "protected just before its DELETE": Case(goes=False, at_last=_late_change("protected")),
    "unlabelled just before its DELETE": Case(goes=False, at_last=_late_change("unlabelled")),
    "annotation changed just before its DELETE": Case(
        goes=False, at_last=_late_change("its member annotation changed")
    ),
    "managed fields removed just before its DELETE": Case(
        goes=False, at_last=_late_change("managed fields removed")
    ),
    "another annotation added just before its DELETE": Case(
        goes=True, at_last=_late_change("another annotation added")
    ),
}


def make_own_namespace(server: LiveServer, scope: LabScope, experiment: str, case: Case) -> OwnNamespace:
    """Create a namespace with our objects, and make the change `before` of the case."""
    space = OwnNamespace(server, scope, experiment)
    server.spaces.append(space.name)
    for kind in ("Namespace", *OURS):
        server.direct.apply(space.ours(kind))
    server.variants_by_key[key_of(space.ours("Namespace"))] = (experiment,)
    if case.before is not None:
        case.before(space)
    return space


def due(space: OwnNamespace, case: Case) -> set[Key]:
    """Return the keys of our objects that a sync must delete; if `goes` is True, also the namespace."""
    kinds = [kind for kind in OURS if kind not in case.stays] + (["Namespace"] if case.goes else [])
    return {key_of(space.ours(kind)) for kind in kinds}


def assert_planned(lab: Lab, cases_by_namespace: list[tuple[OwnNamespace, Case]]) -> None:
    """Check that the plan prunes each namespace, unless a change before the sync prevents this.

    The changes `between` and `at_last` are made after the plan, so they do not affect it.
    """
    dry = sync(lab, "--dry-run", "--output", "json").out
    pruned = {case["key"] for case in json.loads(dry)["objects"] if case["action"] == "prune"}
    wrong = [
        f"{space.name}: {case}"
        for space, case in cases_by_namespace
        if (f"Namespace/{space.name}" in pruned) is not (case.goes or bool(case.between or case.at_last))
    ]
    assert wrong == []


def test_namespace_is_pruned_only_if_it_contains_no_foreign_object(
    server: LiveServer, tmp_path: Path
) -> None:
    lab, scope = server.lab()
    write_experiment(lab, "keep")
    sync(lab)
    cases = list(CASES.values())
    numbered = list(enumerate(cases))
    spaces = server.direct.each(
        lambda case: make_own_namespace(server, scope, f"s{case[0]}", case[1]), numbered
    )
    for space, name in zip(spaces, CASES, strict=True):
        server.variants_by_key[key_of(space.ours("Namespace"))] = (name,)
    widen_scope(server, scope)
    assert_planned(lab, list(zip(spaces, cases, strict=True)))
    before = server.identities()
    met: set[tuple[str, str]] = set()

    def fault(request: Seen) -> None:
        """At the matching DELETE request, make the change `between` or `at_last` of a case, once."""
        if request.method != "DELETE":
            return
        for space, case in zip(spaces, cases, strict=True):
            path = space.direct.path(space.ours("Namespace"))
            moments = (
                ("between", case.between, request.path.startswith(path + "/")),
                ("at last", case.at_last, request.path == path),
            )
            for moment, do, is_now in moments:
                if do is not None and is_now and (space.name, moment) not in met:
                    met.add((space.name, moment))
                    do(space)

    with run_proxy(lab.kubeconfig, tmp_path) as proxy:
        proxy.fault = fault
        answer = sync(replace(lab, kubeconfig=proxy.kubeconfig), code=1)
    assert len(met) == sum(case.between is not None or case.at_last is not None for case in cases)
    deleted_namespaces = {space.name for space, case in zip(spaces, cases, strict=True) if case.goes}
    expected = {key for space, case in zip(spaces, cases, strict=True) for key in due(space, case)}
    server.check_deletions(before, expected, answer.out, beside=deleted_namespaces)
    server.counters.served += len(cases)


def owned_by_a_namespace(direct: DirectAccess, item: Object) -> None:
    """Change each owner reference of a cluster-scoped object, so that it refers to an existing namespace."""
    for owner in item["metadata"].get("ownerReferences", ()):
        live = direct.get(plain("Namespace", "", "default"))
        assert live is not None
        owner.update(apiVersion="v1", kind="Namespace", name="default", uid=live["metadata"]["uid"])


def test_foreign_namespace_is_kept_whatever_its_metadata(server: LiveServer) -> None:
    lab, scope = server.lab()
    write_experiment(lab, "keep")
    sync(lab)
    variants = [
        name
        for name, variant in METADATA_VARIANTS.items()
        if variant.served and variant.stays and not variant.inside
    ]
    stories = [name for name, sequence in WRITE_SEQUENCES.items() if sequence.stays]
    variants_by_key = [(variant, "us") for variant in variants] + [("", sequence) for sequence in stories]
    assert len(variants_by_key) > 30

    def make(numbered: tuple[int, tuple[str, str]]) -> None:
        number, (variant, sequence) = numbered
        item = member(scope, "Namespace", "", f"{scope.prefix}f{number}", f"f{number}")
        if variant:
            METADATA_VARIANTS[variant].put(Draft(item, scope, LabScope(f"nowhere-{server.tag}"), {}, ""))
        owned_by_a_namespace(server.direct, item)
        WRITE_SEQUENCES[sequence].write(server.direct, item)
        server.variants_by_key[key_of(item)] = (variant or sequence,)
        server.direct.create(plain("ConfigMap", item["metadata"]["name"], "theirs"))

    server.direct.each(make, list(enumerate(variants_by_key)))
    widen_scope(server, scope)
    before = server.identities()
    answer = sync(lab)
    server.check_deletions(before, set(), answer.out)
    server.counters.served += len(variants_by_key)
