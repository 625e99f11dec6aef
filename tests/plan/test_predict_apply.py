"""The client-side prediction of an apply, compared with the result of the server."""

from __future__ import annotations

import copy
import itertools
import os
import random
import secrets
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from nimlab.cluster.interface import Propagation
from nimlab.cluster.kube import KubeCluster
from nimlab.errors import ClusterError
from nimlab.objects.applyset import FIELD_MANAGER
from nimlab.objects.manifest import Manifest, key_of
from nimlab.objects.unchanged_check import compare
from nimlab.plan.diff import diff_objects
from nimlab.plan.pod_restarts import changes_template
from nimlab.plan.predict_apply import predict
from tests.objects.test_managed_fields import DESIRED, make_live, owned, pod, pod_owned
from tests.properties.edits import EDITS, edit_reset
from tests.properties.objects import Dice, make_desired
from tests.properties.test_detector import change_desired
from tests.support.lab import remove_namespaces

EXAMPLES = int(os.environ.get("NIMLAB_EXAMPLES", "400"))


def changed_by(edit: Callable[[Any], object]) -> list[tuple[str, Any, Any]]:
    """Return the predicted changes of an applied object if its file is edited in this way."""
    desired, live = copy.deepcopy(DESIRED), make_live()
    edit(desired)
    return [(f.path, f.old, f.new) for f in diff_objects(live, predict(desired, live))]


def paths(edit: Callable[[Any], object]) -> list[str]:
    """Return the paths of the predicted changes."""
    return [path for path, _, _ in changed_by(edit)]


INIT = "spec.template.spec.initContainers"
PORTS = "spec.template.spec.containers[c].ports"


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda d: None, []),
        (lambda d: d["spec"].pop("paused"), ["spec.paused"]),
        (lambda d: d["metadata"]["labels"].clear(), ["metadata.labels.experiment"]),
        (lambda d: d["spec"].update(replicas=2), ["spec.replicas"]),
        (lambda d: pod(d)["initContainers"].pop(), [f"{INIT}[two]"]),
        (lambda d: pod(d)["initContainers"].reverse(), [f"{INIT} order"]),
        (lambda d: pod(d)["initContainers"].insert(1, {"name": "new"}), [f"{INIT}[new]"]),
        (lambda d: pod(d)["containers"][0].pop("ports"), [f"{PORTS}[1/TCP]", f"{PORTS}[1/UDP]"]),
        (lambda d: d["spec"].update(selector={"x": 1}), ["spec.selector.matchLabels.a", "spec.selector.x"]),
        (lambda d: pod(d).update(nodeSelector={"a": "b"}), ["spec.template.spec.nodeSelector.a"]),
    ],
)
def test_removed_and_added_fields_are_predicted(edit: Callable[[Any], object], expected: list[str]) -> None:
    assert paths(edit) == expected


def test_fields_of_other_managers_stay() -> None:
    desired, live = copy.deepcopy(DESIRED), make_live()
    pod(live)["initContainers"].insert(1, {"name": "theirs"})
    theirs: dict[str, Any] = {"f:spec": {"f:paused": {}, "f:template": {"f:spec": {"f:initContainers": {
        'k:{"name":"theirs"}': {".": {}, "f:name": {}}, 'k:{"name":"two"}': {".": {}, "f:name": {}},
    }}}}}  # fmt: skip
    live["metadata"]["managedFields"].append(
        {"manager": "x", "operation": "Update", "apiVersion": "apps/v1", "fieldsV1": theirs}
    )
    del desired["spec"]["paused"]
    pod(desired)["initContainers"].pop()
    predicted = predict(desired, live)
    assert diff_objects(live, predicted) == ()
    assert [container["name"] for container in pod(predicted)["initContainers"]] == ["one", "theirs", "two"]


def test_item_that_nimlab_owns_in_part_keeps_its_other_fields() -> None:
    desired, live = copy.deepcopy(DESIRED), make_live()
    pod(live)["initContainers"][1]["image"] = "theirs"
    pod_owned(live)["f:initContainers"]['k:{"name":"two"}'] = {"f:name": {}}
    owned(live)["f:spec"]["f:finalizers"] = {'v:"x"': {}}
    live["spec"]["finalizers"] = ["x", "y"]
    pod(desired)["initContainers"].pop()
    predicted = predict(desired, live)
    assert pod(predicted)["initContainers"] == [{"name": "one"}, {"image": "theirs"}]
    assert predicted["spec"]["finalizers"] == ["y"]
    desired["spec"]["finalizers"] = ["z"]
    assert predict(desired, live)["spec"]["finalizers"] == ["y", "z"]


