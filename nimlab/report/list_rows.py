"""A plan that is not carried out -> the rows of `list`.

In: a plan, the experiments of the files, and known pod troubles. Out: one row per experiment. Pure; the time
is an argument.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from nimlab.files.spec import BrokenFile, Experiment
from nimlab.objects.kinds_and_order import WORKLOADS
from nimlab.objects.manifest import Manifest, key_of, labels_of
from nimlab.plan.experiment_health import Health, Verdict, health_of
from nimlab.plan.explain_stuck_deletion import describe_blockers, is_terminating
from nimlab.plan.kstatus import peers_of, template_changed_at
from nimlab.plan.make_plan import ExperimentPlan, Plan
from nimlab.plan.pod_trouble import Trouble
from nimlab.report.git_state import GitState, git_state_of

_UNKNOWN: Final = Verdict(health=Health.UNKNOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One experiment in `list`.

    `scale` is the number of peers requested in the cluster. If the experiment has no workload in the cluster,
    it is the number in the file. It is None if both are unknown. `started_at` is the start of the current
    run, RFC 3339: the time when the pod template was last written.
    """

    experiment: str
    full_name: str
    scale: int | None
    running: int | None
    started_at: str | None
    age_s: int | None
    state: GitState
    verdict: Verdict = _UNKNOWN

    @property
    def is_pending(self) -> bool:
        """True if a sync would change something or fail."""
        return self.state is not GitState.IN_SYNC


def rows_of(
    plan: Plan,
    experiments: Iterable[Experiment],
    now: datetime,
    troubles: Mapping[str, Sequence[Trouble]] | None = None,
) -> tuple[Row, ...]:
    """Return one row per experiment in the files or in the cluster, sorted by name.

    `troubles` are the known troubles of the pods, by experiment.
    """
    in_files = {experiment.name: experiment for experiment in experiments}
    known_troubles = troubles or {}
    rows = {broken.name: _broken_row(broken, in_files.get(broken.name)) for broken in plan.broken}
    for planned in plan.experiments:
        name = planned.name
        rows.setdefault(name, _row(planned, plan, in_files.get(name), known_troubles.get(name, ()), now))
    return tuple(rows[name] for name in sorted(rows))


def live_workloads(planned: ExperimentPlan) -> tuple[Manifest, ...]:
    """Return the workloads of an experiment that exist; there is one per role."""
    return tuple(c.live for c in planned.changes if c.key.kind in WORKLOADS and c.live is not None)


def terminating_objects(planned: ExperimentPlan) -> tuple[Manifest, ...]:
    """Return the objects of an experiment that are being deleted.

    Objects that have the experiment's label but are not managed by nimlab are not included.
    """
    own = (c.live for c in planned.changes if c.leaving or c.desired is not None)
    return tuple(live for live in own if live is not None and is_terminating(live))


def age_s(at: str | None, now: datetime) -> int | None:
    """Return the seconds since an RFC 3339 time, at least 0; None if no time is given."""
    if not at:
        return None
    return max(0, int((now - datetime.fromisoformat(at)).total_seconds()))


def _broken_row(broken: BrokenFile, experiment: Experiment | None) -> Row:
    """Return the row of an invalid file. Its objects are not planned, so their state is unknown."""
    return Row(
        experiment=broken.name,
        full_name=experiment.full_name if experiment else "",
        scale=experiment.peers if experiment else None,
        running=None,
        started_at=None,
        age_s=None,
        state=GitState.BROKEN,
        verdict=_UNKNOWN,
    )


def _row(
    planned: ExperimentPlan,
    plan: Plan,
    experiment: Experiment | None,
    troubles: Sequence[Trouble],
    now: datetime,
) -> Row:
    lives = live_workloads(planned)
    if lives:
        scale: int | None = sum(peers_of(live).wanted for live in lives) + _peers_to_create(planned)
    else:
        scale = experiment.peers if experiment else None
    started_at = _started_at(lives)
    return Row(
        experiment=planned.name,
        full_name=experiment.full_name if experiment else _full_name(planned, lives),
        scale=scale,
        running=sum(peers_of(live).running for live in lives) if lives else (None if scale is None else 0),
        started_at=started_at,
        age_s=age_s(started_at, now),
        state=git_state_of(planned, plan),
        verdict=_verdict(planned, lives, troubles, now),
    )


def _verdict(
    planned: ExperimentPlan, lives: Sequence[Manifest], troubles: Sequence[Trouble], now: datetime
) -> Verdict:
    """Return the health of the pods, or `terminating` if any object of the experiment is being deleted."""
    leaving = next(iter(terminating_objects(planned)), None)
    if leaving is not None:
        return Verdict(health=Health.TERMINATING, message=f"{key_of(leaving)}: {describe_blockers(leaving)}")
    return health_of(lives, len(_workloads_to_create(planned)), troubles, now)


def _started_at(lives: Sequence[Manifest]) -> str | None:
    """Return when the newest pod template of these workloads was written (RFC 3339), or None if unknown."""
    times = [time for live in lives if (time := template_changed_at(live)) is not None]
    return max(times).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if times else None


def _workloads_to_create(planned: ExperimentPlan) -> list[Manifest]:
    """Return the desired workloads that do not exist yet."""
    workloads = (c for c in planned.changes if c.key.kind in WORKLOADS and c.live is None)
    return [change.desired for change in workloads if change.desired is not None]


def _peers_to_create(planned: ExperimentPlan) -> int:
    """Return the number of peers of workloads that do not exist yet; 0 if the plan prunes a workload."""
    if any(c.desired is None for c in planned.changes if c.key.kind in WORKLOADS):
        return 0
    return sum(peers_of(desired).wanted for desired in _workloads_to_create(planned))


def _full_name(planned: ExperimentPlan, lives: Sequence[Manifest]) -> str:
    """Return the `prefix` label of the objects. If it is missing, return the name of the first workload.

    If there is no workload, return an empty text.
    """
    names = (labels_of(change.live).get("prefix") for change in planned.changes if change.live)
    workload = str(lives[0]["metadata"]["name"]) if lives else ""
    return next((name for name in names if name), workload)
