"""Record on the apply-set's parent: the scope of the members, the synced commits, the identity of the lab.

In: the parent as the server returned it, and the scope, the commit and the experiments of a run. Out: a
`Parent`, its manifest, and the records to write before and after the run. The record is compatible with
kubectl's apply-sets (KEP-3659). Pure.

A sync records its commit as begun before its first write, and as synced after its last write. Therefore
nimlab refuses an older commit even after an interrupted sync.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from nimlab.errors import OwnershipConflict, PlanError
from nimlab.objects.applyset import ApplySet
from nimlab.objects.kinds_and_order import KINDS
from nimlab.objects.lab_identity import LabIdentity
from nimlab.objects.manifest import Manifest, ObjectKey, annotations_of, labels_of

ID: Final = "applyset.kubernetes.io/id"
TOOLING: Final = "applyset.kubernetes.io/tooling"
CONTAINS: Final = "applyset.kubernetes.io/contains-group-kinds"
NAMESPACES: Final = "applyset.kubernetes.io/additional-namespaces"
COMMIT: Final = "nimlab.dev/commit"
BEGUN: Final = "nimlab.dev/begun"
ORIGIN: Final = "nimlab.dev/first-commit"
LAB: Final = "nimlab.dev/lab"
FOLDER: Final = "nimlab.dev/folder"
FORMER: Final = "nimlab.dev/former-namespaces"
PARENT_MANAGER: Final = "nimlab-applyset"

_ALL_EXPERIMENTS: Final = "*"  # not a valid name of an experiment
_IN_REPOSITORY: Final = "git:"
_ON_HOST: Final = "host:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The kinds of the members, and the namespaces of the members that are not cluster-scoped."""

    kinds: frozenset[str]
    namespaces: frozenset[str]

    @classmethod
    def empty(cls) -> Self:
        """Return the scope of a set without members."""
        return cls(kinds=frozenset(), namespaces=frozenset())

    @classmethod
    def of(cls, keys: Iterable[ObjectKey]) -> Self:
        """Return the smallest scope that contains these objects."""
        members = frozenset(keys)
        return cls(
            kinds=frozenset(key.kind for key in members),
            namespaces=frozenset(key.namespace for key in members) - {""},
        )

    def union(self, other: Scope) -> Scope:
        """Return the smallest scope that contains both scopes."""
        return Scope(kinds=self.kinds | other.kinds, namespaces=self.namespaces | other.namespaces)


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedCommit:
    """A recorded commit. It was applied to `experiment`, or to the whole lab if `experiment` is None."""

    sha: str
    experiment: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """The record on an apply-set's parent.

    `commit` is the last commit that was synced completely. `begun` contains the commits of later syncs that
    were interrupted or covered only some experiments. Each key is the name of an experiment, or `*` for all
    experiments. Each value is a commit. `origin` is the first synced commit; every clone of the lab's
    repository contains it. `lab` identifies the lab. `former` contains the former namespaces of the lab from
    which a move to this namespace has begun but is not complete. `version` is the parent's resourceVersion;
    it is None if the parent does not exist yet.
    """

    scope: Scope
    commit: str | None = None
    begun: Mapping[str, str] = field(default_factory=dict)
    origin: str | None = None
    lab: LabIdentity = field(default_factory=LabIdentity)
    former: frozenset[str] = frozenset()
    version: str | None = field(default=None, compare=False)

    @classmethod
    def none(cls) -> Self:
        """Return the record of a set without a parent."""
        return cls(scope=Scope.empty())

    def entries(self, names: frozenset[str] | None) -> tuple[AppliedCommit, ...]:
        """Return the commits recorded for the whole lab, then the commits recorded for single experiments.

        `names` selects the single experiments; None selects all of them.
        """
        whole_lab = [sha for sha in (self.commit, self.begun.get(_ALL_EXPERIMENTS)) if sha is not None]
        single = [
            (n, sha)
            for n, sha in self.begun.items()
            if n != _ALL_EXPERIMENTS and (names is None or n in names)
        ]
        return (
            *(AppliedCommit(sha=sha, experiment=None) for sha in whole_lab),
            *(AppliedCommit(sha=sha, experiment=name) for name, sha in sorted(single)),
        )

    @property
    def commits(self) -> frozenset[str]:
        """All commits in the record."""
        origin = frozenset() if self.origin is None else frozenset({self.origin})
        return origin.union(entry.sha for entry in self.entries(None))

    def begin(self, scope: Scope, sha: str | None, names: frozenset[str] | None) -> Parent:
        """Return the record to write before the first change of a run; it keeps the last synced commit.

        `names` are the experiments that the run changes; None means that the run covers the whole lab.
        """
        begun = dict(self.begun)
        if sha is not None and sha != self.commit:
            if names is None:
                begun = {_ALL_EXPERIMENTS: sha}
            elif begun.get(_ALL_EXPERIMENTS) != sha:
                begun |= dict.fromkeys(names, sha)
        return dataclasses.replace(self, scope=self.scope.union(scope), begun=begun)

    def end(self, scope: Scope, sha: str | None) -> Parent:
        """Return the record after a sync; `sha` is the synced commit, or None to keep the old commit."""
        if sha is None:
            return dataclasses.replace(self, scope=scope)
        return dataclasses.replace(self, scope=scope, commit=sha, begun={})


