"""Identity of a lab, and the decision whether an apply-set in a cluster belongs to the lab on disk.

In: the identity from the files, and the identity recorded on the apply-set's parent. Out: a `LabRelation`.
The namespace does not identify a lab. Two labs can use the same namespace, and a lab can move to another
namespace. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class LabRelation(Enum):
    """The relation of a recorded apply-set to this lab."""

    SAME = "same"
    OTHER = "other"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabIdentity:
    """Facts that distinguish a lab from other labs; an unknown fact is None.

    `id` is `metadata.id` in `lab.yaml`. `repository_folder` is the path of the lab's folder inside its Git
    repository; it is empty if the lab is at the root of the repository. `host_folder` is a hash of the
    machine and the folder; it is used only for a lab without Git.
    """

    id: str | None = None
    repository_folder: str | None = None
    host_folder: str | None = None

    def recorded_over(self, former: LabIdentity) -> LabIdentity:
        """Return the identity to record in place of the recorded identity `former`.

        If `id` or `repository_folder` is unknown, the result contains the value of `former`. The result
        contains a `host_folder` only if it contains no `repository_folder`.
        """
        folder = self.repository_folder if self.repository_folder is not None else former.repository_folder
        return LabIdentity(
            id=self.id or former.id,
            repository_folder=folder,
            host_folder=self.host_folder if folder is None else None,
        )


def lab_relation(own: LabIdentity, recorded: LabIdentity, *, knows_commit: bool | None) -> LabRelation:
    """Return whether a recorded apply-set belongs to this lab.

    `knows_commit` is True if this repository contains a commit from which the apply-set was synced. It is
    None if no commit is recorded. The root commit of a repository does not identify a lab, because every fork
    contains the same root commit.
    """
    if own.id is not None and recorded.id is not None:
        return LabRelation.SAME if own.id == recorded.id else LabRelation.OTHER
    folders = {own.repository_folder, recorded.repository_folder} - {None}
    if len(folders) > 1:
        return LabRelation.OTHER
    if knows_commit is not None:
        return LabRelation.SAME if knows_commit else LabRelation.UNKNOWN
    if recorded.host_folder is not None and recorded.host_folder == own.host_folder:
        return LabRelation.SAME
    return LabRelation.UNKNOWN
