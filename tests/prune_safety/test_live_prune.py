"""On a real server, syncs delete left-over objects and keep foreign objects, for many variants of objects.

The tests write objects directly, run the CLI, and read all objects again. Setting `NIMLAB_SEED` repeats the
random choices.
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
from tests.prune_safety.direct_writes import DirectAccess
from tests.prune_safety.oracle import INSIDE, LabScope, Object, member, plain
from tests.prune_safety.server_fixtures import (
    Identity,
    Key,
    LiveServer,
    Piece,
    choose_variants,
    key_of,
    make_never_pruned,
    make_variant,
    sync,
    widen_scope,
    write_experiment,
)
from tests.prune_safety.write_sequences import LATE_CHANGES, LateChange
from tests.support.api_proxy import Proxy, Seen, run_proxy
from tests.support.lab import Lab

pytestmark = pytest.mark.live

OBJECT_COUNT = 90
LEFT = ("gone", "gone-2", "gone-2-a", "was", "keep", "keep-2")


def make_left_over(lab: Lab, scope: LabScope, *names: str) -> list[Piece]:
    """Sync experiments and delete their files. Return the objects, which are then left over."""
    for name in names:
        write_experiment(lab, name)
    sync(lab)
    pieces = []
    for name in names:
        items = json.loads(lab.run("render", name, "--output", "json").out)
        pieces += [Piece(item=item, scope=scope, experiment=name) for item in items]
        (lab.root / "experiments" / f"{name}.yaml").unlink()
    return pieces


def make_many(server: LiveServer, scope: LabScope, spaces: tuple[str, ...], suffix: str) -> list[Piece]:
    """Create objects with many variants, mostly in the lab's own namespace."""
    rng = server.rng(f"crowd {suffix}")
    pieces = [
        make_variant(
            rng,
            server,
            scope,
            name=f"c{number}-{suffix}",
            spaces=spaces,
            experiment=rng.choice(LEFT),
            variants=variants,
            sequence=sequence,
        )
        for number, (variants, sequence) in enumerate(choose_variants(rng, OBJECT_COUNT))
    ]
    kinds = ("Secret", "ServiceAccount", "Lease", "Role", "PersistentVolumeClaim")
    pieces += [make_never_pruned(scope, kind, f"n-{suffix}") for kind in kinds]
    server.direct.each(server.write, pieces)
    return pieces


def due(pieces: list[Piece], scope: LabScope, *experiments: str) -> set[Key]:
    """Return the keys that a sync of this lab must delete, or a sync of only these experiments."""
    return {
        piece.key
        for piece in pieces
        if piece.scope == scope and not piece.stays and (not experiments or piece.experiment in experiments)
    }


def test_three_labs_lose_only_their_own_left_over_objects(server: LiveServer) -> None:
    """Three labs have the same experiments, in namespaces whose names are prefixes of each other."""
    labs = [server.lab(""), server.lab("-a"), server.lab("-a-b", prefix=f"t{server.tag}-k-")]
    spaces = tuple(server.spaces)
    server.space("-else")
    pieces: list[Piece] = []
    for number, (lab, scope) in enumerate(labs):
        write_experiment(lab, "keep")
        pieces += make_left_over(lab, scope, "was", "was-2")
        pieces += make_many(server, scope, spaces, "abc"[number])
        widen_scope(server, scope)
    (first, home_1), (second, home_2), (third, home_3) = labs
    before = server.identities()

    def step(lab: Lab, expected: set[Key], *arguments: str, code: int = 0) -> None:
        nonlocal before
        answer = sync(lab, *arguments, code=code)
        server.check_deletions(before, expected, f"sync {' '.join(arguments)}: {answer.out}")
        before = server.identities()

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
    assert dry.code == 3, "our objects with a finalizer still exist"
    assert "Plan: " in dry.out
    assert not any(f"to {verb}" in dry.out for verb in ("create", "update", "replace", "prune"))

    # The lab has no parent and no experiment files. A sync still finds all objects of the lab, but deletes
    # them only with `--allow-empty`.
    server.direct.delete(parent_of(home_2))
    (second.root / "experiments" / "keep.yaml").unlink()
    kept = {key for key in before if key[1] == home_2.namespace and key[2].startswith(f"{home_2.prefix}keep")}
    before = server.identities()
    step(second, set(), code=1)
    step(second, due(pieces, home_2) | {key for key in kept if key[0] != "Pod"}, "--allow-empty")

    step(third, due(pieces, home_3), "--take-ownership", "--remove-foreign")
    server.counters.served += len(pieces)


def parent_of(scope: LabScope) -> Object:
    """Return the parent of a lab's apply-set."""
    return plain("ConfigMap", scope.namespace, "nimlab-experiments")


def test_foreign_pods_survive_the_restart_of_an_experiment(server: LiveServer) -> None:
    """A restart deletes only pods of the StatefulSet, not other pods with the experiment's label."""
    lab, scope = server.lab()
    write_experiment(lab, "keep")
    assert lab.run("sync").code == 0
    ours = server.direct.items("Pod", scope.namespace)
    assert len(ours) == 2
    labels = {**ours[0]["metadata"]["labels"], "applyset.kubernetes.io/part-of": scope.id}
    body = {"containers": [{"name": "c", "image": "a/b:1"}]}
    strays = []
    for name, owners in (("stray-a", []), ("stray-b", [server.direct.reference(scope.namespace)])):
        item = plain("Pod", scope.namespace, name)
        item["metadata"].update(labels=labels, ownerReferences=owners)
        server.direct.apply({**item, "spec": body})
        strays.append(key_of(item))
    before = server.identities()
    write_experiment(lab, "keep", interval="1s")
    assert lab.run("sync").code == 0
    server.check_deletions(before, {key_of(pod) for pod in ours}, "a restart")
    server.counters.served += len(strays)