def parent_manifest(
    apply_set: ApplySet, parent: Parent, version: str, *, with_empty: bool = False
) -> Manifest:
    """Return the parent's manifest for a forced apply; `version` is the version of nimlab. Deterministic.

    If a user set an annotation by hand, an apply that omits the annotation does not remove it. `with_empty`
    adds each omitted annotation with an empty value, which makes nimlab its owner. The next apply, which
    omits the annotation, then removes it.
    """
    others = sorted(parent.scope.namespaces - {apply_set.namespace})
    annotations = {
        CONTAINS: ",".join(sorted(KINDS[kind].group_kind for kind in parent.scope.kinds)),
        NAMESPACES: ",".join(others),
        TOOLING: f"nimlab/v{version}",
    }
    texts = {
        COMMIT: parent.commit or "",
        BEGUN: ",".join(f"{name}={sha}" for name, sha in sorted(parent.begun.items())),
        ORIGIN: parent.origin or "",
        LAB: parent.lab.id or "",
        FOLDER: _folder_text(parent.lab),
        FORMER: ",".join(sorted(parent.former)),
    }
    annotations |= {name: text for name, text in texts.items() if text or with_empty}
    key = apply_set.parent_key
    return {
        "apiVersion": "v1",
        "kind": key.kind,
        "metadata": {
            "annotations": annotations,
            "labels": {ID: apply_set.id},
            "name": key.name,
            "namespace": key.namespace,
        },
    }


def parse_parent(live: Manifest | None, apply_set: ApplySet) -> Parent | None:
    """Return the record on the parent; None if there is no parent.

    Raises OwnershipConflict if the parent belongs to another tool or has the ID of another apply-set. Raises
    PlanError if its record contains kinds that this version of nimlab does not support.
    """
    if live is None:
        return None
    annotations = annotations_of(live)
    tooling = annotations.get(TOOLING, "")
    if not tooling.startswith("nimlab/"):
        raise OwnershipConflict(
            f"the apply-set's parent belongs to `{tooling or 'an unknown tool'}`, not to nimlab",
            where=apply_set.parent_key,
            hint="rename or delete that ConfigMap, or choose another namespace in lab.yaml",
        )
    if labels_of(live).get(ID) != apply_set.id:
        raise OwnershipConflict(
            "the apply-set's parent has the ID of another apply-set",
            where=apply_set.parent_key,
            hint=f"find out who changed it, then set its label {ID} to {apply_set.id}",
        )
    by_group_kind = {kind.group_kind: kind.name for kind in KINDS.values()}
    names = _split_list(annotations.get(CONTAINS))
    unknown = [name for name in names if by_group_kind.get(name) not in apply_set.kinds]
    if unknown:
        raise PlanError(
            f"this version of nimlab does not support some kinds of the apply-set: {', '.join(unknown)}",
            where=apply_set.parent_key,
            hint=f"use {tooling}, which synced it last, or a newer version",
        )
    return Parent(
        scope=Scope(
            kinds=frozenset(by_group_kind[name] for name in names),
            namespaces=frozenset(_split_list(annotations.get(NAMESPACES))) | {apply_set.namespace},
        ),
        commit=annotations.get(COMMIT) or None,
        begun=dict(_parse_begun(entry) for entry in _split_list(annotations.get(BEGUN))),
        origin=annotations.get(ORIGIN) or None,
        lab=_lab_of(annotations),
        former=frozenset(_split_list(annotations.get(FORMER))) - {apply_set.namespace},
        version=live["metadata"].get("resourceVersion"),
    )


def _folder_text(lab: LabIdentity) -> str:
    if lab.repository_folder is not None:
        return _IN_REPOSITORY + lab.repository_folder
    return "" if lab.host_folder is None else _ON_HOST + lab.host_folder


def _lab_of(annotations: Mapping[str, str]) -> LabIdentity:
    folder = annotations.get(FOLDER, "")
    in_repository, on_host = folder.startswith(_IN_REPOSITORY), folder.startswith(_ON_HOST)
    return LabIdentity(
        id=annotations.get(LAB) or None,
        repository_folder=folder.removeprefix(_IN_REPOSITORY) if in_repository else None,
        host_folder=folder.removeprefix(_ON_HOST) if on_host else None,
    )


def _split_list(text: str | None) -> list[str]:
    return [item for item in (text or "").split(",") if item]


def _parse_begun(entry: str) -> tuple[str, str]:
    """Parse `EXPERIMENT=COMMIT`; a commit without `=` applies to all experiments."""
    name, separator, sha = entry.partition("=")
    return (name, sha) if separator else (_ALL_EXPERIMENTS, entry)
