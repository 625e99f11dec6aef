"""Namespaces of experiments' own: gone with their experiment, unless anything in them is not the lab's.

Deleting a namespace deletes all that it holds, so each case is one thing that may be in it, or come into it
while the sync is at work.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest

from tests.prune_safety.direct_writes import Admin
from tests.prune_safety.object_variants import MARKS, Draft
from tests.prune_safety.oracle import PROTECT, Home, Object, member, plain
from tests.prune_safety.server_fixtures import Ground, Key, ask, key_of, run, widen
from tests.prune_safety.write_sequences import HARMS, STORIES, hold
from tests.support.api_proxy import Seen, run_proxy
from tests.support.lab import Lab

pytestmark = pytest.mark.live

OURS: Final = ("ConfigMap", "Service", "NetworkPolicy", "StatefulSet")


@dataclass(frozen=True, slots=True)
class Space:
    """A namespace that was an experiment's own, on its way to be deleted."""

    ground: Ground
    home: Home
    experiment: str

    @property
    def name(self) -> str:
        """The namespace's name."""
        return self.home.prefix + self.experiment

    @property
    def admin(self) -> Admin:
        """The hands."""
        return self.ground.admin

    def ours(self, kind: str) -> Object:
        """What is ours in it, or the namespace itself."""
        if kind == "Namespace":
            return member(self.home, kind, "", self.name, self.experiment)
        return member(self.home, kind, self.name, "pod", self.experiment)

    def theirs(self, kind: str, name: str = "theirs") -> Object:
        """Somebody's object in it."""
        return plain(kind, self.name, name)

    def copy(self) -> Object:
        """A copy of ours under another name, with all its marks."""
        item = self.ours("ConfigMap")
        item["metadata"]["name"] = "copy"
        return item


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is in a namespace beside ours, or comes when the first DELETE in it, or its own, arrives."""

    goes: bool
    before: Callable[[Space], object] | None = None
    between: Callable[[Space], object] | None = None
    at_last: Callable[[Space], object] | None = None
    stays: tuple[str, ...] = ()


def _put(kind: str) -> Callable[[Space], object]:
    return lambda space: space.admin.create(space.theirs(kind))


def _put_pod(space: Space) -> None:
    body = {"spec": {"containers": [{"name": "c", "image": "a/b:1"}], "nodeSelector": {"no": "node"}}}
    space.admin.create({**space.theirs("Pod"), **body})


def _put_deployment(space: Space) -> None:
    template = {
        "metadata": {"labels": {"no": "pod"}},
        "spec": {"containers": [{"name": "c", "image": "b:1"}]},
    }
    body = {"spec": {"replicas": 0, "selector": {"matchLabels": {"no": "pod"}}, "template": template}}
    space.admin.create({**space.theirs("Deployment"), **body})


def _put_rival(space: Space) -> None:
    rival = Home(f"nowhere-{space.ground.tag}", space.home.prefix)
    space.admin.apply(member(rival, "ConfigMap", space.name, "rival", space.experiment))


def _protect(space: Space) -> None:
    space.admin.merge(space.ours("Service"), {"annotations": {PROTECT: "true"}})


def _hold(space: Space) -> None:
    item = space.ours("ConfigMap")
    hold(space.admin, item)
    space.ground.held.append(item)


def _adopt(space: Space) -> None:
    space.admin.merge(space.ours("Service"), {"ownerReferences": [space.admin.reference(space.name)]})


def _event(space: Space) -> None:
    about = {"kind": "ConfigMap", "namespace": space.name, "name": "pod"}
    path = f"/api/v1/namespaces/{space.name}/events"
    metadata = {"name": "e", "namespace": space.name}
    event = {"apiVersion": "v1", "kind": "Event", "metadata": metadata, "involvedObject": about}
    space.admin.send("POST", path, {**event, "reason": "Test", "type": "Normal"})


def _child_of_ours(space: Space) -> None:
    live = space.admin.get(space.ours("StatefulSet"))
    assert live is not None
    owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "pod", "uid": live["metadata"]["uid"]}
    item = space.theirs("ConfigMap", "child")
    item["metadata"]["ownerReferences"] = [owner]
    space.admin.create(item)


def _harm(name: str) -> Callable[[Space], object]:
    return lambda space: HARMS[name].do(space.admin, space.ours("Namespace"))


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
    "a copy of ours": Case(goes=False, before=lambda s: s.admin.create(s.copy())),
    "a copy that we applied": Case(goes=False, before=lambda s: s.admin.apply(s.copy())),
    "ours, protected": Case(goes=False, before=_protect, stays=("Service",)),
    "ours, being deleted": Case(goes=False, before=_hold, stays=("ConfigMap",)),
    "ours, with another owner": Case(goes=False, before=_adopt, stays=("Service",)),
    "a secret that comes between": Case(goes=False, between=_put("Secret")),
    "a pod that comes between": Case(goes=False, between=_put_pod),
    "a copy that comes between": Case(goes=False, between=lambda s: s.admin.create(s.copy())),
    "protected at last": Case(goes=False, at_last=_harm("protected")),
    "unlabelled at last": Case(goes=False, at_last=_harm("unlabelled")),
    "renamed at last": Case(goes=False, at_last=_harm("renamed in its annotation")),
    "wiped at last": Case(goes=False, at_last=_harm("wiped")),
    "touched at last": Case(goes=True, at_last=_harm("touched")),
}


def make_space(ground: Ground, home: Home, experiment: str, case: Case) -> Space:
    """Put a namespace on the server with all that is ours, and what the case says."""
    space = Space(ground, home, experiment)
    ground.spaces.append(space.name)
    for kind in ("Namespace", *OURS):
        ground.admin.apply(space.ours(kind))
    ground.forged[key_of(space.ours("Namespace"))] = (experiment,)
    if case.before is not None:
        case.before(space)
    return space


def due(space: Space, case: Case) -> set[Key]:
    """What has to go: all that is ours, and the namespace where it may."""
    kinds = [kind for kind in OURS if kind not in case.stays] + (["Namespace"] if case.goes else [])
    return {key_of(space.ours(kind)) for kind in kinds}


def assert_planned(lab: Lab, made: list[tuple[Space, Case]]) -> None:
    """The plan says of each namespace what will become of it, but for what comes later."""
    dry = run(lab, "--dry-run", "--output", "json").out
    pruned = {one["key"] for one in json.loads(dry)["objects"] if one["action"] == "prune"}
    wrong = [
        f"{space.name}: {case}"
        for space, case in made
        if (f"Namespace/{space.name}" in pruned) is not (case.goes or bool(case.between or case.at_last))
    ]
    assert wrong == []


def test_namespace_goes_only_with_nothing_in_it_that_is_not_ours(ground: Ground, tmp_path: Path) -> None:
    lab, home = ground.lab()
    ask(lab, "keep")
    run(lab)
    cases = list(CASES.values())
    numbered = list(enumerate(cases))
    spaces = ground.admin.each(lambda one: make_space(ground, home, f"s{one[0]}", one[1]), numbered)
    for space, name in zip(spaces, CASES, strict=True):
        ground.forged[key_of(space.ours("Namespace"))] = (name,)
    widen(ground, home)
    assert_planned(lab, list(zip(spaces, cases, strict=True)))
    seen = ground.alive()
    met: set[tuple[str, str]] = set()

    def fault(request: Seen) -> None:
        """Do what the cases say, once, when their moment comes."""
        if request.method != "DELETE":
            return
        for space, case in zip(spaces, cases, strict=True):
            path = space.admin.path(space.ours("Namespace"))
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
        answer = run(replace(lab, kubeconfig=proxy.kubeconfig), code=1)
    assert len(met) == sum(case.between is not None or case.at_last is not None for case in cases)
    going = {space.name for space, case in zip(spaces, cases, strict=True) if case.goes}
    expected = {key for space, case in zip(spaces, cases, strict=True) for key in due(space, case)}
    ground.judge(seen, expected, answer.out, beside=going)
    ground.counters.served += len(cases)


def owned_by_a_namespace(admin: Admin, item: Object) -> None:
    """Give a cluster-scoped object an owner that lives."""
    for owner in item["metadata"].get("ownerReferences", ()):
        live = admin.get(plain("Namespace", "", "default"))
        assert live is not None
        owner.update(apiVersion="v1", kind="Namespace", name="default", uid=live["metadata"]["uid"])


def test_namespace_of_somebody_stays_whatever_it_carries(ground: Ground) -> None:
    lab, home = ground.lab()
    ask(lab, "keep")
    run(lab)
    marks = [name for name, mark in MARKS.items() if mark.served and mark.stays and not mark.inside]
    stories = [name for name, story in STORIES.items() if story.stays]
    forged = [(mark, "us") for mark in marks] + [("", story) for story in stories]
    assert len(forged) > 30

    def make(numbered: tuple[int, tuple[str, str]]) -> None:
        number, (mark, story) = numbered
        item = member(home, "Namespace", "", f"{home.prefix}f{number}", f"f{number}")
        if mark:
            MARKS[mark].put(Draft(item, home, Home(f"nowhere-{ground.tag}"), {}, ""))
        owned_by_a_namespace(ground.admin, item)
        STORIES[story].write(ground.admin, item)
        ground.forged[key_of(item)] = (mark or story,)
        ground.admin.create(plain("ConfigMap", item["metadata"]["name"], "theirs"))

    ground.admin.each(make, list(enumerate(forged)))
    widen(ground, home)
    seen = ground.alive()
    answer = run(lab)
    ground.judge(seen, set(), answer.out)
    ground.counters.served += len(forged)
