"""Golden files of the text and JSON output of whole plans and syncs.

A case is a folder in `golden/report`. The function with the name of the case builds its contents.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from nimlab import report
from nimlab.errors import (
    Conflict,
    ImmutableField,
    NimlabError,
    PlanError,
    Rejected,
    SpecError,
)
from nimlab.files.spec import (
    BrokenFile,
    OnImmutableChange,
)
from nimlab.objects.foreign_fields import ForeignField
from nimlab.objects.takeover import Takeover
from nimlab.plan.change import Action
from nimlab.plan.diff import ABSENT
from nimlab.plan.make_plan import ExperimentPlan
from nimlab.plan.pod_trouble import Trouble
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
from nimlab.report.git_state import GitState
from tests.support.golden import GOLDEN
from tests.support.plans import (
    COMMIT,
    CONFLICT,
    DEBUG,
    ENV,
    LIMIT,
    PULL,
    SCALE,
    all_objects,
    change,
    done_events,
    engineer_plan,
    events_text,
    experiment,
    field,
    full,
    key,
    live_set,
    newcomer_plan,
    plan,
    plan_json,
    pod,
    problem,
    row,
    run_json,
    status_detail,
    text_of,
    wrong_plan,
)

CASES = GOLDEN / "report"


ANSI = re.compile(r"\x1b\[[0-9;]*m")


def newcomer(*, paint: bool) -> dict[str, str]:
    planned = newcomer_plan()
    events = [
        Notice(text="namespace dst-lab created"),
        *done_events(planned),
        PeersProgress(experiment="blue", running=2, wanted=4, leaving=0),
        ExperimentSettled(experiment="blue", running=4, after_s=2.0),
        ExperimentSettled(experiment="purple", running=5, after_s=3.0),
    ]
    return {
        "header.txt": report.format_header("sandbox", "running, and no --context given", None),
        "dry-run.txt": text_of(planned, paint=paint),
        "verbose.txt": text_of(planned, paint=paint, verbose=True),
        "plan.txt": text_of(planned, paint=paint, dry_run=False),
        "events.txt": events_text(events, paint=paint),
        "outcome.txt": report.format_summary(planned, events, elapsed_s=3.1, paint=paint),
        "run.json": run_json(planned, events),
    }


def engineer(*, paint: bool) -> dict[str, str]:
    planned = engineer_plan()
    return {
        "header.txt": report.format_header("lab-k3s", "context `lab`, from --context", COMMIT),
        "dry-run.txt": text_of(planned, paint=paint, removed_in={"blue": "91ab3d0"}),
        "verbose.txt": text_of(planned, paint=paint, removed_in={"blue": "91ab3d0"}, verbose=True),
        "plan.json": plan_json(planned),
    }


def wrong(*, paint: bool) -> dict[str, str]:
    planned = wrong_plan()
    quota = Rejected(
        "exceeded quota: pods\nused 9, limited 10",
        where=key("Service", full("red")),
        hint="raise it\nor request less",
        status=403,
    )
    events: list[Event] = []
    for c in planned.changes:
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
        "dry-run.txt": text_of(planned, paint=paint),
        "events.txt": events_text(events, paint=paint),
        "outcome.txt": report.format_summary(planned, events, elapsed_s=44.0, paint=paint),
        "plan.json": plan_json(planned),
        "run.json": run_json(planned, events),
    }


def unchanged(*, paint: bool) -> dict[str, str]:
    planned = plan(
        experiment("blue", *all_objects(Action.KEEP, "blue")),
        experiment("purple", *all_objects(Action.KEEP, "purple")),
    )
    events: list[Event] = [
        ExperimentSettled(experiment="blue", running=4, after_s=0.0),
        ExperimentSettled(experiment="purple", running=5, after_s=0.0),
    ]
    return {
        "dry-run.txt": text_of(planned, paint=paint),
        "plan.txt": text_of(planned, paint=paint, dry_run=False),
        "verbose.txt": text_of(planned, paint=paint, verbose=True),
        "events.txt": events_text(events, paint=paint),
        "outcome.txt": report.format_summary(planned, events, elapsed_s=0.4, paint=paint),
        "no-wait.txt": report.format_summary(planned, (), elapsed_s=0.4, paint=paint),
    }


def replaced(*, paint: bool) -> dict[str, str]:
    reason = "spec.podManagementPolicy cannot be changed in place"
    fields = (field("spec.podManagementPolicy", "Parallel", "OrderedReady"),)
    fail = ImmutableField(
        reason,
        where=key("StatefulSet", full("blue")),
        hint="allow it with `onImmutableChange: recreate` (peers restart) or `orphan` in the experiment",
    )

    def replacing(name: str, how: OnImmutableChange, **more: Any) -> ExperimentPlan:
        facts = {"reason": reason, "fields": fields, "replace_by": how, **more}
        return experiment(name, change(Action.REPLACE, "StatefulSet", name, **facts))

    planned = plan(
        replacing("blue", OnImmutableChange.FAIL, error=fail, restarts=4),
        replacing("green", OnImmutableChange.ORPHAN),
        replacing("purple", OnImmutableChange.RECREATE, restarts=5),
    )
    return {"dry-run.txt": text_of(planned, paint=paint), "plan.json": plan_json(planned)}


def special(*, paint: bool) -> dict[str, str]:
    """Return the texts of a plan with each rare kind of change and note."""
    conflicts = (Conflict(manager="kubectl-scale", field=".spec.replicas"),)
    rolling = live_set("rolling", 3)
    rolling["spec"]["updateStrategy"] = {"type": "RollingUpdate"}
    rollout = change(
        Action.UPDATE, "StatefulSet", "rolling", running=3, restarts=3, desired=rolling,
        fields=(field("spec.template.spec.hostname", ABSENT, "a"),),
    )  # fmt: skip
    two = live_set("two", 1, containers=("nimp2p", "rtt"))
    foreign = tuple(replace(DEBUG, text=f"{ENV}[{name}]") for name in "ABCDEF")
    data = ForeignField(manager="argo", path=(), text="data.more", value="x")
    planned = plan(
        experiment(
            "",
            change(Action.PRUNE, "Service", "lost"),
            without_file=True,
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
                reason="peers of an older revision still exist",
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
        experiment("taken", change(Action.UPDATE, "StatefulSet", "taken", reclaimed_fields=conflicts, fields=(
            field("spec.replicas", 2, 5),))),
        experiment(
            "takeover",
            change(Action.UPDATE, "StatefulSet", "takeover", takeover=Takeover(
                managers=("kubectl-client-side-apply",),
                removed=(replace(DEBUG, manager="mesh-operator"),),
            )),
        ),
        experiment(
            "two",
            change(Action.KEEP, "StatefulSet", "two", live=two, foreign=foreign),
            change(Action.KEEP, "ConfigMap", "two", foreign=(data,)),
        ),
        experiment(
            "unsure",
            change(Action.UPDATE, "Service", "unsure", unverified=True, fields=(field("spec.a", 1, 2),)),
            change(Action.KEEP, "StatefulSet", "unsure", unverified=True,
                   reason="not verified: the credentials do not allow a server-side dry run"),
        ),
        experiment(
            "waiting",
            change(Action.CREATE, "Service", "waiting",
                   reason="waits until the old object is deleted: it still exists"),
            change(Action.KEEP, "ConfigMap", "waiting", desired=None,
                   reason="left alone: it is protected by the annotation nimlab.dev/protect"),
        ),
        narrowed=True,
    )  # fmt: skip
    return {"dry-run.txt": text_of(planned, paint=paint), "plan.json": plan_json(planned)}


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
    planned = plan(experiment("purple", config, many))
    return {
        "dry-run.txt": text_of(planned, paint=paint),
        "verbose.txt": text_of(planned, paint=paint, verbose=True),
    }


def withheld(*, paint: bool) -> dict[str, str]:
    """Return the texts of a sync that withholds its prunes: there are too many, and a file has an error."""
    planned = plan(
        experiment("blue", *all_objects(Action.PRUNE, "blue"), pods=-4, without_file=True),
        experiment("purple", SCALE, pods=2),
        stops=(LIMIT,),
        broken=(BrokenFile(name="red", source="experiments/red.yaml"),),
    )
    events: list[Event] = [
        *done_events(planned, blue=Outcome.NOT_ATTEMPTED),
        PeersRestarted(experiment="purple", peers=5),
        ExperimentSettled(experiment="purple", running=7, after_s=2.0),
    ]
    return {
        "dry-run.txt": text_of(planned, paint=paint),
        "events.txt": events_text(events, paint=paint),
        "outcome.txt": report.format_summary(planned, events, elapsed_s=2.5, paint=paint),
        "plan.json": plan_json(planned),
    }


def refused(*, paint: bool) -> dict[str, str]:
    refusal = PlanError(
        "commit 3f2c1e7 is older than 91ab3d0, which was synced last",
        where=key("ConfigMap", "nimlab-experiments"),
        hint="check out the newest commit; to go back intentionally, pass `--allow-older`",
    )
    planned = plan(*engineer_plan().experiments, refusal=refusal)
    return {
        "dry-run.txt": text_of(planned, paint=paint),
        "plan.txt": text_of(planned, paint=paint, dry_run=False),
        "plan.json": plan_json(planned),
    }


def interrupted(*, paint: bool) -> dict[str, str]:
    """Return the texts of an interrupted sync, in which some objects have no event."""
    planned = newcomer_plan()
    events: list[Event] = [
        *done_events(planned)[:2],
        PeersProgress(experiment="blue", running=1, wanted=4, leaving=0),
    ]
    return {
        "outcome.txt": report.format_summary(planned, events, elapsed_s=1.0, paint=paint),
        "run.json": run_json(planned, events),
    }


PURPLE = "experiments/purple.yaml"


PROBLEMS = (
    problem(
        PURPLE, 9, 3, "unknown-key", "unknown key `msgsize` in spec", pointer="spec.msgsize",
        excerpt="  msgsize: 1440", width=7,
        hint="did you mean `message`? allowed keys: connectTo, contract, image, message, network, peers",
    ),
    problem(
        PURPLE, 14, 13, "bad-unit", "`16` has no unit", excerpt="  downlink: 16", width=2,
        hint="write a rate with a unit, such as `16Mbit`",
    ),
    problem(
        "experiments/green.yaml", 11, 3, "contract",
        "contract `nimp2p` does not support `gossipsub.d`: its image does not read this setting",
        hint="contracts that support it: dst-queues",
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


def rows(*, paint: bool) -> dict[str, str]:
    del paint
    shown = (
        row("blue", GitState.IN_SYNC, scale=4, running=4, age_s=2304),
        row("purple", GitState.DRIFTED),
        row("red", GitState.NOT_SYNCED, running=0, started_at=None, age_s=None),
        row("white", GitState.BROKEN, full_name="", scale=None, running=None, started_at=None, age_s=None),
    )
    return {
        "list.txt": report.format_rows(shown),
        "list.json": report.rows_json(shown),
        "none.txt": report.format_rows(()),
    }


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
        row=row("red", GitState.BROKEN), source=None, plan=None, pods=(), troubles=(), events=(),
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
    """Return the names of all folders and builders; a test fails if a folder or a builder is missing."""
    return sorted({path.name for path in CASES.iterdir() if path.is_dir()} | set(BUILDERS))


@pytest.mark.parametrize("case", golden_cases())
def test_golden(case: str, *, update_golden: bool) -> None:
    planned = {name: text + "\n" for name, text in BUILDERS[case](paint=False).items()}
    folder = CASES / case
    if update_golden:
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            path.unlink()
        for name, text in planned.items():
            (folder / name).write_text(text, encoding="utf-8")
    expected = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}
    assert planned == expected


@pytest.mark.parametrize("case", golden_cases())
def test_text_is_the_same_without_colour(case: str) -> None:
    plain, painted = BUILDERS[case](paint=False), BUILDERS[case](paint=True)
    assert {name: ANSI.sub("", text) for name, text in painted.items()} == plain
    assert all("\x1b" not in text for text in plain.values())
    coloured = {name for name, text in painted.items() if text != plain[name]}
    assert coloured or case in ("rows", "sandbox")


@pytest.mark.parametrize("case", golden_cases())
def test_json_is_valid_and_ascii_and_has_a_version(case: str) -> None:
    for name, text in BUILDERS[case](paint=False).items():
        if name.endswith(".json"):
            assert json.loads(text)["schemaVersion"] == 1
            assert text.isascii()
