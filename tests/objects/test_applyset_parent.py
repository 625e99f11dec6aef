"""The record on the parent: writing and reading it, its scope before and after a run, and its commits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nimlab.errors import OwnershipConflict, PlanError
from nimlab.objects.applyset import ApplySet
from nimlab.objects.applyset_parent import (
    BEGUN,
    CONTAINS,
    ID,
    NAMESPACES,
    TOOLING,
    AppliedCommit,
    Parent,
    Scope,
    parent_manifest,
    parse_parent,
)
from nimlab.objects.manifest import ObjectKey

SET = ApplySet(name="experiments", namespace="lab")
SCOPE = Scope(kinds=frozenset({"StatefulSet", "Service"}), namespaces=frozenset({"lab", "z", "b"}))
RECORD = Parent(scope=SCOPE, commit="a" * 40, begun={"*": "b" * 40, "red": "c" * 40})


def test_written_parent_is_read_back_unchanged() -> None:
    manifest = parent_manifest(SET, RECORD, "1.2.3")
    annotations = manifest["metadata"]["annotations"]
    assert annotations[CONTAINS] == "Service,StatefulSet.apps"
    assert annotations[NAMESPACES] == "b,z"
    assert annotations[TOOLING] == "nimlab/v1.2.3"
    parent = parse_parent(manifest, SET)
    assert parent is not None
    assert parent == RECORD
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
def test_parent_of_another_tool_or_set_is_rejected(
    change: Callable[[Any], object], error: type[Exception]
) -> None:
    manifest = parent_manifest(SET, Parent(scope=SCOPE), "1")
    change(manifest["metadata"])
    with pytest.raises(error):
        parse_parent(manifest, SET)


def test_begun_commit_applies_to_its_experiment_or_to_all() -> None:
    whole_lab = (AppliedCommit(sha="a" * 40, experiment=None), AppliedCommit(sha="b" * 40, experiment=None))
    assert RECORD.entries(None) == (*whole_lab, AppliedCommit(sha="c" * 40, experiment="red"))
    assert RECORD.entries(frozenset({"blue"})) == whole_lab
    assert Parent.none().entries(None) == ()


def test_malformed_begun_entry_applies_to_all() -> None:
    manifest = parent_manifest(SET, RECORD, "1")
    manifest["metadata"]["annotations"][BEGUN] = "nonsense"
    parent = parse_parent(manifest, SET)
    assert parent is not None
    assert parent.entries(frozenset({"red"}))[1] == AppliedCommit(sha="nonsense", experiment=None)


def test_run_over_the_whole_lab_replaces_begun_entries() -> None:
    wide = Scope(kinds=frozenset({"ConfigMap"}), namespaces=frozenset({"lab"}))
    during = RECORD.begin(wide, "d" * 40, None)
    assert during == Parent(scope=SCOPE.union(wide), commit="a" * 40, begun={"*": "d" * 40})
    assert during.end(wide, "d" * 40) == Parent(scope=wide, commit="d" * 40)
    assert during.end(wide, None) == Parent(scope=wide, commit="a" * 40, begun={"*": "d" * 40})
    narrowed = RECORD.begin(wide, "d" * 40, frozenset({"red"}))
    assert narrowed.begun == {"*": "b" * 40, "red": "d" * 40}
    assert during.begin(wide, "d" * 40, frozenset({"red"})).begun == during.begun


def test_scope_contains_the_kinds_and_namespaces_of_its_objects() -> None:
    keys = [ObjectKey("Service", "a", "x"), ObjectKey("Namespace", "", "b")]
    scope = Scope.of(keys)
    assert scope == Scope(kinds=frozenset({"Service", "Namespace"}), namespaces=frozenset({"a"}))
    assert scope.union(Scope.empty()) == scope
