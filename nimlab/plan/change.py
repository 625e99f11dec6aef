"""One object, desired and live -> what is to be done with it, and why.

In: what is desired, what the snapshot knows of the object, what this run may do. Out: one `Change`. Each
object is judged alone here; what concerns several of them is the plan's. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from nimlab.errors import Conflict, NimlabError
from nimlab.files.spec import OnImmutableChange
from nimlab.objects.applyset import ApplySet
from nimlab.objects.foreign_fields import Foreign
from nimlab.objects.manifest import Manifest, ObjectKey
from nimlab.objects.takeover import Takeover
from nimlab.plan.diff import FieldChange
from nimlab.plan.kstatus import restart_pending
from nimlab.plan.workload import (
    estimate_restart_s,
    restarts_together,
)


class Action(Enum):
    """What is to be done with one object."""

    CREATE = "create"
    UPDATE = "update"
    REPLACE = "replace"
    PRUNE = "prune"
    KEEP = "keep"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One object and what is to be done with it.

    `error` blocks it: it can't be done as things are. `restarts` counts the running peers that are deleted
    and made anew. `unverified` means that fields and restarts were told from here, not by the server.
    `handover` is done before the apply; the fields that it removes are among `fields`, not among `foreign`.
    With `may_lag`, a sync that ended halfway may have left peers of an older template, which nobody has
    counted yet. A KEEP with a reason is worth showing. `former` is the set in a former namespace of the lab
    that an orphan is a member of, None for the current set. With `leaving` the object was ours, no file asks
    for it any more, and it is being deleted: it still exists, so its end is awaited.
    """

    action: Action
    key: ObjectKey
    experiment: str
    desired: Manifest | None
    live: Manifest | None
    reason: str = ""
    fields: tuple[FieldChange, ...] = ()
    foreign: tuple[Foreign, ...] = ()
    error: NimlabError | None = None
    restarts: int = 0
    unverified: bool = False
    replace_by: OnImmutableChange | None = None
    taken: tuple[Conflict, ...] = ()
    takeover: Takeover | None = None
    outdated_peers_possible: bool = False
    former: ApplySet | None = None
    leaving: bool = False

    @property
    def is_pending(self) -> bool:
        """True when the cluster isn't as the files say until something was done, or has ended."""
        return self.action is not Action.KEEP or self.leaving

    @property
    def restart_s(self) -> int:
        """About how many seconds the restart of its peers takes; 0 where none restart."""
        if not self.restarts or self.desired is None:
            return 0
        at_once = self.takes_peers or restarts_together(self.desired)
        return estimate_restart_s(self.desired, self.restarts, at_once=at_once)

    @property
    def takes_peers(self) -> bool:
        """True when the peers are deleted with the object that they belong to."""
        return self.action is Action.REPLACE and self.replace_by is not OnImmutableChange.ORPHAN

    @property
    def outdated_peers_after(self) -> bool:
        """True when peers of a former template can be there once this is done, counted or not.

        A StatefulSet's status is behind its pods: those that its controller is just making are in no count.
        """
        new_template = any(field.in_template for field in self.fields)
        return (self.restarts > 0 or self.outdated_peers_possible or new_template) and not self.takes_peers

    @property
    def outdated_peers_kept(self) -> bool:
        """True when peers of the former template are left alone, since the newer one isn't Git's alone."""
        return self.action is Action.KEEP and self.live is not None and _is_overlaid(self.live, self.foreign)


def _as_if_staying(live: Manifest) -> Manifest:
    """The object without its deletion: whose it was is judged by all other proofs."""
    metadata = {name: value for name, value in live["metadata"].items() if name != "deletionTimestamp"}
    return {**live, "metadata": metadata}


def _is_overlaid(live: Manifest, foreign: tuple[Foreign, ...]) -> bool:
    """True when peers lag behind a template that others have added to; a restart would carry that in."""
    return live["kind"] == "StatefulSet" and restart_pending(live) and any(f.in_template for f in foreign)
