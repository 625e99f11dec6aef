"""What planning is given: what is desired, the cluster as it was read, and what this run may do.

Values only. Who fills them reads files, Git and the cluster; who uses them reads nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nimlab.errors import ClusterError, Conflict
from nimlab.files.git import Commit, Relation
from nimlab.files.spec import Broken, OnImmutableChange
from nimlab.objects.applyset import PART_OF, ApplySet
from nimlab.objects.applyset_parent import Parent
from nimlab.objects.lab_identity import LabIdentity
from nimlab.objects.manifest import Manifest, ObjectKey, labels_of
from nimlab.objects.takeover import Takeover


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """All objects that one experiment should be; stamped, guarded, in apply order."""

    name: str
    manifests: tuple[Manifest, ...]
    on_immutable_change: OnImmutableChange
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What the server says an apply would give: the object, or why it refuses.

    Both None: it could not be asked (the credentials only allow reading), so the plan is `unverified` there;
    or the object has to be replaced, and the server would have the new one.
    `taken` are the fields that people have changed by hand and that an apply takes back. `handover` is what
    has to be done before the apply, `handed_over` the object after that alone.
    """

    manifest: Manifest | None = None
    error: ClusterError | None = None
    taken: tuple[Conflict, ...] = ()
    takeover: Takeover | None = None
    after_takeover: Manifest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Former:
    """This lab's set in another namespace, where the lab was before `spec.namespace` changed.

    `manifest` is the set's parent as it was read, `live` the objects with the set's label.
    """

    apply_set: ApplySet
    parent: Parent
    manifest: Manifest
    lease: Manifest | None
    live: Mapping[ObjectKey, Manifest]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The cluster as it was read at one time.

    `live` holds every object that carries the set's label and every desired one that exists. `predicted`
    has an entry exactly for the desired objects that exist and are not proven unchanged, or need a handover.
    `strangers` names, for each namespace of ours that no experiment wants any more, what in it is not ours;
    None where the credentials or the server don't show it. `former` are this lab's sets in other namespaces;
    `unchecked` are the namespaces that may hold one and could not be read.
    """

    apply_set: ApplySet
    parent: Parent | None
    lease: Manifest | None
    namespace_exists: bool
    live: Mapping[ObjectKey, Manifest]
    predicted: Mapping[ObjectKey, Prediction]
    foreign_objects: Mapping[str, tuple[ObjectKey, ...] | None] = field(default_factory=dict)
    former: tuple[Former, ...] = ()
    unchecked: tuple[str, ...] = ()

    def set_of(self, live: Manifest) -> ApplySet:
        """Return the set that an object is a member of, by its label; this lab's current one in doubt."""
        label = labels_of(live).get(PART_OF)
        return next((one.apply_set for one in self.former if one.apply_set.id == label), self.apply_set)


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneLimit:
    """How much one sync may delete; None is no limit.

    With `spare_single`, the percentage is not held against a prune that concerns one experiment only: in a
    lab of two, removing one is half of everything and an ordinary day.
    """

    objects: int | None
    percent: float | None
    spare_single: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Permissions of this run. `names` narrows it to some experiments; None is the whole lab.

    `relations` holds the relation of `commit` to each commit that a parent records, `remedies` the way to a
    commit that may follow one that this commit does not. `move` allows the run to delete what the lab left
    in its former namespaces.
    """

    names: frozenset[str] | None
    prune: bool
    allow_empty: bool
    allow_older: bool
    take_ownership: bool
    limit: PruneLimit
    broken: tuple[Broken, ...]
    file_errors: int
    commit: Commit | None
    relations: Mapping[str, Relation]
    lab: LabIdentity = field(default_factory=LabIdentity)
    move: bool = False
    remedies: Mapping[str, str] = field(default_factory=dict)
