"""Record on the apply-set's parent: scope of its members, last synced commit, commits begun since, lab.

In: the parent as the server returned it, and the changes that a run will make. Out: a `Parent`, its manifest,
and the record before, during and after the run. A commit is recorded as begun before the first write and as
synced after the last, so after an interrupted sync, an older commit cannot claim the partial state.
Compatible with kubectl's apply-sets (KEP-3659). Pure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from nimlab.errors import OwnershipConflict, PlanError
from nimlab.objects.applyset import ApplySet
from nimlab.objects.lab_identity import LabIdentity
from nimlab.objects.manifest import KINDS, Manifest, ObjectKey, annotations_of, labels_of

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

_WHOLE: Final = "*"  # no experiment is called so
_IN_REPOSITORY: Final = "git:"
_ON_HOST: Final = "host:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Where members may be: kinds, and namespaces (empty name left out)."""

    kinds: frozenset[str]
    namespaces: frozenset[str]

    @classmethod
    def empty(cls) -> Self:
        """Return the scope of a set without members."""
        return cls(kinds=frozenset(), namespaces=frozenset())

    @classmethod
    def of(cls, keys: Iterable[ObjectKey]) -> Self:
        """Return the smallest scope that holds these objects."""
        found = frozenset(keys)
        return cls(
            kinds=frozenset(key.kind for key in found),
            namespaces=frozenset(key.namespace for key in found) - {""},
        )

    def union(self, other: Scope) -> Scope:
        """Return the scope that holds both."""
        return Scope(kinds=self.kinds | other.kinds, namespaces=self.namespaces | other.namespaces)


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedCommit:
    """A commit that the parent names: of one experiment, or of all (None)."""

    sha: str
    experiment: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """Record of an apply-set.

    `commit` is the last commit that was synced completely. `begun` holds the commits of later syncs that
    were interrupted or covered some experiments only, by experiment or `*`. `origin` is the first commit
    from which the set was synced: every clone of the lab's repository contains it. `lab` identifies the lab.
    `former` holds the namespaces from which a move to this one was begun and not finished. `version` is the
    resourceVersion that was read, None where there is no parent yet.
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
        """Return the record of a set that has no parent yet."""
        return cls(scope=Scope.empty())

    def entries(self, names: frozenset[str] | None) -> tuple[AppliedCommit, ...]:
        """Return what is recorded of these experiments, of all for None; what concerns all comes first."""
        whole = [sha for sha in (self.commit, self.begun.get(_WHOLE)) if sha is not None]
        single = [(n, sha) for n, sha in self.begun.items() if n != _WHOLE and (names is None or n in names)]
        return (
            *(AppliedCommit(sha=sha, experiment=None) for sha in whole),
            *(AppliedCommit(sha=sha, experiment=name) for name, sha in sorted(single)),
        )

    @property
    def commits(self) -> frozenset[str]:
        """All commits that the record names."""
        origin = frozenset() if self.origin is None else frozenset({self.origin})
        return origin.union(entry.sha for entry in self.entries(None))

    def begin(self, scope: Scope, sha: str | None, names: frozenset[str] | None) -> Parent:
        """Return the record to write before a run changes anything; no earlier entry is lost.

        `names` are the experiments that the run changes, None for a run over the whole lab.
        """
        begun = dict(self.begun)
        if sha is not None and sha != self.commit:
            if names is None:
                begun = {_WHOLE: sha}
            elif begun.get(_WHOLE) != sha:
                begun |= dict.fromkeys(names, sha)
        return dataclasses.replace(self, scope=self.scope.union(scope), begun=begun)

    def end(self, scope: Scope, sha: str | None) -> Parent:
        """Return the record after a complete sync of `sha` (None: commit unknown, keep the old one)."""
        if sha is None:
            return dataclasses.replace(self, scope=scope)
        return dataclasses.replace(self, scope=scope, commit=sha, begun={})


def parent_manifest(
    apply_set: ApplySet, parent: Parent, version: str, *, with_empty: bool = False
) -> Manifest:
    """Return the parent's manifest for a forced apply; `version` is the tool's. Deterministic.

    An apply that omits an annotation leaves a value that somebody has set by hand. `with_empty` adds an empty
    text for each such annotation, which takes it over, so that the next apply removes it.
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
    """Return what the parent records, None if there is none.

    Raises OwnershipConflict when the object is another tool's or carries another set's ID, PlanError when it
    names kinds that this version doesn't know.
    """
    if live is None:
        return None
    annotations = annotations_of(live)
    tooling = annotations.get(TOOLING, "")
    if not tooling.startswith("nimlab/"):
        raise OwnershipConflict(
            f"the apply-set's parent belongs to `{tooling or 'nobody'}`, not to nimlab",
            where=apply_set.parent_key,
            hint="rename or delete that ConfigMap, or choose another namespace in lab.yaml",
        )
    if labels_of(live).get(ID) != apply_set.id:
        raise OwnershipConflict(
            "the apply-set's parent carries another set's ID",
            where=apply_set.parent_key,
            hint=f"set its label {ID} to {apply_set.id}, once you know who changed it",
        )
    by_group_kind = {kind.group_kind: kind.name for kind in KINDS.values()}
    names = _listed(annotations.get(CONTAINS))
    unknown = [name for name in names if by_group_kind.get(name) not in apply_set.kinds]
    if unknown:
        raise PlanError(
            f"the set holds kinds that this nimlab doesn't know: {', '.join(unknown)}",
            where=apply_set.parent_key,
            hint=f"it was synced by {tooling}: use that version or a newer one",
        )
    return Parent(
        scope=Scope(
            kinds=frozenset(by_group_kind[name] for name in names),
            namespaces=frozenset(_listed(annotations.get(NAMESPACES))) | {apply_set.namespace},
        ),
        commit=annotations.get(COMMIT) or None,
        begun=dict(_begun(entry) for entry in _listed(annotations.get(BEGUN))),
        origin=annotations.get(ORIGIN) or None,
        lab=_lab_of(annotations),
        former=frozenset(_listed(annotations.get(FORMER))) - {apply_set.namespace},
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


def _listed(text: str | None) -> list[str]:
    return [item for item in (text or "").split(",") if item]


def _begun(entry: str) -> tuple[str, str]:
    """Return an experiment and its commit; an unreadable entry counts for all experiments."""
    name, mark, sha = entry.partition("=")
    return (name, sha) if mark else (_WHOLE, entry)
