"""The managedFields rule against the server's own word, on random objects after random edits by others.

Truth is a server dry-run of the apply, held against the object: equal, and owned alike, means that an apply
changes nothing. The rule may suspect such an object; it must never call another one unchanged.
`NIMLAB_EXAMPLES` and `NIMLAB_SEED` set how many and which.
"""

from __future__ import annotations

import copy
import itertools
import json
import os
import random
import secrets
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from nimlab.cluster.kube import KubeCluster
from nimlab.cluster.port import Propagation
from nimlab.errors import ClusterError
from nimlab.objects.applyset import EXPERIMENTS, FIELD_MANAGER, PLATFORM, ApplySet
from nimlab.objects.canonical import canonical
from nimlab.objects.change_detector import compare
from nimlab.objects.managed_fields import own_entry
from nimlab.objects.manifest import Manifest, ObjectKey, key_of
from nimlab.objects.takeover import effective, only_at, takeover_of, takeover_patch
from nimlab.units import UnitError
from tests.properties.edits import EDITS, mutate_part
from tests.properties.objects import BODIES, Dice, make_desired
from tests.support.lab import remove_namespaces

pytestmark = pytest.mark.live

EXAMPLES = int(os.environ.get("NIMLAB_EXAMPLES", "2000"))


def change_desired(dice: Dice, desired: Manifest) -> Manifest:
    """What Git may ask for next: the same, or something changed, dropped or reordered."""
    changed = copy.deepcopy(desired)
    if dice.chance(0.3):
        mutate_part(dice, changed)
    try:
        return canonical(changed)
    except UnitError:  # the templates would have been refused
        return desired


def bare(live: Manifest) -> Manifest:
    """The object without what every write moves, and what its controller writes meanwhile."""
    kept = copy.deepcopy(live)
    kept.pop("status", None)
    for name in ("managedFields", "resourceVersion", "generation"):
        kept["metadata"].pop(name, None)
    return kept


def would_change(cluster: KubeCluster, desired: Manifest, live: Manifest) -> bool | None:
    """The server's word; None when it refuses the apply, so that nothing may be called unchanged.

    What others own is taken back: a conflict says who owns what, not what an apply would change.
    """
    try:
        predicted = cluster.apply(desired, manager=FIELD_MANAGER, force=True, dry_run=True)
    except ClusterError:
        return None
    return bare(predicted) != bare(live) or own_entry(predicted) != own_entry(live)


def settled(cluster: KubeCluster, desired: Manifest, key: ObjectKey) -> tuple[Manifest, bool | None]:
    """The object, and the server's word on just this state of it: controllers write when they like."""
    live = cluster.get(key)
    while True:
        assert live is not None
        truth = would_change(cluster, desired, live)
        now = cluster.get(key)
        assert now is not None
        if now["metadata"]["resourceVersion"] == live["metadata"]["resourceVersion"]:
            return live, truth
        live = now


@pytest.mark.timeout(300 + EXAMPLES)  # about 0.05 s each, on a machine that does nothing else
def test_rule_never_says_unchanged_when_the_server_would_change_something(
    cluster: KubeCluster, figure: Callable[[str], None]
) -> None:
    number = int(os.environ.get("NIMLAB_SEED") or secrets.randbelow(10**9))
    namespace = f"detector-{secrets.token_hex(4)}"
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    seen: Counter[str] = Counter()
    names = itertools.count()

    @seed(number)
    @settings(max_examples=EXAMPLES + EXAMPLES // 20, database=None, suppress_health_check=list(HealthCheck))
    @given(st.randoms(use_true_random=False))
    def examples(source: random.Random) -> None:
        key = one_example(Dice(source), cluster, namespace, f"x{next(names)}", seen)
        live = cluster.get(key)
        if live is not None:
            uid = live["metadata"]["uid"]
            cluster.delete(key, uid=uid, resource_version=None, propagation=Propagation.BACKGROUND)

    try:
        examples()
    finally:
        remove_namespaces(cluster, [namespace])
    verdicts = ("unchanged", "changed", "false-suspect", "refused")
    total = sum(seen[verdict] for verdict in verdicts)
    figure(
        f"detector: {total} examples of {len(BODIES)} kinds, seed {number}: "
        f"{seen['unchanged']} rightly unchanged, {seen['changed']} suspects that change, "
        f"{seen['refused']} that the server refuses, {seen['false-suspect']} false suspects, "
        f"0 false-unchanged; {seen['cleaned']} cleaned of foreign additions"
    )
    assert total - seen["refused"] >= EXAMPLES
    assert seen["refused"] < total * 0.15
    assert seen["unchanged"] > EXAMPLES / 20
    assert seen["changed"] > EXAMPLES / 20
    assert seen["false-suspect"] <= 2 + seen["unchanged"] / 100


def test_every_kind_that_is_rendered_is_among_them() -> None:
    sets = [ApplySet(name=name, namespace="x") for name in (EXPERIMENTS, PLATFORM)]
    assert {kind for one in sets for kind in one.kinds} <= BODIES.keys()


def one_example(dice: Dice, cluster: KubeCluster, namespace: str, name: str, seen: Counter[str]) -> ObjectKey:
    """Apply, let others edit, ask the rule and the server."""
    desired = make_desired(dice, namespace, name)
    key = key_of(desired)
    live = cluster.apply(desired, manager=FIELD_MANAGER, force=False, dry_run=False)
    assert compare(desired, live).unchanged, compare(desired, live).reason
    number = dice.random.getrandbits(32)  # hypothesis can repeat this, not what a server shows
    luck = Dice(random.Random(number))  # noqa: S311 -- not a secret
    for _ in range(luck.random.randint(0, 3)):
        luck.random.choice(EDITS)(luck, cluster, live)
        found = cluster.get(key)
        assert found is not None
        live = found
    wanted = change_desired(dice, desired)
    truth = judge(cluster, wanted, key, seen)
    if truth is None and wanted != desired:
        judge(cluster, desired, key, seen)  # so that the edits haven't been for nothing
    check_cleaning(cluster, wanted, live, seen)
    return key


def judge(cluster: KubeCluster, wanted: Manifest, key: ObjectKey, seen: Counter[str]) -> bool | None:
    """Hold the rule against the server's word, and return that."""
    live, truth = settled(cluster, wanted, key)
    if compare(wanted, live).unchanged:
        assert truth is False, json.dumps([wanted, live])
        seen["unchanged"] += 1
    elif truth is None:
        seen["refused"] += 1
    else:
        seen["changed" if truth else "false-suspect"] += 1
    return truth


def check_cleaning(cluster: KubeCluster, wanted: Manifest, live: Manifest, seen: Counter[str]) -> None:
    """Removing what others have added leaves nothing of it but defaults, and nothing to do the next time."""
    takeover = takeover_of(wanted, live, remove_foreign=True)
    if takeover is None:
        return
    try:
        cluster.patch(key_of(live), [only_at(live), *takeover_patch(takeover, live)], dry_run=False)
        made = cluster.apply(wanted, manager=FIELD_MANAGER, force=True, dry_run=False)
    except ClusterError:  # what is wanted may not be valid at all
        return
    seen["cleaned"] += 1
    left = takeover_of(wanted, made, remove_foreign=True)
    if left is not None:
        again = cluster.patch(key_of(live), takeover_patch(left, made), dry_run=True)
        assert effective(left, made, again) is None, json.dumps([wanted, live, made])
