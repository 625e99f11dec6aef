"""Apply-sets: the same IDs as in kubectl, the label and annotation of members, the proofs for a prune."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from nimlab.objects.applyset import MEMBER, PART_OF, ApplySet, apply_set_id, stamp
from nimlab.objects.manifest import Manifest
from nimlab.objects.manual_edit_tools import is_hand_tool
from nimlab.objects.prune_conditions import missing_proofs

SET = ApplySet(name="experiments", namespace="lab")


def test_ids_equal_those_of_kubectl() -> None:
    """The expected IDs come from kubectl's own tests (KEP-3659)."""
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
    """Return a manifest without the label and the annotation of a member."""
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "a", "namespace": "lab", "labels": {"b": "c"}},
    }


def test_stamp_adds_label_and_annotation_to_a_copy() -> None:
    before = plain()
    marked = stamp(before, SET)
    assert before == plain()
    assert marked["metadata"]["labels"] == {PART_OF: SET.id, "b": "c"}
    assert marked["metadata"]["annotations"] == {MEMBER: "experiments:apps/StatefulSet:lab/a"}


def member() -> Any:
    """Return a live member with all proofs."""
    live = stamp(plain(), SET)
    live["metadata"]["managedFields"] = [
        {
            "manager": "nimlab",
            "operation": "Apply",
            "fieldsV1": {"f:metadata": {"f:labels": {f"f:{PART_OF}": {}}}},
        }
    ]
    return live


def test_member_has_all_proofs() -> None:
    assert missing_proofs(member(), SET) == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v["metadata"]["labels"].pop(PART_OF), "label"),
        (lambda v: v["metadata"]["labels"].update({PART_OF: "x"}), "label"),
        (lambda v: v["metadata"]["annotations"].pop(MEMBER), "does not name this object"),
        (lambda v: v["metadata"].update(name="copy"), "does not name this object"),
        (lambda v: v["metadata"].update(namespace="elsewhere"), "does not name this object"),
        (lambda v: v.update(apiVersion="other.io/v1"), "does not name this object"),
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
def test_each_missing_proof_is_reported(change: Callable[[Any], object], words: str) -> None:
    live = copy.deepcopy(member())
    change(live)
    assert any(words in text for text in missing_proofs(live, SET))


@pytest.mark.parametrize(
    ("manager", "hand"),
    [("kubectl", True), ("kubectl-edit", True), ("k9s", True), ("hpa-controller", False), ("helm", False)],
)
def test_hand_tools_are_distinguished_from_controllers(manager: str, hand: bool) -> None:
    assert is_hand_tool(manager) is hand
