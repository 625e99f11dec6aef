"""The options of one sync, and the facts about files and Git that planning uses.

`SyncPolicy` contains the user's options. `PlanInputs` adds facts about the lab's files and Git. Both are
plain values.
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
    """The maximum number and percentage of objects that one sync may delete; None means no limit.

    If `spare_single` is True, the percentage does not apply if only one experiment is pruned. For example,
    removing one of two experiments is a common change, although it deletes half of all objects.
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
    """The user's options for a sync.

    - `names`: the experiments to sync (or only `platform`, the monitoring stack); None for the whole lab
    - `prune`: delete the objects that no file describes
    - `max_prune`: the maximum number (`20`) or share (`30%`) of deletions; None for the limit in lab.yaml
    - `allow_empty`: delete all experiments if the folder `experiments/` is empty
    - `allow_older`: sync this commit even if it is older than the last synced commit
    - `take_ownership`: take over fields and objects from other field managers
    - `remove_foreign`: remove the fields that other field managers added to this lab's objects
    - `move`: delete the lab's objects in its former namespaces

    Raises ValueError if `max_prune` is neither a number nor a percentage.
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
    """Inputs of planning besides the desired objects and the snapshot.

    `policy.names` are the experiments or components that this run covers; None for the whole apply-set.
    `limit` is the prune limit of this run. `broken` are the experiments that cannot be synced because of
    errors in their files, and `file_errors` counts all errors in files. `commit` is the checked-out commit.
    `relations` maps each recorded commit to how `commit` relates to it: the same, newer, older, diverged or
    unknown. `remedies` maps each recorded commit whose relation is diverged or unknown to a hint for the
    user. `lab` identifies the lab on disk.
    """

    policy: SyncPolicy
    limit: PruneLimit
    broken: tuple[BrokenFile, ...] = ()
    file_errors: int = 0
    commit: Commit | None = None
    relations: Mapping[str, Relation] = field(default_factory=dict)
    remedies: Mapping[str, str] = field(default_factory=dict)
    lab: LabIdentity = field(default_factory=LabIdentity)
