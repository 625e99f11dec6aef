"""Short builders of plans, events, problems and rows for the tests of the reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from nimlab import report
from nimlab.errors import (
    Conflict,
    FieldConflict,
    Location,
    NimlabError,
    Problem,
)
from nimlab.files.git_history import Commit
from nimlab.objects.applyset import ApplySet
from nimlab.objects.applyset_parent import Parent
from nimlab.objects.foreign_fields import ForeignField
from nimlab.objects.manifest import Manifest, ObjectKey
from nimlab.plan.change import Action, Change
from nimlab.plan.diff import FieldChange
from nimlab.plan.make_plan import ExperimentPlan, Plan
from nimlab.plan.pod_trouble import Trouble
from nimlab.plan.prune_limits import PruneBlocked
from nimlab.plan.resource_requests import Resources
from nimlab.plan.sync_events import (
    Event,
    ExperimentSettled,
    ExperimentStuck,
    ObjectDone,
    Outcome,
    PeersProgress,
)
from nimlab.report.experiment_detail import Detail, PodLine
from nimlab.report.experiment_events import EventLine
from nimlab.report.git_state import GitState
from nimlab.report.list_rows import Row

COMMIT = Commit(sha="3f2c1e7" + "0" * 33, branch="main", dirty=False)


def key(kind: str, name: str, namespace: str = "dst-lab") -> ObjectKey:
    return ObjectKey(kind, namespace, name)


def full(experiment: str) -> str:
    return f"nimp2p-exp-{experiment}"


def live_set(experiment: str, running: int, containers: Sequence[str] = ("nimp2p",)) -> Manifest:
    return {
        "kind": "StatefulSet",
        "metadata": {"name": full(experiment), "namespace": "dst-lab", "uid": f"u-{experiment}",
                     "resourceVersion": "7"},
        "spec": {
            "replicas": running,
            "updateStrategy": {"type": "OnDelete"},
            "template": {"spec": {"containers": [{"name": name} for name in containers]}},
        },
        "status": {"replicas": running, "readyReplicas": running},
    }  # fmt: skip


def change(action: Action, kind: str, experiment: str, **more: Any) -> Change:
    """Return a change with a live and a desired object.

    With the action `create`, there is no live object. With the action `prune`, there is no desired object.
    """
    live = live_set(experiment, more.pop("running", 5)) if action is not Action.CREATE else None
    desired = live_set(experiment, 5) if action is not Action.PRUNE else None
    name = full(experiment) + ("-spec" if kind == "ConfigMap" else "")
    facts = {"live": live, "desired": desired, "key": key(kind, name), **more}
    return Change(action=action, experiment=experiment, **facts)


def all_objects(action: Action, experiment: str) -> tuple[Change, ...]:
    kinds = ("NetworkPolicy", "ConfigMap", "Service", "StatefulSet")
    ordered = reversed(kinds) if action is Action.PRUNE else kinds
    return tuple(change(action, kind, experiment) for kind in ordered)


def field(path: str, old: Any, new: Any) -> FieldChange:
    return FieldChange(path=path, old=old, new=new)


def cost(pods: int) -> Resources:
    return Resources(pods=pods, cpu_m=50 * pods, memory_bytes=16 * 1024**2 * pods)


def experiment(name: str, *changes: Change, pods: int = 0, without_file: bool = False) -> ExperimentPlan:
    source = None if without_file else f"experiments/{name}.yaml"
    return ExperimentPlan(name=name, source=source, changes=changes, added=cost(pods))


def plan(*experiments: ExperimentPlan, **more: Any) -> Plan:
    none = Parent.none()
    facts: dict[str, Any] = {
        "stops": (), "refusal": None, "broken": (), "file_errors": 0, "narrowed": False, "commit": COMMIT,
        "create_namespace": False, "before": none, "during": none, "after": none,
        **more,
    }  # fmt: skip
    apply_set = ApplySet(name="experiments", namespace="dst-lab")
    return Plan(apply_set=apply_set, experiments=experiments, **facts)


def text_of(planned: Plan, *, paint: bool = False, **more: Any) -> str:
    facts: dict[str, Any] = {
        "requests": 5, "writes": 0, "elapsed_s": 0.6, "removed_in": {}, "dry_run": True,
        "verbose": False, **more,
    }  # fmt: skip
    return report.format_plan(planned, paint=paint, **facts)


def plan_json(planned: Plan) -> str:
    code = report.exit_code_of(planned, (), dry_run=True, exit_code=True)
    return report.plan_json(planned, cluster="lab-k3s", tool_version="1.0", exit_code=code)


def run_json(planned: Plan, events: Sequence[Event]) -> str:
    code = report.exit_code_of(planned, events, dry_run=False, exit_code=False)
    return report.run_json(planned, events, cluster="lab-k3s", tool_version="1.0", exit_code=code)


def events_text(events: Sequence[Event], *, paint: bool) -> str:
    texts = [report.format_event(event, paint=paint) for event in events]
    return "\n".join(text for text in texts if text is not None)


def done_events(planned: Plan, *, failure: NimlabError | None = None, **outcomes: Outcome) -> list[Event]:
    """Return one ObjectDone event per change whose action is not `keep`.

    A change with an error in the plan fails. Any other change has the outcome that `outcomes` contains for
    its experiment, and succeeds by default. If it fails, its error is `failure`.
    """
    past = {
        Action.CREATE: Outcome.CREATED, Action.UPDATE: Outcome.UPDATED,
        Action.REPLACE: Outcome.REPLACED, Action.PRUNE: Outcome.PRUNED,
    }  # fmt: skip
    events: list[Event] = []
    for entry in planned.changes:
        if entry.action is Action.KEEP:
            continue
        name = entry.experiment
        outcome = Outcome.FAILED if entry.error else outcomes.get(name, past[entry.action])
        error = entry.error or (failure if outcome is Outcome.FAILED else None)
        events.append(ObjectDone(experiment=name, key=entry.key, outcome=outcome, error=error))
    return events


CONFLICT = FieldConflict(
    "spec.replicas is owned by `hpa-controller`",
    where=key("StatefulSet", full("purple")),
    hint="remove it from the spec, or take ownership with `nimlab sync purple --take-ownership`",
    conflicts=(Conflict(manager="hpa-controller", field=".spec.replicas"),),
)


PULL = "image katakuri100/nimp2p:v9 not found"


LIMIT = PruneBlocked(
    code="limit",
    what="4 objects would be deleted, more than the limit of 3",
    hint="if this is intended, pass `--max-prune 4`",
)


ENV = "spec.template.spec.containers[nimp2p].env"


SCALE = change(
    Action.UPDATE,
    "StatefulSet",
    "purple",
    fields=(field("spec.replicas", 5, 7), field(f"{ENV}[PEERS]", "5", "7")),
    restarts=5,
)


DEBUG = ForeignField(
    manager="kubectl-edit",
    path=(),
    text=f"{ENV}[DEBUG]",
    value={"name": "DEBUG", "value": "1"},
)


def newcomer_plan() -> Plan:
    return plan(
        experiment("blue", *all_objects(Action.CREATE, "blue"), pods=4),
        experiment("purple", *all_objects(Action.CREATE, "purple"), pods=5),
        create_namespace=True,
    )


def engineer_plan() -> Plan:
    return plan(
        experiment("blue", *all_objects(Action.PRUNE, "blue"), pods=-4, without_file=True),
        experiment(
            "purple", *(c for c in all_objects(Action.KEEP, "purple")[:3]), SCALE, pods=2
        ),
        experiment(
            "red", change(Action.KEEP, "StatefulSet", "red", foreign=(DEBUG,)),
            *all_objects(Action.KEEP, "red")[:3],
        ),
    )  # fmt: skip


def wrong_plan() -> Plan:
    """Return a plan with a conflict and withheld prunes; the objects of green and red are created."""
    purple = change(
        Action.UPDATE, "StatefulSet", "purple", error=CONFLICT, fields=(field("spec.replicas", 3, 5),)
    )
    service = change(Action.UPDATE, "Service", "purple", fields=(field("spec.ports order", [1], [2]),))
    return plan(
        experiment("blue", *all_objects(Action.PRUNE, "blue"), pods=-4, without_file=True),
        experiment("green", *all_objects(Action.CREATE, "green"), pods=5),
        experiment("purple", service, purple),
        experiment("red", *all_objects(Action.CREATE, "red"), pods=2),
        stops=(
            PruneBlocked(
                code="blocked",
                what=f"a sync with errors never prunes: {purple.key} cannot be applied",
                hint="fix the error first",
            ),
        ),
    )


CHANGING = experiment("purple", SCALE)


STUCK = ExperimentStuck(experiment="purple", running=3, wanted=5, troubles=(), timed_out=True, waited_s=60.0)


ALREADY_SETTLED = ExperimentSettled(experiment="purple", running=5, after_s=0.0)


HALFWAY = PeersProgress(experiment="purple", running=3, wanted=5, leaving=0)


def problem(path: str, line: int, column: int, code: str, what: str, **more: Any) -> Problem:
    location = Location(path=path, line=line, column=column)
    return Problem(code=code, what=what, location=location, **more)


def row(name: str, state: GitState, **more: Any) -> Row:
    facts: dict[str, Any] = {
        "full_name": full(name), "scale": 5, "running": 5, "started_at": "2026-11-23T11:57:05Z",
        "age_s": 4, **more,
    }  # fmt: skip
    return Row(experiment=name, state=state, **facts)


def pod(number: int, state: str = "Running") -> PodLine:
    running = state == "Running"
    return PodLine(
        name=f"{full('green')}-{number}", state=state, is_running=running, restarts=0 if running else 3,
        node=f"node-{number % 3}" if running else "", age_s=61,
    )  # fmt: skip


def status_detail() -> Detail:
    refusal = Trouble(
        pod=full("green"), reason="FailedCreate", message="exceeded quota", since="2026-11-23T11:57:05Z",
        fatal=True,
    )  # fmt: skip
    pull = Trouble(pod=f"{full('green')}-3", reason="ImagePullBackOff", message=PULL, since=None, fatal=True)
    event = EventLine(
        at="2026-11-23T11:57:05Z", age_s=41, kind="Pod", name=f"{full('green')}-3", reason="Failed",
        message="Error: ErrImagePull", is_warning=True, times=4,
    )  # fmt: skip
    update = change(Action.UPDATE, "StatefulSet", "green", fields=(field("spec.replicas", 3, 5),))
    return Detail(
        row=row("green", GitState.DRIFTED, running=3),
        source="experiments/green.yaml",
        plan=experiment("green", update, pods=2),
        unread=0,
        pods=(pod(0), pod(1), pod(2), pod(3, "ImagePullBackOff")),
        troubles=(pull, refusal),
        events=(replace(event, times=1, reason="Pulling", is_warning=False), event),
        noun="peer",
    )
