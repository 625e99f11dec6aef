"""Health of an experiment: the state of its pods, and the worst reason why pods do not run.

In: the live workloads, the troubles of their pods, and the time. Out: a `Verdict`. Differences between files
and cluster do not affect the verdict. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Final

from nimlab.objects.manifest import Manifest
from nimlab.plan.explain_stuck_deletion import describe_blockers, is_terminating
from nimlab.plan.kstatus import State, peers_of, status_of
from nimlab.plan.pod_trouble import Trouble, after_grace_period, is_due


class Health(Enum):
    """Health of an experiment's pods."""

    OK = "ok"  # all pods run
    NOT_READY = "not ready"  # not all pods run, and the reason is unknown
    FAILING = "failing"  # not all pods run, and the reason is known
    TERMINATING = "terminating"  # a workload of the experiment is being deleted
    STOPPED = "stopped"  # no pods are desired, and none exist
    NONE = "-"  # the experiment has no workload in the cluster
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The health, and the worst trouble if there is one: `reason` is one word, `message` is a sentence."""

    health: Health
    reason: str = ""
    message: str = ""

    @property
    def text(self) -> str:
        """The verdict as text, such as `failing: CrashLoopBackOff`."""
        return f"{self.health.value}: {self.reason}" if self.reason else self.health.value

    @property
    def is_bad(self) -> bool:
        """True if desired pods do not run, or a workload is being deleted."""
        return self.health in (Health.NOT_READY, Health.FAILING, Health.TERMINATING)


# Reasons from worst to least bad: first killed pods, then pods that cannot start, then states that may be
# transient.
_WORST_FIRST: Final = (
    "OOMKilled", "CrashLoopBackOff", "ImagePullBackOff", "ErrImagePull", "InvalidImageName",
    "ErrImageNeverPull", "CreateContainerConfigError", "CreateContainerError", "RunContainerError", "Evicted",
    "FailedCreate", "NodeLost", "Unschedulable", "Failed", "Error", "FailedMount", "BackOff", "Unhealthy",
    "NotReady", "Terminating",
)  # fmt: skip


def worst_trouble(troubles: Sequence[Trouble]) -> Trouble | None:
    """Return the worst trouble, compared first by reason, then by the number of pods with this reason."""
    if not troubles:
        return None
    ranks = {reason: rank for rank, reason in enumerate(_WORST_FIRST)}
    counts = Counter(trouble.reason for trouble in troubles)
    unknown = ranks["Failed"]
    return min(troubles, key=lambda t: (ranks.get(t.reason, unknown), -counts[t.reason], t.pod))


def health_of(
    workloads: Sequence[Manifest], missing: int, troubles: Sequence[Trouble], now: datetime
) -> Verdict:
    """Return the health of an experiment; `missing` is the number of its workloads that do not exist."""
    terminating = next((live for live in workloads if is_terminating(live)), None)
    if terminating is not None:
        return Verdict(health=Health.TERMINATING, message=describe_blockers(terminating))
    if not workloads:
        return Verdict(health=Health.NONE)
    cause = worst_trouble([after_grace_period(trouble, now) for trouble in troubles if is_due(trouble, now)])
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


def lacks_running_pods(workloads: Sequence[Manifest]) -> bool:
    """Return True if not all desired pods run, so that the pods must be read to find their troubles."""
    return any(
        not is_terminating(live) and peers_of(live).wanted and status_of(live).state is not State.CURRENT
        for live in workloads
    )
