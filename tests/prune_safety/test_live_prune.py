"""Syncs among forgeries on a real server: every foreign object keeps its identity, and none of ours is left.

Objects are made past nimlab, by any hand, then the CLI syncs, and everything is read back. `NIMLAB_SEED`
repeats the choices.
"""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nimlab.cluster.apply import ApplyOptions, execute
from nimlab.cluster.observe import observe
from nimlab.objects.applyset import ApplySet
from nimlab.plan.make_plan import make_plan
from nimlab.plan.sync_policy import PlanInputs, PruneLimit, SyncPolicy
from tests.prune_safety.direct_writes import Admin
from tests.prune_safety.oracle import INSIDE, Home, Object, member, plain
from tests.prune_safety.server_fixtures import (
    Ground,
    Key,
    Life,
    Piece,
    ask,
    forge,
    forgeries,
    key_of,
    never,
    run,
    widen,
)
from tests.prune_safety.write_sequences import HARMS, Harm
from tests.support.api_proxy import Proxy, Seen, run_proxy
from tests.support.lab import Lab

pytestmark = pytest.mark.live

CROWD = 90
LEFT = ("gone", "gone-2", "gone-2-a", "was", "keep", "keep-2")


def synced_and_left(lab: Lab, home: Home, *names: str) -> list[Piece]:
    """Let the lab make experiments by a sync of its own, then take their files away."""
    for name in names:
        ask(lab, name)
    run(lab)
    found = []
    for name in names:
        items = json.loads(lab.run("render", name, "--output", "json").out)
        found += [Piece(item=item, home=home, experiment=name) for item in items]
        (lab.root / "experiments" / f"{name}.yaml").unlink()
    return found


def crowd(ground: Ground, home: Home, spaces: tuple[str, ...], what: str) -> list[Piece]:
    """Make objects of all sorts, mostly in the lab's own namespace."""
    dice = ground.dice(f"crowd {what}")
    made = [
        forge(
            dice,
            ground,
            home,
            name=f"c{number}-{what}",
            spaces=spaces,
            experiment=dice.choice(LEFT),
            marks=marks,
            story=story,
        )
        for number, (marks, story) in enumerate(forgeries(dice, CROWD))
    ]
    kinds = ("Secret", "ServiceAccount", "Lease", "Role", "PersistentVolumeClaim")
    made += [never(home, kind, f"n-{what}") for kind in kinds]
    ground.admin.each(ground.write, made)
    return made


def due(pieces: list[Piece], home: Home, *experiments: str) -> set[Key]:
    """What a sync of this lab has to delete: all that is left over, or only of some experiments."""
    return {
        piece.key
        for piece in pieces
        if piece.home == home and not piece.stays and (not experiments or piece.experiment in experiments)
    }


def test_crowds_of_three_labs_lose_only_what_is_theirs_and_left_over(ground: Ground) -> None:
    """Three labs with the same experiments in namespaces that are prefixes of each other."""
    labs = [ground.lab(""), ground.lab("-a"), ground.lab("-a-b", prefix=f"t{ground.tag}-k-")]
    spaces = tuple(ground.spaces)
    ground.space("-else")
    pieces: list[Piece] = []
    for number, (lab, home) in enumerate(labs):
        ask(lab, "keep")
        pieces += synced_and_left(lab, home, "was", "was-2")
        pieces += crowd(ground, home, spaces, "abc"[number])
        widen(ground, home)
    (first, home_1), (second, home_2), (third, home_3) = labs
    seen = ground.alive()

    def step(lab: Lab, expected: set[Key], *arguments: str, code: int = 0) -> None:
        nonlocal seen
        answer = run(lab, *arguments, code=code)
        ground.judge(seen, expected, f"sync {' '.join(arguments)}: {answer.out}")
        seen = ground.alive()

    step(first, set(), "--no-prune")
    step(first, set(), "--max-prune", "2", code=1)
    step(first, set(), "--max-prune", "2%", code=1)
    bad = first.write("bad", "apiVersion: nimlab.dev/v1\nkind: Experiment\n")
    step(first, set(), code=1)
    step(first, set(), "gone", code=1)
    bad.unlink()
    step(first, due(pieces, home_1, "gone-2", "was-2"), "gone-2", "was-2")
    step(first, due(pieces, home_1) - due(pieces, home_1, "gone-2", "was-2"))
    dry = first.run("sync", "--dry-run", "--exit-code")
    assert dry.code == 3, "the objects of ours that are held on their way out still exist"
    assert "Plan: " in dry.out
    assert not any(f"to {verb}" in dry.out for verb in ("create", "update", "replace", "prune"))

    ground.admin.delete(parent_of(home_2))  # a lost parent hides nothing, and allows nothing
    (second.root / "experiments" / "keep.yaml").unlink()
    kept = {key for key in seen if key[1] == home_2.namespace and key[2].startswith(f"{home_2.prefix}keep")}
    seen = ground.alive()
    step(second, set(), code=1)
    step(second, due(pieces, home_2) | {key for key in kept if key[0] != "Pod"}, "--allow-empty")

    step(third, due(pieces, home_3), "--take-ownership", "--remove-foreign")
    ground.counters.served += len(pieces)


def parent_of(home: Home) -> Object:
    """A lab's parent."""
    return plain("ConfigMap", home.namespace, "nimlab-experiments")


