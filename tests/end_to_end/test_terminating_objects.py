"""A sync waits for objects that are being deleted, and reports what blocks their deletion."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from nimlab.cluster.apply.readiness import Readiness, WaitTarget, assess_readiness
from nimlab.objects.manifest import Manifest, ObjectKey
from nimlab.plan.explain_stuck_deletion import describe_blockers, finalizers_of
from nimlab.plan.sync_events import ExperimentSettled, ExperimentStuck, PeersProgress
from nimlab.report import format_event
from tests.cluster.test_apply import NOW, SET
from tests.support.lab import Lab

HOLD = "example.com/hold"
CONFIG = ObjectKey("ConfigMap", "lab", "red-spec")


def terminating(kind: str, *finalizers: str, **more: Any) -> Manifest:
    """Return a live object that is being deleted."""
    metadata = {
        "name": "red-spec",
        "namespace": "lab",
        "uid": "u1",
        "deletionTimestamp": "2026-11-23T11:59:00Z",
        "finalizers": list(finalizers),
        "labels": {"experiment": "red"},
    }
    return {"kind": kind, "metadata": metadata, **more}


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (terminating("ConfigMap", HOLD), f"finalizer `{HOLD}` blocks the deletion"),
        (terminating("Service", HOLD, "b/c"), f"the finalizers `{HOLD}`, `b/c` block the deletion"),
        (terminating("StatefulSet", "foregroundDeletion", status={"replicas": 4}), "it waits for its 4 pods"),
        (terminating("StatefulSet", "foregroundDeletion", HOLD), f"finalizer `{HOLD}` blocks the deletion"),
        (
            terminating("Namespace", spec={"finalizers": ["kubernetes", "x/y"]}),
            "finalizer `x/y` blocks the deletion",
        ),
        (terminating("ConfigMap"), "still exists"),
    ],
)
def test_blockers_of_a_deletion_are_named(item: Manifest, words: str) -> None:
    assert words in describe_blockers(item)


def test_conditions_of_a_namespace_list_the_remaining_objects() -> None:
    conditions = [
        {"type": "NamespaceDeletionDiscoveryFailure", "status": "False", "message": "all discovered"},
        {"type": "NamespaceContentRemaining", "status": "True", "message": "configmaps. has 1"},
        {"type": "NamespaceFinalizersRemaining", "status": "True", "message": f"{HOLD} in 1"},
    ]
    text = describe_blockers(
        terminating("Namespace", spec={"finalizers": ["kubernetes"]}, status={"conditions": conditions})
    )
    assert "NamespaceContentRemaining: configmaps. has 1" in text
    assert f"NamespaceFinalizersRemaining: {HOLD} in 1" in text
    assert "Discovery" not in text
    assert "`kubernetes`" not in text
    assert not finalizers_of(terminating("Namespace", spec={"finalizers": ["kubernetes"]}))


def test_deleted_object_of_any_kind_is_awaited_and_reported_with_its_finalizer() -> None:
    target = WaitTarget(
        experiment="red", workloads=frozenset(), terminating=frozenset({CONFIG}), uids={CONFIG: "u1"}
    )
    readiness = Readiness(SET)
    readiness.record_terminating("ConfigMap", [terminating("ConfigMap", HOLD)])
    progress = assess_readiness(target, readiness, NOW, waited_s=1, timeout_s=60)
    assert isinstance(progress, PeersProgress)
    stuck = assess_readiness(target, readiness, NOW, waited_s=61, timeout_s=60)
    assert isinstance(stuck, ExperimentStuck)
    for event in (progress, stuck):
        text = format_event(event, paint=False)
        assert text is not None
        assert "ConfigMap" in text
        assert HOLD in text
        assert "0 of 0" not in text
    other = terminating("ConfigMap", HOLD)
    other["metadata"]["uid"] = "u2"
    readiness.record_terminating("ConfigMap", [other])
    settled = assess_readiness(target, readiness, NOW, waited_s=1, timeout_s=60)
    assert isinstance(settled, ExperimentSettled), "a new object with this name is not awaited"


@pytest.fixture
def held(lab: Lab) -> Iterator[Lab]:
    """Yield a synced lab. After the test, remove the finalizers that objects still have."""
    assert lab.run("sync").code == 0
    yield lab
    for kind in ("StatefulSet", "ConfigMap", "Service", "NetworkPolicy"):
        for name in lab.names(kind):
            if HOLD in ((lab.get(kind, name) or {}).get("metadata", {}).get("finalizers") or ()):
                set_finalizers(lab, kind, name, "null")


def set_finalizers(lab: Lab, kind: str, name: str, finalizers: str) -> None:
    """Set an object's finalizers as a user would."""
    lab.kubectl("patch", kind, name, "--type=merge", "-p", f'{{"metadata":{{"finalizers":{finalizers}}}}}')


