"""One planned change of one object.

In: a decision of `decide_change`. Out: a `Change`. Its properties include the estimated time to restart its
peers, and whether outdated peers remain. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from nimlab.errors import Conflict, NimlabError
from nimlab.files.spec import OnImmutableChange
from nimlab.objects.applyset import ApplySet
from nimlab.objects.foreign_fields import ForeignField
from nimlab.objects.manifest import Manifest, ObjectKey
from nimlab.objects.takeover import Takeover
from nimlab.plan.diff import FieldChange
from nimlab.plan.kstatus import restart_pending
from nimlab.plan.pod_restarts import estimate_restart_s, is_restarted_by_sync


class Action(Enum):
    """The planned action of a sync on one object."""

    CREATE = "create"
    UPDATE = "update"
    REPLACE = "replace"
    PRUNE = "prune"
    KEEP = "keep"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One object and the action planned for it.

    `desired` is None if no file specifies the object. `live` is None if the object does not exist. `reason`
    explains the action. If the action is KEEP and there is a reason, the change is shown to the user.
    `fields` are the changed fields. `foreign` are the fields of other managers that stay. If there is an
    `error`, the sync does not take the action. `restarts` counts the running peers that are deleted and
    created again. `unverified` is True if nimlab predicted the changes itself, because the credentials do not
    allow a dry run. `replace_by` is the experiment's setting for the action REPLACE. `reclaimed_fields` are
    the fields that the apply takes back from hand tools. `takeover` precedes the apply; the fields that it
    removes are in `fields`, not in `foreign`. `outdated_peers_possible` is True if, after an interrupted
    sync, peers of an older template may exist that the status does not count yet. `former` is the apply-set
    of an object in a former namespace of the lab; it is None for an object of the current set. `leaving` is
    True if no file specifies the object and its deletion has begun. The sync then waits until the object no
    longer exists.
    """

    action: Action
    key: ObjectKey
    experiment: str
    desired: Manifest | None
    live: Manifest | None
    reason: str = ""
    fields: tuple[FieldChange, ...] = ()
    foreign: tuple[ForeignField, ...] = ()
    error: NimlabError | None = None
    restarts: int = 0
    unverified: bool = False
    replace_by: OnImmutableChange | None = None
    reclaimed_fields: tuple[Conflict, ...] = ()
    takeover: Takeover | None = None
    outdated_peers_possible: bool = False
    former: ApplySet | None = None
    leaving: bool = False

    @property
    def is_pending(self) -> bool:
        """True if the sync takes an action or waits for a deletion."""
        return self.action is not Action.KEEP or self.leaving

    @property
    def restart_s(self) -> int:
        """Estimated time in seconds to restart the peers; 0 if no peers restart."""
        if not self.restarts or self.desired is None:
            return 0
        at_once = self.takes_peers or is_restarted_by_sync(self.desired)
        return estimate_restart_s(self.desired, self.restarts, at_once=at_once)

    @property
    def takes_peers(self) -> bool:
        """True if the object is replaced and its peers are deleted together with the object."""
        return self.action is Action.REPLACE and self.replace_by is not OnImmutableChange.ORPHAN

    @property
    def outdated_peers_after(self) -> bool:
        """True if peers of an older template may exist after the action.

        The result can be True although the status counts no such peers: the status of a StatefulSet does not
        yet count pods that are just being created.
        """
        new_template = any(field.in_template for field in self.fields)
        return (self.restarts > 0 or self.outdated_peers_possible or new_template) and not self.takes_peers

    @property
    def outdated_peers_kept(self) -> bool:
        """True if outdated peers are kept because the new template contains foreign fields."""
        if self.action is not Action.KEEP or self.live is None:
            return False
        return must_keep_outdated_peers(self.live, self.foreign)


def must_keep_outdated_peers(live: Manifest, foreign: tuple[ForeignField, ...]) -> bool:
    """Return True if outdated peers must not be restarted, because new peers would get foreign fields."""
    return live["kind"] == "StatefulSet" and restart_pending(live) and any(f.in_template for f in foreign)