def test_strays_survive_the_restart_of_an_experiment(ground: Ground) -> None:
    """A restart deletes peers by label: only those that are the StatefulSet's own."""
    lab, home = ground.lab()
    ask(lab, "keep")
    assert lab.run("sync").code == 0
    ours = ground.admin.items("Pod", home.namespace)
    assert len(ours) == 2
    labels = {**ours[0]["metadata"]["labels"], "applyset.kubernetes.io/part-of": home.id}
    body = {"containers": [{"name": "c", "image": "a/b:1"}]}
    strays = []
    for name, owners in (("stray-a", []), ("stray-b", [ground.admin.reference(home.namespace)])):
        item = plain("Pod", home.namespace, name)
        item["metadata"].update(labels=labels, ownerReferences=owners)
        ground.admin.apply({**item, "spec": body})
        strays.append(key_of(item))
    seen = ground.alive()
    ask(lab, "keep", interval="1s")
    assert lab.run("sync").code == 0
    ground.judge(seen, {key_of(pod) for pod in ours}, "a restart")
    ground.counters.served += len(strays)


def harmed(ground: Ground, home: Home, *, again: bool) -> list[tuple[Piece, Harm]]:
    """For each harm objects of several kinds, each in an experiment of its own: one's end stops no other."""
    dice, found = ground.dice("harm"), []
    for number, (name, harm) in enumerate(HARMS.items()):
        for kind in dice.sample(INSIDE, 4) if again or not harm.again else ():
            experiment = f"h{number}-{kind.lower()}"
            item = member(home, kind, home.namespace, experiment, experiment)
            piece = Piece(item=item, home=home, experiment=experiment, oddities=(name,), stays=harm.stays)
            ground.forged[piece.key] = (name,)
            found.append((piece, harm))
    ground.admin.reference(home.namespace)
    ground.admin.each(lambda one: ground.admin.apply(one[0].item), found)
    return found


def life_of(admin: Admin, item: Object) -> Life | None:
    """Who is there now."""
    live = admin.get(item)
    return None if live is None else Life(live["metadata"]["uid"])


def judge_harmed(ground: Ground, cases: list[tuple[Piece, Harm]], there: dict[Key, Life | None]) -> None:
    """What was there after the harm, and had to stay, is there; the rest has gone."""
    alive = {key: life for key, life in there.items() if life is not None}
    expected = {piece.key for piece, harm in cases if not harm.stays and piece.key in alive}
    gone = [piece.key for piece, _ in cases if piece.key not in there]
    assert not gone, f"nothing was ever tried with {gone}"
    ground.judge(alive, expected, "harm between the look and the act")
    ground.counters.served += len(cases)


def test_harm_just_before_the_delete_arrives_saves_the_object(ground: Ground, tmp_path: Path) -> None:
    lab, home = ground.lab()
    ask(lab, "keep")
    run(lab)
    cases = harmed(ground, home, again=True)
    widen(ground, home)
    by_path = {ground.admin.path(piece.item): (piece, harm) for piece, harm in cases}
    planned = {piece.key: ground.admin.get(piece.item) for piece, _ in cases}
    there: dict[Key, Life | None] = {}

    def fault(request: Seen) -> None:
        found = by_path.get(request.path) if request.method == "DELETE" else None
        if found is None:
            return
        piece, harm = found
        if piece.key not in there or harm.again:
            harm.do(ground.admin, piece.item)
            there[piece.key] = life_of(ground.admin, piece.item)

    with run_proxy(lab.kubeconfig, tmp_path) as proxy:
        proxy.fault = fault
        answer = run(replace(lab, kubeconfig=proxy.kubeconfig), code=1)
        assert_preconditions(proxy, planned, by_path)
    assert "another object has this name now" in answer.out
    judge_harmed(ground, cases, there)


def assert_preconditions(
    proxy: Proxy,
    planned: dict[Key, Object | None],
    by_path: dict[str, tuple[Piece, Harm]],
) -> None:
    """Every DELETE is bound to the identity that was planned, and to a version of it."""
    deletes = [request for request in proxy.seen if request.method == "DELETE"]
    assert len(deletes) >= len(by_path)
    for request in deletes:
        piece, _ = by_path[request.path]
        live = planned[piece.key]
        assert live is not None
        conditions: dict[str, Any] = json.loads(request.body)["preconditions"]
        assert conditions["uid"] == live["metadata"]["uid"]
        assert int(conditions["resourceVersion"]) >= int(live["metadata"]["resourceVersion"])


def test_harm_between_the_plan_and_the_act_saves_the_object(ground: Ground) -> None:
    home = Home(ground.space())
    cases = harmed(ground, home, again=False)
    cluster = ground.admin.cluster
    apply_set = ApplySet(name="experiments", namespace=home.namespace)
    seen = observe(cluster, [], apply_set, take_ownership=False, remove_foreign=False, parallel=4)
    plan = make_plan([], seen, everything_allowed())
    assert not plan.stops
    assert len(plan.changes) == len(cases)
    there: dict[Key, Life | None] = {}

    def harm_it(case: tuple[Piece, Harm]) -> None:
        piece, harm = case
        harm.do(ground.admin, piece.item)
        there[piece.key] = life_of(ground.admin, piece.item)

    ground.admin.each(harm_it, cases)
    options = ApplyOptions(parallel=8, take_ownership=True, timeout_s=5, version="0")
    list(execute(plan, cluster, options, stop=threading.Event()))
    judge_harmed(ground, cases, there)


def everything_allowed() -> PlanInputs:
    """A run that nothing holds back."""
    return PlanInputs(
        policy=SyncPolicy(allow_empty=True, allow_older=True, take_ownership=True),
        limit=PruneLimit(objects=None, percent=None, spare_single=False),
    )
