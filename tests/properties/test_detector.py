"""Compare the change detector with the API server, for random objects with random edits by others.

The reference is a server dry run of the apply. If its result has the same content and the same ownership as
the object, an apply would change nothing. The detector may suspect such an object, but it must never report a
changed object as unchanged. `NIMLAB_EXAMPLES` and `NIMLAB_SEED` set the number of examples and the seed.
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

from nimlab.cluster.interface import Propagation
from nimlab.cluster.kube import KubeCluster
from nimlab.errors import ClusterError
from nimlab.objects.applyset import EXPERIMENTS, FIELD_MANAGER, PLATFORM, ApplySet
from nimlab.objects.canonical_form import canonical
from nimlab.objects.managed_fields import own_entry
from nimlab.objects.manifest import Manifest, ObjectKey, key_of
from nimlab.objects.takeover import effective_takeover, require_version, takeover_of, takeover_patch
from nimlab.objects.unchanged_check import compare
from nimlab.units import UnitError
from tests.properties.edits import EDITS, mutate_part
from tests.properties.objects import BODIES, Dice, make_desired
from tests.support.lab import remove_namespaces

pytestmark = pytest.mark.live

EXAMPLES = int(os.environ.get("NIMLAB_EXAMPLES", "2000"))


def change_desired(dice: Dice, desired: Manifest) -> Manifest:
    """Return the next desired object: an equal object, or one with a changed, removed or reordered part."""
    changed = copy.deepcopy(desired)
    if dice.chance(0.3):
        mutate_part(dice, changed)
    try:
        return canonical(changed)
    except UnitError:  # a template with such a value would be rejected
        return desired


def bare(live: Manifest) -> Manifest:
    """Return the object without its status and without the fields that change with every write."""
    kept = copy.deepcopy(live)
    kept.pop("status", None)
    for name in ("managedFields", "resourceVersion", "generation"):
        kept["metadata"].pop(name, None)
    return kept


def would_change(cluster: KubeCluster, desired: Manifest, live: Manifest) -> bool | None:
    """Return whether an apply would change the object; None if the server rejects the apply.

    The dry run uses force, because a conflict would show only the owners, not the changes.
    """
    try:
        predicted = cluster.apply(desired, manager=FIELD_MANAGER, force=True, dry_run=True)
    except ClusterError:
        return None
    return bare(predicted) != bare(live) or own_entry(predicted) != own_entry(live)


def read_with_truth(cluster: KubeCluster, desired: Manifest, key: ObjectKey) -> tuple[Manifest, bool | None]:
    """Return the object, and whether an apply would change exactly this version of the object.

    The reads are repeated if a controller writes in the meantime.
    """
    live = cluster.get(key)
    while True:
        assert live is not None
        truth = would_change(cluster, desired, live)
        now = cluster.get(key)
        assert now is not None
        if now["metadata"]["resourceVersion"] == live["metadata"]["resourceVersion"]:
            return live, truth
        live = now


@pytest.mark.timeout(300 + EXAMPLES)  # an example takes about 0.05 s on an idle machine
def test_detector_never_reports_a_changed_object_as_unchanged(
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


def test_every_rendered_kind_is_tested() -> None:
    sets = [ApplySet(name=name, namespace="x") for name in (EXPERIMENTS, PLATFORM)]
    assert {kind for apply_set in sets for kind in apply_set.kinds} <= BODIES.keys()


def one_example(dice: Dice, cluster: KubeCluster, namespace: str, name: str, seen: Counter[str]) -> ObjectKey:
    """Apply an object, edit it as other managers, then compare the detector with the server."""
    desired = make_desired(dice, namespace, name)
    key = key_of(desired)
    live = cluster.apply(desired, manager=FIELD_MANAGER, force=False, dry_run=False)
    assert compare(desired, live).unchanged, compare(desired, live).reason
    number = dice.random.getrandbits(32)  # Hypothesis can repeat this number, but not the state of a server
    edit_dice = Dice(random.Random(number))  # noqa: S311 -- not a secret
    for _ in range(edit_dice.random.randint(0, 3)):
        edit_dice.random.choice(EDITS)(edit_dice, cluster, live)
        edited = cluster.get(key)
        assert edited is not None
        live = edited
    wanted = change_desired(dice, desired)
    truth = check_detector(cluster, wanted, key, seen)
    if truth is None and wanted != desired:
        check_detector(cluster, desired, key, seen)  # the edits of this example are still useful
    check_cleaning(cluster, wanted, live, seen)
    return key


def check_detector(cluster: KubeCluster, wanted: Manifest, key: ObjectKey, seen: Counter[str]) -> bool | None:
    """Compare the detector with the server; return whether an apply would change the object."""
    live, truth = read_with_truth(cluster, wanted, key)
    if compare(wanted, live).unchanged:
        assert truth is False, json.dumps([wanted, live])
        seen["unchanged"] += 1
    elif truth is None:
        seen["refused"] += 1
    else:
        seen["changed" if truth else "false-suspect"] += 1
    return truth


def check_cleaning(cluster: KubeCluster, wanted: Manifest, live: Manifest, seen: Counter[str]) -> None:
    """Check that only defaults remain after the removal of foreign fields."""
    takeover = takeover_of(wanted, live, remove_foreign=True)
    if takeover is None:
        return
    try:
        cluster.patch(key_of(live), [require_version(live), *takeover_patch(takeover, live)], dry_run=False)
        applied = cluster.apply(wanted, manager=FIELD_MANAGER, force=True, dry_run=False)
    except ClusterError:  # the desired object may be invalid
        return
    seen["cleaned"] += 1
    remaining = takeover_of(wanted, applied, remove_foreign=True)
    if remaining is not None:
        patched = cluster.patch(key_of(live), takeover_patch(remaining, applied), dry_run=True)
        assert effective_takeover(remaining, applied, patched) is None, json.dumps([wanted, live, applied])