@pytest.mark.live
@pytest.mark.parametrize("kind", ["StatefulSet", "ConfigMap", "Service", "NetworkPolicy"])
def test_sync_succeeds_only_once_the_pruned_object_is_deleted(held: Lab, kind: str) -> None:
    name = next(n for n in held.names(kind) if "blue" in n)
    set_finalizers(held, kind, name, json.dumps([HOLD]))
    (held.root / "experiments" / "blue.yaml").unlink()
    for _ in range(2):
        answer = held.run("sync", "--timeout", "2s", "--max-prune", "100%")
        assert answer.code == 4, answer.err
        output = answer.out + answer.err
        assert f"{kind}/{held.namespace}/{name}" in output
        assert HOLD in output
        assert "0 of 0" not in output
    dry = held.run("sync", "--dry-run", "--exit-code")
    assert dry.code == 3
    assert HOLD in dry.out
    assert "Nothing to do" not in dry.out
    listed = held.run("list")
    assert "terminating" in listed.out
    assert held.run("list", "--exit-code").code == 4
    assert HOLD in held.run("status", "blue").out
    set_finalizers(held, kind, name, "null")
    assert held.run("sync", "--timeout", "30s").code == 0
    assert held.run("sync", "--dry-run", "--exit-code").code == 0
    assert held.get(kind, name) is None


@pytest.mark.live
def test_creation_waits_for_the_deletion_of_the_old_object_and_reports_its_finalizer(held: Lab) -> None:
    name = next(n for n in held.names("StatefulSet") if "blue" in n)
    set_finalizers(held, "StatefulSet", name, json.dumps([HOLD]))
    held.kubectl("delete", "statefulset", name, "--wait=false")
    assert HOLD in held.run("sync", "--dry-run").out
    answer = held.run("sync", "--timeout", "2s")
    assert answer.code == 1
    assert HOLD in answer.out + answer.err
    set_finalizers(held, "StatefulSet", name, "null")
    assert held.run("sync").code == 0


@pytest.mark.live
def test_terminating_foreign_object_is_not_awaited(held: Lab) -> None:
    """A label alone does not prove that the object belongs to the lab, so the sync does not wait for it."""
    labels = (held.get("ConfigMap", next(n for n in held.names("ConfigMap") if "blue" in n)) or {})[
        "metadata"
    ]
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "theirs",
            "namespace": held.namespace,
            "labels": labels["labels"],
            "finalizers": [HOLD],
        },
    }
    held.cluster.create(config_map)
    held.kubectl("delete", "configmap", "theirs", "--wait=false")
    assert held.run("sync", "--timeout", "2s").code == 0
    assert held.run("sync", "--dry-run", "--exit-code").code == 0


@pytest.mark.live
def test_blocker_of_the_labs_namespace_is_reported(held: Lab) -> None:
    set_finalizers(
        held, "ConfigMap", next(n for n in held.names("ConfigMap") if "blue" in n), json.dumps([HOLD])
    )
    held.kubectl("delete", "namespace", held.namespace, "--wait=false")
    held.kubectl("wait", "namespace", held.namespace, "--for=condition=NamespaceFinalizersRemaining")
    answer = held.run("sync", "--timeout", "2s")
    assert answer.code == 1
    assert HOLD in answer.out + answer.err, answer.out + answer.err
    assert "NamespaceFinalizersRemaining" in answer.out + answer.err
