"""The options of a sync: its policy, and how it waits. Options for the output are in the package `cli`."""

from __future__ import annotations

from dataclasses import dataclass, field

from nimlab.plan.saved_plan import SavedPlan
from nimlab.plan.sync_policy import SyncPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncOptions:
    """The options of one sync.

    - `policy`: what the sync may do
    - `wait`: wait until the peers are running, or until it is certain that they will not run
    - `timeout_s`: the longest wait; None means the timeout in lab.yaml
    - `lock_timeout_s`: how long to wait for another sync to end
    - `saved_plan`: execute exactly this plan, or nothing

    Raises ValueError if `policy` is not the policy of the saved plan.
    """

    policy: SyncPolicy = field(default_factory=SyncPolicy)
    wait: bool = True
    timeout_s: float | None = None
    lock_timeout_s: float = 0.0
    saved_plan: SavedPlan | None = None

    def __post_init__(self) -> None:
        if self.saved_plan is not None and self.saved_plan.policy != self.policy:
            raise ValueError("the policy is not the one of the saved plan")
