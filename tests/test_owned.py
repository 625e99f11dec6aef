"""Whose object is this: IDs as kubectl makes them, the parent's record, and the proofs before a prune."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from nimlab.errors import OwnershipConflict, PlanError
from nimlab.manifest import Manifest, ObjectKey
from nimlab.owned import (
    CONTAINS,
    ID,
    MEMBER,
    NAMESPACES,
    PART_OF,
    TOOLING,
    ApplySet,
    Scope,
    apply_set_id,
    is_hand_tool,
    missing_proofs,
    parent_manifest,
    parse_parent,
    stamp,
)

SET = ApplySet(name="experiments", namespace="lab")


def test_ids_are_kubectls() -> None:
    """The vectors are those of kubectl's own tests (KEP-3659)."""
    assert (
        apply_set_id("my-set", "test", "Secret", "")
        == "applyset-0eFHV8ySqp7XoShsGvyWFQD3s96yqwHmzc4e0HR1dsY-v1"
    )
    assert (
        apply_set_id("my-set", "", "ApplySet", "company.com")
        == "applyset-rhp1a-HVAVT_dFgyEygyA1BEB82HPp2o10UiFTpqtAs-v1"
    )
    assert len(SET.id) <= 63


def plain() -> Manifest:
    """A manifest before it is marked."""
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "a", "namespace": "lab", "labels": {"b": "c"}},
    }


def test_stamp_marks_a_copy() -> None:
    before = plain()
    marked = stamp(before, SET)
    assert before == plain()
    assert marked["metadata"]["labels"] == {PART_OF: SET.id, "b": "c"}
    assert marked["metadata"]["annotations"] == {MEMBER: "experiments:apps/StatefulSet:lab/a"}


SCOPE = Scope(kinds=frozenset({"StatefulSet", "Service"}), namespaces=frozenset({"lab", "z", "b"}))


def test_parent_says_what_it_was_told() -> None:
    manifest = parent_manifest(SET, SCOPE, "a" * 40, "1.2.3")
    annotations = manifest["metadata"]["annotations"]
    assert annotations[CONTAINS] == "Service,StatefulSet.apps"
    assert annotations[NAMESPACES] == "b,z"
    assert annotations[TOOLING] == "nimlab/v1.2.3"
    parent = parse_parent(manifest, SET)
    assert parent is not None
    assert (parent.scope, parent.commit) == (SCOPE, "a" * 40)
    assert parse_parent(None, SET) is None


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda m: m["annotations"].update({TOOLING: "kubectl/v1.34"}), OwnershipConflict),
        (lambda m: m["annotations"].pop(TOOLING), OwnershipConflict),
        (lambda m: m["labels"].update({ID: "applyset-other-v1"}), OwnershipConflict),
        (lambda m: m["labels"].pop(ID), OwnershipConflict),
        (lambda m: m["annotations"].update({CONTAINS: "Widget.example.org"}), PlanError),
        (lambda m: m["annotations"].update({CONTAINS: "ClusterRole.rbac.authorization.k8s.io"}), PlanError),
    ],
)
def test_parent_of_somebody_else_is_refused(change: Callable[[Any], object], error: type[Exception]) -> None:
    manifest = parent_manifest(SET, SCOPE, None, "1")
    change(manifest["metadata"])
    with pytest.raises(error):
        parse_parent(manifest, SET)


def member() -> Any:
    """A live member with every proof."""
    live = stamp(plain(), SET)
    live["metadata"]["managedFields"] = [
        {
            "manager": "nimlab",
            "operation": "Apply",
            "fieldsV1": {"f:metadata": {"f:labels": {f"f:{PART_OF}": {}}}},
        }
    ]
    return live


def test_member_has_every_proof() -> None:
    assert missing_proofs(member(), SET) == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v["metadata"]["labels"].pop(PART_OF), "label"),
        (lambda v: v["metadata"]["labels"].update({PART_OF: "x"}), "label"),
        (lambda v: v["metadata"]["annotations"].pop(MEMBER), "doesn't name it"),
        (lambda v: v["metadata"].update(name="copy"), "doesn't name it"),
        (lambda v: v["metadata"].update(namespace="elsewhere"), "doesn't name it"),
        (lambda v: v.update(apiVersion="other.io/v1"), "doesn't name it"),
        (lambda v: v["metadata"].pop("managedFields"), "not applied"),
        (lambda v: v["metadata"]["managedFields"][0].update(operation="Update"), "not applied"),
        (lambda v: v["metadata"]["managedFields"][0].update(manager="kubectl"), "not applied"),
        (lambda v: v["metadata"]["managedFields"][0].update(fieldsV1={"f:metadata": {}}), "not applied"),
        (lambda v: v["metadata"].update(ownerReferences=[{"uid": "u"}]), "owned by"),
        (lambda v: v["metadata"]["annotations"].update({"nimlab.dev/protect": "true"}), "protected"),
        (lambda v: v["metadata"]["annotations"].update({"nimlab.dev/protect": "yes"}), "protected"),
        (lambda v: v["metadata"].update(deletionTimestamp="2026-01-01T00:00:00Z"), "being deleted"),
        (lambda v: v.update(kind="PersistentVolumeClaim"), "never pruned"),
    ],
)
def test_each_proof_can_be_missing(change: Callable[[Any], object], words: str) -> None:
    live = copy.deepcopy(member())
    change(live)
    assert any(words in text for text in missing_proofs(live, SET))


def test_scope_grows_and_knows_its_objects() -> None:
    keys = [ObjectKey("Service", "a", "x"), ObjectKey("Namespace", "", "b")]
    scope = Scope.of(keys)
    assert scope == Scope(kinds=frozenset({"Service", "Namespace"}), namespaces=frozenset({"a"}))
    assert scope.union(Scope.empty()) == scope


@pytest.mark.parametrize(
    ("manager", "hand"),
    [("kubectl", True), ("kubectl-edit", True), ("k9s", True), ("hpa-controller", False), ("helm", False)],
)
def test_hands_and_controllers(manager: str, hand: bool) -> None:
    assert is_hand_tool(manager) is hand