def make_late_changes(server: LiveServer, scope: LabScope, *, again: bool) -> list[tuple[Piece, LateChange]]:
    """Create several objects for each late change. Each object is in an experiment of its own."""
    rng, cases = server.rng("harm"), []
    for number, (name, late_change) in enumerate(LATE_CHANGES.items()):
        for kind in rng.sample(INSIDE, 4) if again or not late_change.again else ():
            experiment = f"h{number}-{kind.lower()}"
            item = member(scope, kind, scope.namespace, experiment, experiment)
            piece = Piece(
                item=item, scope=scope, experiment=experiment, oddities=(name,), stays=late_change.stays
            )
            server.variants_by_key[piece.key] = (name,)
            cases.append((piece, late_change))
    server.direct.reference(scope.namespace)
    server.direct.each(lambda case: server.direct.apply(case[0].item), cases)
    return cases


def read_identity(direct: DirectAccess, item: Object) -> Identity | None:
    """Return the identity of an object; None if it does not exist."""
    live = direct.get(item)
    return None if live is None else Identity(live["metadata"]["uid"])


def check_late_changes(
    server: LiveServer, cases: list[tuple[Piece, LateChange]], identities_after: dict[Key, Identity | None]
) -> None:
    """Check that each object that the sync had to keep exists, and that the other objects are deleted."""
    identities = {key: identity for key, identity in identities_after.items() if identity is not None}
    expected = {
        piece.key for piece, late_change in cases if not late_change.stays and piece.key in identities
    }
    untried = [piece.key for piece, _ in cases if piece.key not in identities_after]
    assert not untried, f"no change was made to {untried}"
    server.check_deletions(identities, expected, "changes between plan and execution")
    server.counters.served += len(cases)


def test_object_changed_just_before_its_delete_arrives_is_kept(server: LiveServer, tmp_path: Path) -> None:
    lab, scope = server.lab()
    write_experiment(lab, "keep")
    sync(lab)
    cases = make_late_changes(server, scope, again=True)
    widen_scope(server, scope)
    by_path = {server.direct.path(piece.item): (piece, late_change) for piece, late_change in cases}
    planned = {piece.key: server.direct.get(piece.item) for piece, _ in cases}
    identities_after: dict[Key, Identity | None] = {}

    def fault(request: Seen) -> None:
        case = by_path.get(request.path) if request.method == "DELETE" else None
        if case is None:
            return
        piece, late_change = case
        if piece.key not in identities_after or late_change.again:
            late_change.do(server.direct, piece.item)
            identities_after[piece.key] = read_identity(server.direct, piece.item)

    with run_proxy(lab.kubeconfig, tmp_path) as proxy:
        proxy.fault = fault
        answer = sync(replace(lab, kubeconfig=proxy.kubeconfig), code=1)
        assert_preconditions(proxy, planned, by_path)
    assert "another object has this name now" in answer.out
    check_late_changes(server, cases, identities_after)


def assert_preconditions(
    proxy: Proxy,
    planned: dict[Key, Object | None],
    by_path: dict[str, tuple[Piece, LateChange]],
) -> None:
    """Check the preconditions of every DELETE: the planned UID, and a planned or newer resourceVersion."""
    deletes = [request for request in proxy.seen if request.method == "DELETE"]
    assert len(deletes) >= len(by_path)
    for request in deletes:
        piece, _ = by_path[request.path]
        live = planned[piece.key]
        assert live is not None
        conditions: dict[str, Any] = json.loads(request.body)["preconditions"]
        assert conditions["uid"] == live["metadata"]["uid"]
        assert int(conditions["resourceVersion"]) >= int(live["metadata"]["resourceVersion"])


def test_object_changed_between_plan_and_execution_is_kept(server: LiveServer) -> None:
    scope = LabScope(server.space())
    cases = make_late_changes(server, scope, again=False)
    cluster = server.direct.cluster
    apply_set = ApplySet(name="experiments", namespace=scope.namespace)
    snapshot = observe(cluster, [], apply_set, take_ownership=False, remove_foreign=False, parallel=4)
    plan = make_plan([], snapshot, allow_everything())
    assert not plan.stops
    assert len(plan.changes) == len(cases)
    identities_after: dict[Key, Identity | None] = {}

    def change_it(case: tuple[Piece, LateChange]) -> None:
        piece, late_change = case
        late_change.do(server.direct, piece.item)
        identities_after[piece.key] = read_identity(server.direct, piece.item)

    server.direct.each(change_it, cases)
    options = ApplyOptions(parallel=8, take_ownership=True, timeout_s=5, version="0")
    list(execute(plan, cluster, options, stop=threading.Event()))
    check_late_changes(server, cases, identities_after)


def allow_everything() -> PlanInputs:
    """Return the inputs of a plan whose policy allows all changes."""
    return PlanInputs(
        policy=SyncPolicy(allow_empty=True, allow_older=True, take_ownership=True),
        limit=PruneLimit(objects=None, percent=None, spare_single=False),
    )