def test_list_that_another_manager_owns_as_a_whole_is_replaced() -> None:
    desired = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "a", "namespace": "b"},
        "imagePullSecrets": [{"name": "p"}],
    }
    entry = {"manager": "other", "operation": "Apply", "fieldsV1": {"f:imagePullSecrets": {}}}
    live = copy.deepcopy(desired) | {"imagePullSecrets": [{"name": "p"}, {"name": "q"}]}
    live["metadata"] = {"name": "a", "namespace": "b", "managedFields": [entry]}
    assert predict(desired, live)["imagePullSecrets"] == [{"name": "p"}]


@pytest.mark.parametrize(
    ("field", "owners"),
    [
        ("selector", ["x"]),
        ("selector", ["nimlab"]),
        ("selector", ["nimlab", "x"]),
        ("selector", []),
        ("unknown", ["x"]),
        ("unknown", ["nimlab"]),
        ("unknown", ["nimlab", "x"]),
    ],
)
def test_atomic_map_is_replaced_whoever_owns_it(field: str, owners: list[str]) -> None:
    """An update of one key by another manager makes it the owner of the whole map."""
    desired: dict[str, Any] = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "a", "namespace": "b"},
        "spec": {field: {"matchLabels": {"app": "y"}}},
    }
    live = copy.deepcopy(desired)
    live["spec"][field]["matchLabels"]["added"] = "x"
    live["metadata"]["managedFields"] = [
        {
            "manager": owner,
            "operation": "Apply" if owner == "nimlab" else "Update",
            "apiVersion": "policy/v1",
            "fieldsV1": {"f:spec": {f"f:{field}": {}}},
        }
        for owner in owners
    ]
    assert predict(desired, live)["spec"] == desired["spec"]


@pytest.mark.live
@pytest.mark.timeout(300 + EXAMPLES)
def test_prediction_misses_no_change_of_the_server(
    cluster: KubeCluster, figure: Callable[[str], None]
) -> None:
    """The objects are random, and so are the edits by other managers and in Git."""
    number = int(os.environ.get("NIMLAB_SEED") or secrets.randbelow(10**9))
    namespace = f"prediction-{secrets.token_hex(4)}"
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    seen: Counter[str] = Counter()
    names = itertools.count()

    @seed(number)
    @settings(max_examples=EXAMPLES, database=None, suppress_health_check=list(HealthCheck))
    @given(st.randoms(use_true_random=False))
    def examples(source: random.Random) -> None:
        check_example(Dice(source), cluster, namespace, f"x{next(names)}", seen)

    try:
        examples()
    finally:
        remove_namespaces(cluster, [namespace])
    figure(
        f"prediction: {EXAMPLES} examples, seed {number}: {seen['same']} predicted exactly, "
        f"{seen['more']} with additional changes, {seen['refused']} rejected by the server, 0 changes missed"
    )
    assert seen["same"] > EXAMPLES / 10


def read_and_dry_run(cluster: KubeCluster, wanted: Manifest) -> tuple[Manifest, Manifest | None]:
    """Return the live object and the result of a dry run; the result is None if the server rejects the apply.

    If a controller, such as the Deployment controller, changes the object in between, try again.
    """
    live = cluster.get(key_of(wanted))
    while True:
        assert live is not None
        try:
            applied = cluster.apply(wanted, manager=FIELD_MANAGER, force=True, dry_run=True)
        except ClusterError:
            applied = None
        now = cluster.get(key_of(wanted))
        if now == live:
            return live, applied
        live = now


def check_example(dice: Dice, cluster: KubeCluster, namespace: str, name: str, seen: Counter[str]) -> None:
    """Apply an object, edit it as other managers and in Git, and compare the prediction with the server."""
    desired = make_desired(dice, namespace, name)
    live = cluster.apply(desired, manager=FIELD_MANAGER, force=False, dry_run=False)
    luck = Dice(random.Random(dice.random.getrandbits(32)))  # noqa: S311 -- not a secret
    for _ in range(luck.random.randint(0, 2)):
        luck.random.choice([edit for edit in EDITS if edit is not edit_reset])(luck, cluster, live)
        live = cluster.get(key_of(desired)) or live
    wanted = change_desired(dice, change_desired(dice, desired))
    live, applied = read_and_dry_run(cluster, wanted)
    uid = live["metadata"]["uid"]
    cluster.delete(key_of(live), uid=uid, resource_version=None, propagation=Propagation.BACKGROUND)
    if applied is None or compare(wanted, live).unchanged:
        seen["refused" if applied is None else "unchanged"] += 1
        return
    predicted = predict(wanted, live)
    actual, expected = diff_objects(live, applied), diff_objects(live, predicted)
    assert expected or not actual, (wanted, live, applied)
    assert changes_template(live, predicted) or not changes_template(live, applied), (wanted, live, applied)
    seen["same" if actual == expected else "more"] += 1
