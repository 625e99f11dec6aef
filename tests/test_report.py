"""What people and programs read: expected texts of built plans and runs, and the rules behind them.

A golden case is a folder in `golden/report`, found by listing; the function of its name builds what is said.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimlab import report
from nimlab.errors import (
    Conflict,
    FieldConflict,
    ImmutableField,
    Location,
    NimlabError,
    OwnershipConflict,
    PlanError,
    Problem,
    Rejected,
    SpecError,
)
from nimlab.files.git import Commit
from nimlab.files.spec import Broken, OnImmutableChange
from nimlab.objects.applyset import ApplySet
from nimlab.objects.applyset_parent import Parent
from nimlab.objects.foreign_fields import Foreign
from nimlab.objects.manifest import Manifest, ObjectKey
from nimlab.plan.change import Action, Change
from nimlab.plan.diff import ABSENT, FieldChange
from nimlab.plan.make_plan import ExperimentPlan, Plan
from nimlab.plan.pod_trouble import Trouble
from nimlab.plan.prune_limits import PruneBlocked
from nimlab.plan.sync_events import (
    Event,
    ExperimentSettled,
    ExperimentStuck,
    Notice,
    ObjectDone,
    Outcome,
    PeersProgress,
    PeersRestarted,
)
from nimlab.plan.workload import Resources
from nimlab.report.format_value import added_texts, age_text, change_texts
from nimlab.report.list_rows import Detail, EventLine, PodLine, Row, RowState
from nimlab.report.styled_text import escape

GOLDEN = Path(__file__).parent / "golden" / "report"
ANSI = re.compile(r"\x1b\[[0-9;]*m")
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
    """A change of an object that is there, unless it is to be created, and asked for, unless pruned."""
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


def experiment(name: str, *changes: Change, pods: int = 0, gone: bool = False) -> ExperimentPlan:
    source = None if gone else f"experiments/{name}.yaml"
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


def text_of(made: Plan, *, paint: bool = False, **more: Any) -> str:
    facts: dict[str, Any] = {
        "requests": 5, "writes": 0, "elapsed_s": 0.6, "removed_in": {}, "dry_run": True,
        "verbose": False, **more,
    }  # fmt: skip
    return report.format_plan(made, paint=paint, **facts)


def plan_json(made: Plan) -> str:
    code = report.exit_code_of(made, (), dry_run=True, exit_code=True)
    return report.plan_json(made, cluster="lab-k3s", tool_version="1.0", exit_code=code)


def run_json(made: Plan, events: Sequence[Event]) -> str:
    code = report.exit_code_of(made, events, dry_run=False, exit_code=False)
    return report.run_json(made, events, cluster="lab-k3s", tool_version="1.0", exit_code=code)


def events_text(events: Sequence[Event], *, paint: bool) -> str:
    texts = [report.format_event(event, paint=paint) for event in events]
    return "\n".join(text for text in texts if text is not None)


def done(made: Plan, **outcomes: Outcome) -> list[Event]:
    """An ObjectDone for each change that is carried out, with the outcome given for its experiment."""
    past = {
        Action.CREATE: Outcome.CREATED, Action.UPDATE: Outcome.UPDATED,
        Action.REPLACE: Outcome.REPLACED, Action.PRUNE: Outcome.PRUNED,
    }  # fmt: skip
    return [
        ObjectDone(
            experiment=c.experiment,
            key=c.key,
            outcome=Outcome.FAILED if c.error else outcomes.get(c.experiment, past[c.action]),
            error=c.error,
        )
        for c in made.changes
        if c.action is not Action.KEEP
    ]


CONFLICT = FieldConflict(
    "spec.replicas is owned by `hpa-controller`",
    where=key("StatefulSet", full("purple")),
    hint="leave it out of the spec, or take it over with `nimlab sync purple --take-ownership`",
    conflicts=(Conflict(manager="hpa-controller", field=".spec.replicas"),),
)
PULL = "image katakuri100/nimp2p:v9 not found"
LIMIT = PruneBlocked(
    code="limit",
    what="4 objects would be deleted, more than the limit of 3",
    hint="if that is meant, say `--max-prune 4`",
)
ENV = "spec.template.spec.containers[nimp2p].env"
SCALE = change(
    Action.UPDATE,
    "StatefulSet",
    "purple",
    fields=(field("spec.replicas", 5, 7), field(f"{ENV}[PEERS]", "5", "7")),
    restarts=5,
)
DEBUG = Foreign(
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


def newcomer(*, paint: bool) -> dict[str, str]:
    made = newcomer_plan()
    events = [
        Notice(text="namespace dst-lab created"),
        *done(made),
        PeersProgress(experiment="blue", running=2, wanted=4, leaving=0),
        ExperimentSettled(experiment="blue", running=4, after_s=2.0),
        ExperimentSettled(experiment="purple", running=5, after_s=3.0),
    ]
    return {
        "header.txt": report.format_header("sandbox", "it is up, and no --context was given", None),
        "dry-run.txt": text_of(made, paint=paint),
        "verbose.txt": text_of(made, paint=paint, verbose=True),
        "plan.txt": text_of(made, paint=paint, dry_run=False),
        "events.txt": events_text(events, paint=paint),
        "outcome.txt": report.format_outcome(made, events, elapsed_s=3.1, paint=paint),
        "run.json": run_json(made, events),
    }


def engineer_plan() -> Plan:
    return plan(
        experiment("blue", *all_objects(Action.PRUNE, "blue"), pods=-4, gone=True),
        experiment(
            "purple", *(c for c in all_objects(Action.KEEP, "purple")[:3]), SCALE, pods=2
        ),
        experiment(
            "red", change(Action.KEEP, "StatefulSet", "red", foreign=(DEBUG,)),
            *all_objects(Action.KEEP, "red")[:3],
        ),
    )  # fmt: skip


def engineer(*, paint: bool) -> dict[str, str]:
    made = engineer_plan()
    return {
        "header.txt": report.format_header("lab-k3s", "context `lab`, from --context", COMMIT),
        "dry-run.txt": text_of(made, paint=paint, removed_in={"blue": "91ab3d0"}),
        "verbose.txt": text_of(made, paint=paint, removed_in={"blue": "91ab3d0"}, verbose=True),
        "plan.json": plan_json(made),
    }


def wrong_plan() -> Plan:
    """One experiment conflicts, one fails when applied, one gets no image; one is gone, but not pruned."""
    purple = change(
        Action.UPDATE, "StatefulSet", "purple", error=CONFLICT, fields=(field("spec.replicas", 3, 5),)
    )
    service = change(Action.UPDATE, "Service", "purple", fields=(field("spec.ports order", [1], [2]),))
    return plan(
        experiment("blue", *all_objects(Action.PRUNE, "blue"), pods=-4, gone=True),
        experiment("green", *all_objects(Action.CREATE, "green"), pods=5),
        experiment("purple", service, purple),
        experiment("red", *all_objects(Action.CREATE, "red"), pods=2),
        stops=(
            PruneBlocked(
                code="blocked",
                what=f"a sync with errors never prunes: {purple.key} can't be applied",
                hint="mend that first",
            ),
        ),
    )


def wrong(*, paint: bool) -> dict[str, str]:
    made = wrong_plan()
    quota = Rejected(
        "exceeded quota: pods\nused 9, limited 10",
        where=key("Service", full("red")),
        hint="raise it\nor ask for less",
        status=403,
    )
    told = {c.key: c for c in made.changes}
    events: list[Event] = []
    for c in told.values():
        outcome = Outcome.CREATED
        error: NimlabError | None = None
        if c.experiment in ("blue", "purple"):
            outcome = Outcome.NOT_ATTEMPTED
        if c.experiment == "red" and c.key.kind == "Service":
            outcome, error = Outcome.FAILED, quota
        if c.experiment == "red" and c.key.kind == "StatefulSet":
            outcome, error = Outcome.NOT_ATTEMPTED, quota
        if c.error is not None:
            outcome, error = Outcome.FAILED, c.error
        events.append(ObjectDone(experiment=c.experiment, key=c.key, outcome=outcome, error=error))
    trouble = Trouble(
        pod=f"{full('green')}-3", reason="ImagePullBackOff", message=PULL, since=None, fatal=True
    )
    events += [
        PeersProgress(experiment="green", running=3, wanted=5, leaving=1),
        ExperimentStuck(
            experiment="green",
            running=3,
            wanted=5,
            troubles=(trouble, replace(trouble, pod=f"{full('green')}-4")),
            timed_out=False,
            waited_s=41.2,
        ),
    ]
    return {
        "dry-run.txt": text_of(made, paint=paint),
        "events.txt": events_text(events, paint=paint),
        "outcome.txt": report.format_outcome(made, events, elapsed_s=44.0, paint=paint),
        "plan.json": plan_json(made),
        "run.json": run_json(made, events),
    }


def unchanged(*, paint: bool) -> dict[str, str]:
    made = plan(
        experiment("blue", *all_objects(Action.KEEP, "blue")),
        experiment("purple", *all_objects(Action.KEEP, "purple")),
    )
    events: list[Event] = [
        ExperimentSettled(experiment="blue", running=4, after_s=0.0),
        ExperimentSettled(experiment="purple", running=5, after_s=0.0),
    ]
    return {
        "dry-run.txt": text_of(made, paint=paint),
        "plan.txt": text_of(made, paint=paint, dry_run=False),
        "verbose.txt": text_of(made, paint=paint, verbose=True),
        "events.txt": events_text(events, paint=paint),
        "outcome.txt": report.format_outcome(made, events, elapsed_s=0.4, paint=paint),
        "no-wait.txt": report.format_outcome(made, (), elapsed_s=0.4, paint=paint),
    }


def replaced(*, paint: bool) -> dict[str, str]:
    reason = "spec.podManagementPolicy can't be changed in place"
    fields = (field("spec.podManagementPolicy", "Parallel", "OrderedReady"),)
    fail = ImmutableField(
        reason,
        where=key("StatefulSet", full("blue")),
        hint="allow it with `onImmutableChange: recreate` (peers restart) or `orphan` in the experiment",
    )

    def replacing(name: str, how: OnImmutableChange, **more: Any) -> ExperimentPlan:
        facts = {"reason": reason, "fields": fields, "replace_by": how, **more}
        return experiment(name, change(Action.REPLACE, "StatefulSet", name, **facts))

    made = plan(
        replacing("blue", OnImmutableChange.FAIL, error=fail, restarts=4),
        replacing("green", OnImmutableChange.ORPHAN),
        replacing("purple", OnImmutableChange.RECREATE, restarts=5),
    )
    return {"dry-run.txt": text_of(made, paint=paint), "plan.json": plan_json(made)}


def special(*, paint: bool) -> dict[str, str]:
    """All that is rare: each thing that a plan may have to say once."""
    taken = (Conflict(manager="kubectl-scale", field=".spec.replicas"),)
    rolling = live_set("rolling", 3)
    rolling["spec"]["updateStrategy"] = {"type": "RollingUpdate"}
    rollout = change(
        Action.UPDATE, "StatefulSet", "rolling", running=3, restarts=3, desired=rolling,
        fields=(field("spec.template.spec.hostname", ABSENT, "a"),),
    )  # fmt: skip
    two = live_set("two", 1, containers=("nimp2p", "rtt"))
    foreign = tuple(replace(DEBUG, text=f"{ENV}[{name}]") for name in "ABCDEF")
    data = Foreign(manager="argo", path=(), text="data.more", value="x")
    made = plan(
        experiment(
            "",
            change(Action.PRUNE, "Service", "lost"),
            gone=True,
        ),
        experiment(
            "a-name-longer-than-most",
            change(Action.CREATE, "Service", "a-name-longer-than-most"),
            change(Action.CREATE, "ConfigMap", "a-name-longer-than-most"),
            change(Action.KEEP, "StatefulSet", "a-name-longer-than-most"),
            pods=1200,
        ),
        experiment(
            "lagging",
            change(
                Action.UPDATE, "StatefulSet", "lagging", restarts=2,
                reason="peers of an older revision are still there",
            ),
            change(Action.UPDATE, "StatefulSet", "lagging", restarts=5,
                   fields=(field("spec.replicas", 2, 5),)),
        ),
        experiment(
            "one",
            change(Action.UPDATE, "StatefulSet", "one", running=1, restarts=1,
                   fields=(field("spec.template.x", 1, 2),)),
            change(Action.PRUNE, "NetworkPolicy", "one"),
            change(Action.CREATE, "Service", "one"),
            pods=-1,
        ),
        experiment("rolling", rollout),
        experiment("taken", change(Action.UPDATE, "StatefulSet", "taken", taken=taken, fields=(
            field("spec.replicas", 2, 5),))),
        experiment(
            "two",
            change(Action.KEEP, "StatefulSet", "two", live=two, foreign=foreign),
            change(Action.KEEP, "ConfigMap", "two", foreign=(data,)),
        ),
        experiment(
            "unsure",
            change(Action.UPDATE, "Service", "unsure", unverified=True, fields=(field("spec.a", 1, 2),)),
            change(Action.KEEP, "StatefulSet", "unsure", unverified=True,
                   reason="not verified: the credentials don't allow a server dry-run"),
        ),
        experiment(
            "waiting",
            change(Action.CREATE, "Service", "waiting",
                   reason="the one that is there is being deleted: waits until it is gone"),
            change(Action.KEEP, "ConfigMap", "waiting", desired=None,
                   reason="left alone: it is protected by the annotation nimlab.dev/protect"),
        ),
        narrowed=True,
    )  # fmt: skip
    return {"dry-run.txt": text_of(made, paint=paint), "plan.json": plan_json(made)}


def long_values(*, paint: bool) -> dict[str, str]:
    spec = '{"contract":"nimp2p","message":{"interval":"%s","size":"1440B"},"peers":5}'
    config = change(
        Action.UPDATE, "ConfigMap", "purple",
        fields=(
            field("data.sha256", "a" * 64, "b" * 64),
            field("data[a.yaml]", "one\ntwo\nthree", "one\n2\n3"),
            field("data[b.yaml]", "one\n", "one\ntwo"),
            field("data[experiment.json]", spec % "2000ms", spec % "500ms"),
            field("data[huge.json]", {"a": list(range(30))}, ABSENT),
            field("data[longer]", "x" * 40, "x" * 45),
            field("metadata.annotations[" + "n" * 70 + "]", None, True),
        ),
    )  # fmt: skip
    many = change(
        Action.UPDATE, "StatefulSet", "purple",
        fields=tuple(field(f"spec.f{n:02}", n, n + 1) for n in range(20)),
    )  # fmt: skip
    made = plan(experiment("purple", config, many))
    return {
        "dry-run.txt": text_of(made, paint=paint),
        "verbose.txt": text_of(made, paint=paint, verbose=True),
    }


def withheld(*, paint: bool) -> dict[str, str]:
    """Prunes beyond the limit, a file that can't be used: the rest is done, and what isn't is told."""
    made = plan(
        experiment("blue", *all_objects(Action.PRUNE, "blue"), pods=-4, gone=True),
        experiment("purple", SCALE, pods=2),
        stops=(LIMIT,),
        broken=(Broken(name="red", source="experiments/red.yaml"),),
    )
    events: list[Event] = [
        *done(made, blue=Outcome.NOT_ATTEMPTED),
        PeersRestarted(experiment="purple", peers=5),
        ExperimentSettled(experiment="purple", running=7, after_s=2.0),
    ]
    return {
        "dry-run.txt": text_of(made, paint=paint),
        "events.txt": events_text(events, paint=paint),
        "outcome.txt": report.format_outcome(made, events, elapsed_s=2.5, paint=paint),
        "plan.json": plan_json(made),
    }


def refused(*, paint: bool) -> dict[str, str]:
    refusal = PlanError(
        "commit 3f2c1e7 is older than 91ab3d0, which was synced last",
        where=key("ConfigMap", "nimlab-experiments"),
        hint="check out the newest commit; to go back on purpose, say `--allow-older`",
    )
    made = plan(*engineer_plan().experiments, refusal=refusal)
    return {
        "dry-run.txt": text_of(made, paint=paint),
        "plan.txt": text_of(made, paint=paint, dry_run=False),
        "plan.json": plan_json(made),
    }


def interrupted(*, paint: bool) -> dict[str, str]:
    """Stopped half-way: some objects have no event at all."""
    made = newcomer_plan()
    events: list[Event] = [*done(made)[:2], PeersProgress(experiment="blue", running=1, wanted=4, leaving=0)]
    return {
        "outcome.txt": report.format_outcome(made, events, elapsed_s=1.0, paint=paint),
        "run.json": run_json(made, events),
    }


def problem(path: str, line: int, column: int, code: str, what: str, **more: Any) -> Problem:
    location = Location(path=path, line=line, column=column)
    return Problem(code=code, what=what, location=location, **more)


PURPLE = "experiments/purple.yaml"
PROBLEMS = (
    problem(
        PURPLE, 9, 3, "unknown-key", "unknown key `msgsize` in spec", pointer="spec.msgsize",
        excerpt="  msgsize: 1440", width=7,
        hint="did you mean `message`? allowed here: connectTo, contract, image, message, network, peers",
    ),
    problem(
        PURPLE, 14, 13, "bad-unit", "`16` has no unit", excerpt="  downlink: 16", width=2,
        hint="write a rate such as `16Mbit`",
    ),
    problem(
        "experiments/green.yaml", 11, 3, "contract",
        "contract `nimp2p` cannot deliver `gossipsub.d`: its image reads no such setting",
        hint="contracts that can: dst-queues",
    ),
)  # fmt: skip


def problems(*, paint: bool) -> dict[str, str]:
    return {
        "problems.txt": report.format_problems(PROBLEMS, files=4, paint=paint),
        "error.txt": report.format_error(SpecError(PROBLEMS), paint=paint),
        "conflict.txt": report.format_error(CONFLICT, paint=paint),
        "plain.txt": report.format_error(NimlabError("no lab here"), paint=paint),
        "problems.json": report.problems_json(PROBLEMS),
    }


def row(name: str, state: RowState, **more: Any) -> Row:
    facts: dict[str, Any] = {
        "full_name": full(name), "scale": 5, "running": 5, "started_at": "2026-11-23T11:57:05Z",
        "age_s": 4, **more,
    }  # fmt: skip
    return Row(experiment=name, state=state, **facts)


def rows(*, paint: bool) -> dict[str, str]:
    del paint
    found = (
        row("blue", RowState.IN_SYNC, scale=4, running=4, age_s=2304),
        row("purple", RowState.DRIFTED),
        row("red", RowState.NOT_SYNCED, running=0, started_at=None, age_s=None),
        row("white", RowState.BROKEN, full_name="", scale=None, running=None, started_at=None, age_s=None),
    )
    return {
        "list.txt": report.format_rows(found),
        "list.json": report.rows_json(found),
        "none.txt": report.format_rows(()),
    }


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
        row=row("green", RowState.DRIFTED, running=3),
        source="experiments/green.yaml",
        plan=experiment("green", update, pods=2),
        unread=0,
        pods=(pod(0), pod(1), pod(2), pod(3, "ImagePullBackOff")),
        troubles=(pull, refusal),
        events=(replace(event, times=1, reason="Pulling", is_warning=False), event),
        noun="peer",
    )


def status(*, paint: bool) -> dict[str, str]:
    detail = status_detail()
    many = replace(
        detail,
        plan=experiment("green", change(Action.KEEP, "StatefulSet", "green")),
        unread=9000,
        pods=tuple(pod(n, "Pending" if n in (700, 701) else "Running") for n in range(1000)),
        troubles=tuple(
            Trouble(pod=f"pod-{n}", reason=f"Reason{n}", message="m", since=None, fatal=False)
            for n in range(7)
        ),
        events=(),
    )  # fmt: skip
    bare = replace(
        detail,
        row=row("red", RowState.BROKEN), source=None, plan=None, pods=(), troubles=(), events=(),
    )  # fmt: skip
    return {
        "status.txt": report.format_status(detail, paint=paint),
        "status.json": report.detail_json(detail),
        "many.txt": report.format_status(many, paint=paint),
        "bare.txt": report.format_status(bare, paint=paint),
        "bare.json": report.detail_json(bare),
    }


def sandbox(*, paint: bool) -> dict[str, str]:
    del paint
    parts = (("etcd", 41, True, ".nimlab/etcd.log"), ("kwok", None, False, ".nimlab/kwok.log"))
    up: dict[str, Any] = {"server": "https://127.0.0.1:41235", "nodes": 3, "parts": parts[:1]}
    return {
        "up.txt": report.format_sandbox(running=True, **up),
        "up.json": report.sandbox_json(running=True, **up),
        "broken.txt": report.format_sandbox(running=False, server=None, nodes=3, parts=parts),
        "broken.json": report.sandbox_json(running=False, server=None, nodes=3, parts=parts),
        "none.txt": report.format_sandbox(running=False, server=None, nodes=0, parts=()),
    }


BUILDERS: Mapping[str, Callable[..., dict[str, str]]] = {
    "engineer": engineer, "interrupted": interrupted, "long-values": long_values, "newcomer": newcomer,
    "problems": problems, "refused": refused, "replaced": replaced, "rows": rows, "sandbox": sandbox,
    "special": special, "status": status, "unchanged": unchanged, "withheld": withheld, "wrong": wrong,
}  # fmt: skip


def golden_cases() -> list[str]:
    """The folders found, and the builders: one without the other is an error."""
    return sorted({path.name for path in GOLDEN.iterdir() if path.is_dir()} | set(BUILDERS))


@pytest.mark.parametrize("case", golden_cases())
def test_golden(case: str, *, update_golden: bool) -> None:
    made = {name: text + "\n" for name, text in BUILDERS[case](paint=False).items()}
    folder = GOLDEN / case
    if update_golden:
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            path.unlink()
        for name, text in made.items():
            (folder / name).write_text(text, encoding="utf-8")
    expected = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}
    assert made == expected


@pytest.mark.parametrize("case", golden_cases())
def test_text_reads_the_same_without_colour(case: str) -> None:
    plain, painted = BUILDERS[case](paint=False), BUILDERS[case](paint=True)
    assert {name: ANSI.sub("", text) for name, text in painted.items()} == plain
    assert all("\x1b" not in text for text in plain.values())
    coloured = {name for name, text in painted.items() if text != plain[name]}
    assert coloured or case in ("rows", "sandbox")


@pytest.mark.parametrize("case", golden_cases())
def test_json_is_json_with_a_version_and_in_ascii(case: str) -> None:
    for name, text in BUILDERS[case](paint=False).items():
        if name.endswith(".json"):
            assert json.loads(text)["schemaVersion"] == 1
            assert text.isascii()


def every_plan() -> list[Plan]:
    return [newcomer_plan(), engineer_plan(), wrong_plan(), plan()]


def test_each_object_counts_once() -> None:
    for made in every_plan():
        for refusal in (None, PlanError("no")):
            document = json.loads(plan_json(replace(made, refusal=refusal)))
            assert sum(document["summary"].values()) == len(made.changes)


def test_every_json_key_is_documented() -> None:
    text = (Path(__file__).parent.parent / "docs" / "plan-json.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"`([A-Za-z-]+)`", text))

    def keys(value: Any) -> set[str]:
        if isinstance(value, dict):
            return set(value) | {key for item in value.values() for key in keys(item)}
        return {key for item in value for key in keys(item)} if isinstance(value, list) else set()

    used = {key for path in GOLDEN.rglob("*.json") for key in keys(json.loads(path.read_text()))}
    assert used - documented == set()


@pytest.mark.parametrize("word", [*Action, *Outcome, *RowState, *OnImmutableChange])
def test_every_word_of_json_is_documented(word: Any) -> None:
    text = (Path(__file__).parent.parent / "docs" / "plan-json.md").read_text(encoding="utf-8")
    assert f"`{word.value}`" in text


CHANGING = experiment("purple", SCALE)
STUCK = ExperimentStuck(experiment="purple", running=3, wanted=5, troubles=(), timed_out=True, waited_s=60.0)
STANDING = ExperimentSettled(experiment="purple", running=5, after_s=0.0)
HALFWAY = PeersProgress(experiment="purple", running=3, wanted=5, leaving=0)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (plan(), 0),
        (plan(CHANGING), 3),
        (plan(experiment("red", change(Action.KEEP, "Service", "red", foreign=(DEBUG,)))), 0),
        (plan(CHANGING, stops=(LIMIT,)), 1),
        (plan(CHANGING, refusal=PlanError("stale")), 1),
        (plan(broken=(Broken(name="red", source="experiments/red.yaml"),)), 1),
        (plan(experiment("purple", replace(SCALE, error=CONFLICT))), 1),
    ],
)
def test_exit_code_of_a_dry_run(made: Plan, expected: int) -> None:
    assert report.exit_code_of(made, (), dry_run=True, exit_code=True) == expected
    unasked = 0 if expected == 3 else expected
    assert report.exit_code_of(made, (), dry_run=True, exit_code=False) == unasked


@pytest.mark.parametrize(
    ("made", "events", "expected"),
    [
        (plan(), (), 0),
        (plan(CHANGING), (), 1),
        (plan(CHANGING), (*done(plan(CHANGING)),), 0),
        (plan(CHANGING), (*done(plan(CHANGING)), STANDING), 0),
        (plan(CHANGING), (*done(plan(CHANGING)), HALFWAY, STANDING), 0),
        (plan(CHANGING), (*done(plan(CHANGING)), HALFWAY), 4),
        (plan(CHANGING), (*done(plan(CHANGING)), HALFWAY, STUCK), 4),
        (plan(CHANGING), (*done(plan(CHANGING), purple=Outcome.FAILED), STUCK), 1),
        (plan(CHANGING), (*done(plan(CHANGING), purple=Outcome.NOT_ATTEMPTED),), 1),
        (plan(CHANGING, stops=(LIMIT,)), (*done(plan(CHANGING)),), 1),
        (plan(broken=(Broken(name="red", source="x"),)), (STANDING,), 1),
    ],
)
def test_exit_code_of_a_run(made: Plan, events: tuple[Event, ...], expected: int) -> None:
    assert report.exit_code_of(made, events, dry_run=False, exit_code=False) == expected


def test_finished_sync_says_so_when_a_prune_was_not_needed() -> None:
    made = plan(CHANGING, stops=())
    said = report.format_outcome(made, [*done(made), STUCK], elapsed_s=61.0, paint=False)
    assert said.splitlines()[-1] == "1 of 1 experiment synced. Not ready: purple."


def test_experiments_with_prunes_come_first() -> None:
    made = plan(experiment("a", SCALE), experiment("b", *all_objects(Action.PRUNE, "b"), gone=True))
    assert text_of(made).startswith("b ")


def test_colour_and_escapes_cannot_be_smuggled_in() -> None:
    evil = "a\x1b[31mb\u202ec\u2066\nd\x07\ud800"
    smuggled = replace(DEBUG, text=f"spec.{evil}", manager=evil)
    bad = change(
        Action.UPDATE, "Service", "x", fields=(field(f"data[{evil}]", evil, "b"),), foreign=(smuggled,),
        error=OwnershipConflict(evil, where=evil, hint=evil),
    )  # fmt: skip
    wrong_file = problem(evil, 1, 3, "x", evil, excerpt=evil, hint=evil)
    made = plan(
        replace(experiment(evil, bad), source=evil),
        broken=(Broken(name=evil, source=evil),),
        stops=(PruneBlocked(code="x", what=evil, hint=evil),),
    )
    events: list[Event] = [
        *done(made),
        Notice(text=evil),
        replace(STUCK, experiment=evil, troubles=(
            Trouble(pod=evil, reason=evil, message=evil, since=evil, fatal=True),)),
    ]  # fmt: skip
    texts = [
        text_of(made),
        events_text(events, paint=False),
        report.format_outcome(made, events, elapsed_s=1.0, paint=False),
        report.format_problems([wrong_file], files=1, paint=False),
        report.format_rows([row(evil, RowState.DRIFTED)]),
        report.format_status(
            replace(status_detail(), source=evil, pods=(replace(pod(1), name=evil, node=evil),)), paint=False
        ),
        report.format_sandbox(running=True, server=evil, nodes=1, parts=[(evil, 1, True, evil)]),
        report.format_header(evil, evil, replace(COMMIT, branch=evil)),
    ]  # fmt: skip
    for text in texts:
        assert all(char.isprintable() for char in text.replace("\n", "")), text
        assert r"\u202e" in text


def test_failure_while_applying_withholds_the_prunes() -> None:
    made = plan(experiment("a", *all_objects(Action.PRUNE, "a"), gone=True), CHANGING)
    events = done(made, purple=Outcome.FAILED, a=Outcome.NOT_ATTEMPTED)
    said = report.format_outcome(made, events, elapsed_s=1.0, paint=False).splitlines()
    assert said[-3:] == [
        "0 of 2 experiments synced. Not done: a (not pruned), purple (nothing was changed).",
        "Nothing was pruned: a sync with errors never prunes.",
        "Run it again once mended; what is done stays done.",
    ]


def test_prune_that_fails_in_part_is_told_as_such() -> None:
    made = plan(experiment("a", *all_objects(Action.PRUNE, "a"), gone=True))
    first, second, *rest = done(made, a=Outcome.NOT_ATTEMPTED)
    assert isinstance(first, ObjectDone)
    assert isinstance(second, ObjectDone)
    events = [replace(first, outcome=Outcome.PRUNED), replace(second, outcome=Outcome.FAILED), *rest]
    said = report.format_outcome(made, events, elapsed_s=1.0, paint=False)
    assert "Not done: a (3 not pruned)." in said
    assert "Nothing was pruned" not in said


def test_blocked_object_failed_even_if_no_event_tells() -> None:
    made = plan(experiment("purple", replace(SCALE, error=CONFLICT)))
    (entry,) = json.loads(run_json(made, ()))["objects"]
    assert entry["outcome"] == "failed"
    assert entry["error"]["code"] == "field-conflict"


def test_what_is_not_there_has_no_key() -> None:
    made = plan(experiment("purple", replace(SCALE, error=Rejected("no"))), commit=None)
    document = json.loads(plan_json(made))
    assert "commit" not in document
    assert document["objects"][0]["error"] == {"code": "rejected", "what": "no"}
    assert "hint" not in text_of(made)


def test_json_hides_secrets_and_is_ascii() -> None:
    token = replace(DEBUG, value={"name": "TOKEN", "value": "hunter2"}, manager="\u202eargo→")
    made = plan(experiment("x", change(Action.KEEP, "StatefulSet", "x", foreign=(token,))))
    text = plan_json(made)
    assert text.isascii()
    (foreign,) = json.loads(text)["objects"][0]["foreign"]
    assert foreign["value"] == {"name": "TOKEN", "value": "(hidden)"}
    assert foreign["manager"] == "\u202eargo→"


def test_long_lists_of_names_end_in_a_count() -> None:
    broken = tuple(Broken(name=f"x{n}", source=f"x{n}.yaml") for n in range(12))
    said = report.format_outcome(plan(broken=broken), (), elapsed_s=1.0, paint=False)
    assert "0 of 12 experiments synced." in said
    assert said.count("and 4 more.") == 1


def test_header_says_what_is_not_clean() -> None:
    dirty = Commit(sha="a" * 40, branch=None, dirty=True)
    shown = report.format_header("lab", "why", dirty)
    assert shown.endswith("commit aaaaaaa on no branch, with uncommitted changes")


def test_twenty_problems_are_shown_and_all_are_counted() -> None:
    many = [problem("a.yaml", n, 1, "x", f"problem {n}") for n in range(1, 23)]
    lines = report.format_problems(many, files=1, paint=False).splitlines()
    assert len(lines) == 22
    assert lines[-2:] == ["… and 2 more problems", "22 problems in 1 file"]


@pytest.mark.parametrize(
    ("column", "width", "excerpt", "marked"),
    [
        (1, 3, "abc: 1", "abc"),
        (3, 1, "\t\tx", "x"),
        (4, 1, "\x1b\u202eax", "x"),
        (1, 99, "short", "short"),
        (9, 1, "short", ""),
        (61, 5, "y" * 60 + "MARK!" + "z" * 90, "MARK!"),
        (2, 300, "x" + "y" * 200, "y" * 99),
    ],
)
def test_mark_stands_under_the_place(column: int, width: int, excerpt: str, marked: str) -> None:
    found = problem("a.yaml", 1, column, "x", "y", excerpt=excerpt, width=width)
    _, shown, mark, _ = report.format_problems([found], files=1, paint=False).splitlines()
    start, end = mark.index("^"), mark.rindex("^") + 1
    assert shown[start:end] == marked
    assert len(shown) <= 7 + 102


def test_several_lines_of_a_server_become_one() -> None:
    error = Rejected("one\n  two", hint="three\nfour")
    assert report.format_error(error, paint=False) == "error[rejected]: one two\n  hint: three four"


def test_error_elsewhere_keeps_its_place() -> None:
    error = Rejected("no", where="somewhere else")
    told = ObjectDone(experiment="a", key=key("Service", "a"), outcome=Outcome.FAILED, error=error)
    assert report.format_event(told, paint=False) == (
        "a        Service/dst-lab/a: error[rejected]: no (at somewhere else)"
    )


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (ObjectDone(experiment="a", key=key("Service", "a"), outcome=Outcome.NOT_ATTEMPTED), None),
        (ObjectDone(experiment="a", key=key("Service", "a"), outcome=Outcome.UNCHANGED), None),
        (STANDING, None),
        (replace(HALFWAY, running=0, wanted=0, leaving=1), "purple   waiting: 1 peer still to go"),
        (replace(STANDING, running=0, after_s=1.0), "purple   settled: no peers running after 1.0 s"),
        (STUCK, "purple   not ready in time: 3 of 5 peers running after 60 s"),
    ],
)  # fmt: skip
def test_event(event: Event, text: str | None) -> None:
    assert report.format_event(event, paint=False) == text


@pytest.mark.parametrize(
    ("age_s", "text"),
    [
        (None, "-"), (0, "0s"), (24, "24s"), (60, "1m"), (2304, "38m24s"), (3600, "1h"), (3605, "1h"),
        (18720, "5h12m"), (273600, "3d4h"), (259200, "3d"),
    ],
)  # fmt: skip
def test_ages_read_as_the_seed_prints_them(age_s: int | None, text: str) -> None:
    assert age_text(age_s) == text


@pytest.mark.parametrize(
    ("resources", "texts"),
    [
        (Resources(pods=1, cpu_m=250, memory_bytes=16 << 20), ("+1 pod", "+250m CPU", "+16Mi")),
        (Resources(memory_bytes=3_686_336 << 20), ("", "", "+3.5Ti")),
        (Resources(memory_bytes=-(3_686_336 << 20)), ("", "", "-3.5Ti")),
        (Resources(memory_bytes=1000), ("", "", "+1000")),
        (Resources(memory_bytes=(1 << 30) - 1), ("", "", "+1Gi")),
        (Resources(memory_bytes=1 << 30), ("", "", "+1Gi")),
        (Resources(cpu_m=-612_550), ("", "-612.5 CPU", "")),
        (Resources(cpu_m=9_999), ("", "+9999m CPU", "")),
    ],
)
def test_totals_are_short(resources: Resources, texts: tuple[str, str, str]) -> None:
    assert added_texts(resources) == texts


def test_json_in_a_text_is_compared_by_its_fields() -> None:
    old = '{"a": {"b": 1, "c d": 2}, "same": 1, "gone": []}'
    new = '{"a": {"b": 2, "c d": 3}, "same": 1, "added": {}}'
    config = change(
        Action.UPDATE, "ConfigMap", "x",
        fields=(field("data.x", old, new), field("data.y", "{no", "{more"), field("data.z", "{}", "{ }")),
    )  # fmt: skip
    lines = [" ".join(text.split()) for text in text_of(plan(experiment("x", config))).splitlines()]
    assert lines[1:-1] == [
        "data.x.a.b 1 → 2",
        "data.x.a[c d] 2 → 3",
        "data.x.added (absent) → {}",
        "data.x.gone [] → (absent)",
        'data.y "{no" → "{more"',
        'data.z "{}" → "{ }"',
    ]


VALUES = st.text(max_size=80) | st.integers() | st.lists(st.integers(), max_size=40)


@given(old=VALUES, new=VALUES, same=st.text(max_size=60))
def test_shortened_values_still_differ(old: Any, new: Any, same: str) -> None:
    if isinstance(old, str) and isinstance(new, str):
        old, new = same + old, same + new
    if old == new:
        return
    _, a, b = change_texts(field("x", old, new), whole=False)
    assert a != b
    assert max(len(a), len(b)) <= 32
    assert (a + b).isprintable()


@given(st.text())
def test_escaped_text_is_printable_and_stays_so(text: str) -> None:
    assert escape(text).isprintable()
    assert escape(escape(text)) == escape(text)


def test_error_and_hint_of_a_plan_are_not_repeated_at_the_end() -> None:
    made = wrong_plan()
    (blocked,) = [one for one in made.changes if one.error is not None]
    assert blocked.error is not None
    plan_said = text_of(made, dry_run=False)
    events = done(made, blue=Outcome.NOT_ATTEMPTED)
    end = report.format_outcome(made, events, elapsed_s=1.0, paint=False)
    assert blocked.error.what in plan_said
    assert blocked.error.what not in end
    assert f"{blocked.key}: error[{blocked.error.code}], see the plan" in end
    for stop in made.stops:
        assert (plan_said + end).count(f"hint: {stop.hint}") == 1
