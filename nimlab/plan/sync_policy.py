"""The permissions of one sync, and what planning knows about the files and the Git repository.

Plain values. `SyncPolicy` is what the user decides; `PlanInputs` adds what was computed from the lab's files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from nimlab.files.git_history import Commit, Relation
from nimlab.files.spec import BrokenFile
from nimlab.objects.lab_identity import LabIdentity

_LIMIT: Final = re.compile(r"(?P<number>[0-9]{1,9}(?!%)|[0-9]{1,2}(?=%)|100(?=%))(?P<percent>%?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneLimit:
    """The most that one sync may delete; None means no limit.

    With `spare_single`, the percentage does not apply to a prune of one experiment only. In a lab of two
    experiments, removing one is half of all objects, but a usual change.
    """

    objects: int | None
    percent: float | None
    spare_single: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the limit for a number of objects (`20`) or a percentage (`30%`). Raises ValueError."""
        match = _LIMIT.fullmatch(text)
        if match is None:
            raise ValueError(f"`{text}` is neither a number of objects nor a percentage; write `20` or `30%`")
        number = int(match["number"])
        if match["percent"]:
            return cls(objects=None, percent=number, spare_single=False)
        return cls(objects=number, percent=None, spare_single=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncPolicy:
    """What a sync may do, as the user decided. The same policy gives the same plan.

    - `names`: the experiments to sync (or only `platform`, the monitoring stack); None is the whole lab
    - `prune`: delete the objects that no file describes
    - `max_prune`: a number of objects (`20`) or a percentage (`30%`); None is the limit in lab.yaml
    - `allow_empty`: an empty folder `experiments/` may delete everything
    - `allow_older`: a commit older than the last synced one may be synced
    - `take_ownership`: take over fields and objects from other field managers
    - `remove_foreign`: remove the fields that other field managers added to this lab's objects
    - `move`: delete the lab's objects in its former namespaces

    Raises ValueError for any other `max_prune`.
    """

    names: frozenset[str] | None = None
    prune: bool = True
    max_prune: str | None = None
    allow_empty: bool = False
    allow_older: bool = False
    take_ownership: bool = False
    remove_foreign: bool = False
    move: bool = False

    def __post_init__(self) -> None:
        if self.max_prune is not None:
            PruneLimit.parse(self.max_prune)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanInputs:
    """What planning knows besides the desired objects and the snapshot.

    `policy.names` are the groups of the apply-set that this run concerns; None is the whole set. `limit` is
    the limit on prunes that applies. `broken` are the experiments that cannot be synced, and `file_errors`
    counts all errors of files. `relations` contains the relation of `commit` to each commit that a parent
    records. `remedies` contains, for each recorded commit that this one does not follow, how to get to a
    commit that does.
    """

    policy: SyncPolicy
    limit: PruneLimit
    broken: tuple[BrokenFile, ...] = ()
    file_errors: int = 0
    commit: Commit | None = None
    relations: Mapping[str, Relation] = field(default_factory=dict)
    remedies: Mapping[str, str] = field(default_factory=dict)
    lab: LabIdentity = field(default_factory=LabIdentity)
