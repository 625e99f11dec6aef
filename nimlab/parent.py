"""What the set's parent records: where members can be, the commit synced last, and those begun since.

In: the parent as the server has it, what a run is about to do. Out: a `Parent`, its manifest, and the record
before, during and after the run. A commit is recorded as begun before the first of its writes and as synced
after the last, so whatever ends a sync halfway, an older commit never takes its half for its own. Compatible
with kubectl's apply-sets (KEP-3659). Pure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from nimlab.errors import OwnershipConflict, PlanError
from nimlab.manifest import KINDS, Manifest, ObjectKey, annotations_of, labels_of
from nimlab.owned import ApplySet

ID: Final = "applyset.kubernetes.io/id"
TOOLING: Final = "applyset.kubernetes.io/tooling"
CONTAINS: Final = "applyset.kubernetes.io/contains-group-kinds"
NAMESPACES: Final = "applyset.kubernetes.io/additional-namespaces"
COMMIT: Final = "nimlab.dev/commit"
BEGUN: Final = "nimlab.dev/begun"
PARENT_MANAGER: Final = "nimlab-applyset"

_WHOLE: Final = "*"  # no experiment is called so


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
class Entry:
    """A commit that the parent names: of one experiment, or of all (None)."""

    sha: str
    experiment: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """What the parent records.

    `commit` is the last one that was synced as a whole, `begun` the commits of later syncs, by experiment or
    `*`, which have ended halfway or were of some experiments only. `version` is the resourceVersion that was
    read; None where there is no parent yet.
    """

    scope: Scope
    commit: str | None = None
    begun: Mapping[str, str] = field(default_factory=dict)
    version: str | None = field(default=None, compare=False)

    @classmethod
    def none(cls) -> Self:
        """Return the record of a set that has no parent yet."""
        return cls(scope=Scope.empty())

    def entries(self, names: frozenset[str] | None) -> tuple[Entry, ...]:
        """Return what is recorded of these experiments, of all for None; what concerns all comes first."""
        whole = [sha for sha in (self.commit, self.begun.get(_WHOLE)) if sha is not None]
        single = [(n, sha) for n, sha in self.begun.items() if n != _WHOLE and (names is None or n in names)]
        return (
            *(Entry(sha=sha, experiment=None) for sha in whole),
            *(Entry(sha=sha, experiment=name) for name, sha in sorted(single)),
        )

    def begin(self, scope: Scope, sha: str | None, names: frozenset[str] | None) -> Parent:
        """Return what to record before a run writes: nothing is lost, and what it begins is told.

        `names` are the experiments that it changes, None for a run over the whole lab.
        """
        begun = dict(self.begun)
        if sha is not None and sha != self.commit:
            if names is None:
                begun = {_WHOLE: sha}
            elif begun.get(_WHOLE) != sha:
                begun |= dict.fromkeys(names, sha)
        return dataclasses.replace(self, scope=self.scope.union(scope), begun=begun)

    def end(self, scope: Scope, sha: str | None) -> Parent:
        """Return what to record once the whole lab is as a commit asks; for None that can't be told."""
        if sha is None:
            return dataclasses.replace(self, scope=scope)
        return dataclasses.replace(self, scope=scope, commit=sha, begun={})


def parent_manifest(apply_set: ApplySet, parent: Parent, version: str) -> Manifest:
    """Return the parent as it is to be applied; `version` is the tool's. Deterministic."""
    others = sorted(parent.scope.namespaces - {apply_set.namespace})
    annotations = {
        CONTAINS: ",".join(sorted(KINDS[kind].group_kind for kind in parent.scope.kinds)),
        NAMESPACES: ",".join(others),
        TOOLING: f"nimlab/v{version}",
    }
    if parent.commit is not None:
        annotations[COMMIT] = parent.commit
    if parent.begun:
        annotations[BEGUN] = ",".join(f"{name}={sha}" for name, sha in sorted(parent.begun.items()))
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
        version=live["metadata"].get("resourceVersion"),
    )


def _listed(text: str | None) -> list[str]:
    return [item for item in (text or "").split(",") if item]


def _begun(entry: str) -> tuple[str, str]:
    """An experiment and its commit; what can't be read concerns everything, and no commit is newer."""
    name, mark, sha = entry.partition("=")
    return (name, sha) if mark else (_WHOLE, entry)
