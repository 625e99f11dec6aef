"""Inputs of planning: the desired objects of each experiment, and the state of the cluster.

Other packages read these plain values from files, Git and the cluster. Planning uses only these values and
`sync_policy.PlanInputs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nimlab.errors import ClusterError, Conflict
from nimlab.files.spec import OnImmutableChange
from nimlab.objects.applyset import PART_OF, ApplySet
from nimlab.objects.applyset_parent import Parent
from nimlab.objects.manifest import Manifest, ObjectKey, labels_of
from nimlab.objects.takeover import Takeover


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """The desired objects of one experiment or component, in apply order.

    The objects are marked as members, and the guard has checked them. `source` is the file that describes
    the experiment.
    """

    name: str
    manifests: tuple[Manifest, ...]
    on_immutable_change: OnImmutableChange
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The result of a server-side dry run of an apply: the object, or the error.

    `manifest` and `error` are both None in three cases:

    - The credentials only allow reads, so the change is planned as `unverified`.
    - The object must be replaced, and the server would accept the new object.
    - The object is being deleted, or is a member of another apply-set, so no dry run was requested.

    `reclaimed_fields` are fields that were changed by hand and that the apply resets. `takeover` precedes the
    apply, and `after_takeover` is the object after the takeover and before the apply.
    """

    manifest: Manifest | None = None
    error: ClusterError | None = None
    reclaimed_fields: tuple[Conflict, ...] = ()
    takeover: Takeover | None = None
    after_takeover: Manifest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Former:
    """This lab's apply-set in a namespace that the lab used before `spec.namespace` changed.

    `parent` is the record on the set's parent. `manifest` is the parent as the server returned it. `live` are
    the objects with the set's label.
    """

    apply_set: ApplySet
    parent: Parent
    manifest: Manifest
    lease: Manifest | None
    live: Mapping[ObjectKey, Manifest]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The state of the cluster, read at one time.

    `live` contains every object with the apply-set's label, and every desired object that exists. `predicted`
    has an entry for each existing desired object that is suspect or needs a takeover. `foreign_objects` has
    an entry for each namespace of this lab that no experiment needs any more. The entry contains the foreign
    objects in the namespace. It is None if the objects could not be listed (no permission, or a server
    error). `former` are this lab's sets in other namespaces. `unchecked` are namespaces that may contain such
    a set, but could not be read.
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
        """Return the former apply-set whose ID is in the object's label.

        Return the current set if no former set matches.
        """
        label = labels_of(live).get(PART_OF)
        return next((f.apply_set for f in self.former if f.apply_set.id == label), self.apply_set)
