"""The workloads of an experiment and what troubles their pods -> one word, and the worst reason.

In: live workloads, troubles, the time. Out: a `Verdict`. How the files and the cluster differ is another
question. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Final

from nimlab.objects.manifest import Manifest
from nimlab.plan.deletion_blockers import held_by, is_leaving
from nimlab.plan.kstatus import State, peers_of, status_of
from nimlab.plan.pod_trouble import Trouble, after_grace_period, is_due


class Health(Enum):
    """How an experiment's pods are."""

    OK = "ok"  # all run
    NOT_READY = "not ready"  # not all run, and no reason is known
    FAILING = "failing"  # there is a reason
    TERMINATING = "terminating"  # an object of it is being deleted
    STOPPED = "stopped"  # none are asked for, and none are there
    NONE = "-"  # nothing of it is in the cluster
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The word, and where there is one the worst reason, as one word and as a sentence."""

    health: Health
    reason: str = ""
    message: str = ""

    @property
    def text(self) -> str:
        """`failing: CrashLoopBackOff`."""
        return f"{self.health.value}: {self.reason}" if self.reason else self.health.value

    @property
    def is_bad(self) -> bool:
        """True where pods are asked for that don't all run, or an object doesn't go."""
        return self.health in (Health.NOT_READY, Health.FAILING, Health.TERMINATING)


# The first counts most: what ends a pod, what keeps it from starting, what may pass.
_WORST: Final = (
    "OOMKilled", "CrashLoopBackOff", "ImagePullBackOff", "ErrImagePull", "InvalidImageName",
    "ErrImageNeverPull", "CreateContainerConfigError", "CreateContainerError", "RunContainerError", "Evicted",
    "FailedCreate", "NodeLost", "Unschedulable", "Failed", "Error", "FailedMount", "BackOff", "Unhealthy",
    "NotReady", "Terminating",
)  # fmt: skip


def worst(troubles: Sequence[Trouble]) -> Trouble | None:
    """Return the trouble that counts most: by its reason, then by how many pods have it."""
    if not troubles:
        return None
    ranks = {reason: rank for rank, reason in enumerate(_WORST)}
    counts = Counter(trouble.reason for trouble in troubles)
    unknown = ranks["Failed"]
    return min(troubles, key=lambda t: (ranks.get(t.reason, unknown), -counts[t.reason], t.pod))


def health_of(
    workloads: Sequence[Manifest], missing: int, troubles: Sequence[Trouble], now: datetime
) -> Verdict:
    """Return how the workloads of an experiment are; `missing` of them don't exist."""
    leaving = next((live for live in workloads if is_leaving(live)), None)
    if leaving is not None:
        return Verdict(health=Health.TERMINATING, message=held_by(leaving))
    if not workloads:
        return Verdict(health=Health.NONE)
    cause = worst([after_grace_period(trouble, now) for trouble in troubles if is_due(trouble, now)])
    if cause is not None:
        return Verdict(health=Health.FAILING, reason=cause.reason, message=cause.message)
    unsettled = next((s for s in map(status_of, workloads) if s.state is not State.CURRENT), None)
    if unsettled is not None:
        return Verdict(health=Health.NOT_READY, message=unsettled.message)
    if missing:
        return Verdict(health=Health.NOT_READY, message="not all of its workloads exist")
    counts = [peers_of(live) for live in workloads]
    stopped = not any(count.wanted or count.existing for count in counts)
    return Verdict(health=Health.STOPPED if stopped else Health.OK)


def is_short(workloads: Sequence[Manifest]) -> bool:
    """Return True when there may be a reason to look for: pods are asked for that don't all run."""
    return any(
        not is_leaving(live) and peers_of(live).wanted and status_of(live).state is not State.CURRENT
        for live in workloads
    )
