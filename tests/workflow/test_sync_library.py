"""The workflow as a library: a program plans and syncs a lab without the command line."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from nimlab.cluster.kube import KubeCluster, Target
from nimlab.errors import GuardError, Interrupted, LockHeld, PlanError, SpecError
from nimlab.files.git_history import read_commit
from nimlab.objects.manifest import ObjectKey
from nimlab.plan.change import Action
from nimlab.plan.sync_events import (
    Event,
    ExecutionStarted,
    ExperimentSettled,
    LockAwaited,
    Notice,
    ObjectDone,
    Outcome,
    PlanMade,
)
from nimlab.plan.sync_policy import SyncPolicy
from nimlab.workflow.desired_lab import read_desired_lab
from nimlab.workflow.observe_and_plan import plan
from nimlab.workflow.read_write_plan_file import make_saved_plan
from nimlab.workflow.session import Session, open_session, read_lab
from nimlab.workflow.sync import sync
from nimlab.workflow.sync_options import SyncOptions
from nimlab.workflow.validate_lab import check_lab
from tests.support.lab import Sandbox, make_lab, remove_namespaces

EXPERIMENT = """\
apiVersion: nimlab.dev/v1
kind: Experiment
metadata: {{name: {name}, owner: dst, description: two peers}}
spec:
  contract: nimp2p
  peers: 2
  connectTo: 1
  message: {{size: 1440B, interval: 2000ms}}
  resources: {{cpu: 50m, memory: 16Mi}}
  network: {{downlink: 16Mbit, uplink: 16Mbit}}
"""
OBJECTS = 4  # each experiment has a ConfigMap, NetworkPolicy, Service, StatefulSet


@dataclass(frozen=True, slots=True)
class Program:
    """A program that syncs a lab; each call of `sync` reads the files again, as a controller would."""

    root: Path
    namespace: str
    target: Target

    def write(self, name: str) -> None:
        """Write the file of an experiment with two peers."""
        text = EXPERIMENT.format(name=name)
        (self.root / "experiments" / f"{name}.yaml").write_text(text, encoding="utf-8")

    def remove(self, name: str) -> None:
        """Remove the file of an experiment."""
        (self.root / "experiments" / f"{name}.yaml").unlink()

    def using(
        self, use: Callable[[Session], list[Event]], policy: SyncPolicy, stop: threading.Event
    ) -> list[Event]:
        """Open a session of the lab, and return the result of a function that uses it."""
        lab = read_lab(self.root, policy.names, commit=read_commit(self.root))
        with open_session(lab, self.target, stop=stop) as session:
            return use(session)

    def sync(self, options: SyncOptions | None = None, stop: threading.Event | None = None) -> list[Event]:
        """Sync the lab and return all events."""
        chosen = options or SyncOptions()
        return self.using(lambda s: list(sync(s, chosen)), chosen.policy, stop or threading.Event())


@pytest.fixture
def program(sandbox: Sandbox, cluster: KubeCluster, tmp_path: Path) -> Iterator[Program]:
    """Yield a program with a lab of two experiments in its own namespace."""
    namespace = f"lab-{secrets.token_hex(4)}"
    target = Target(kubeconfig=sandbox.kubeconfig, context=None, name="sandbox", why="a test")
    prepared = Program(make_lab(tmp_path / "lab", namespace, ()), namespace, target)
    for name in ("red", "green"):
        prepared.write(name)
    yield prepared
    remove_namespaces(cluster, [namespace])


@pytest.fixture(autouse=True)
def silence(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Require that the library prints nothing."""
    yield
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")


def outcomes(events: list[Event]) -> list[Outcome]:
    return [event.outcome for event in events if isinstance(event, ObjectDone)]


def settled(events: list[Event]) -> dict[str, int]:
    """Return the number of running peers of each settled experiment."""
    return {e.experiment: e.running for e in events if isinstance(e, ExperimentSettled)}


def names_of(cluster: KubeCluster, kind: str, namespace: str) -> list[str]:
    items = cluster.list_objects(kind, namespace=namespace).items
    return sorted(item["metadata"]["name"] for item in items)


@pytest.mark.live
def test_sync_creates_a_lab_and_reports_each_step_in_order(program: Program, cluster: KubeCluster) -> None:
    events = program.sync()
    first, namespace, start = events[:3]
    assert isinstance(first, PlanMade)
    assert first.plan.count(Action.CREATE) == 2 * OBJECTS
    assert isinstance(namespace, Notice)
    assert program.namespace in namespace.text
    assert isinstance(start, ExecutionStarted)
    assert outcomes(events) == [Outcome.CREATED] * 2 * OBJECTS
    assert settled(events) == {"green": 2, "red": 2}
    assert len(names_of(cluster, "Pod", program.namespace)) == 4
    lease = cluster.get(ObjectKey("Lease", program.namespace, "nimlab-experiments"))
    assert lease is not None
    assert not lease["spec"].get("holderIdentity"), "the lock is released"


@pytest.mark.live
def test_second_sync_has_nothing_to_do_and_waits_for_nothing(program: Program) -> None:
    program.sync()
    first, start, *rest = program.sync()
    assert isinstance(first, PlanMade)
    assert first.plan.is_empty
    assert isinstance(start, ExecutionStarted)
    assert [(e.experiment, e.after_s) for e in rest if isinstance(e, ExperimentSettled)] == [
        ("green", 0.0),
        ("red", 0.0),
    ]
    assert len(rest) == 2
    assert settled(program.sync(SyncOptions(wait=False))) == {}


@pytest.mark.live
def test_settled_experiment_costs_no_request_in_addition_to_those_of_the_plan(program: Program) -> None:
    program.sync()

    def count(session: Session) -> list[Event]:
        plan(session)
        before = session.cluster.requests().total
        events = list(sync(session, SyncOptions()))
        assert session.cluster.requests().total == 2 * before, "the wait must send no requests"
        return events

    assert settled(program.using(count, SyncPolicy(), threading.Event())) == {"green": 2, "red": 2}


@pytest.mark.live
def test_removed_file_is_pruned_unless_the_policy_forbids_it(program: Program, cluster: KubeCluster) -> None:
    program.sync()
    program.remove("green")
    assert outcomes(program.sync(SyncOptions(policy=SyncPolicy(prune=False)))) == []
    events = program.sync(SyncOptions(policy=SyncPolicy(max_prune="3")))
    assert isinstance(events[0], PlanMade)
    assert [stop.code for stop in events[0].plan.stops] == ["limit"]
    assert names_of(cluster, "StatefulSet", program.namespace) == ["nimp2p-exp-green", "nimp2p-exp-red"]
    events = program.sync(SyncOptions(policy=SyncPolicy(max_prune=str(OBJECTS))))
    assert outcomes(events) == [Outcome.PRUNED] * OBJECTS
    assert names_of(cluster, "StatefulSet", program.namespace) == ["nimp2p-exp-red"]


@pytest.mark.live
def test_stop_event_ends_a_sync_and_the_next_sync_completes_it(
    program: Program, cluster: KubeCluster
) -> None:
    def stop_early(session: Session) -> list[Event]:
        events = []
        for event in sync(session, SyncOptions()):
            events.append(event)
            if isinstance(event, ExecutionStarted):
                session.stop.set()
        return events

    events = program.using(stop_early, SyncPolicy(), threading.Event())
    assert outcomes(events) == [Outcome.NOT_ATTEMPTED] * 2 * OBJECTS
    assert settled(events) == {}
    assert names_of(cluster, "StatefulSet", program.namespace) == []
    assert outcomes(program.sync()) == [Outcome.CREATED] * 2 * OBJECTS
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(Interrupted):
        program.sync(stop=stopped)


@pytest.mark.live
def test_abandoned_sync_releases_its_lock(program: Program) -> None:
    def abandon(session: Session) -> list[Event]:
        with closing(sync(session, SyncOptions())) as events:
            return [next(event for event in events if isinstance(event, ObjectDone))]

    program.using(abandon, SyncPolicy(), threading.Event())
    assert settled(program.sync()) == {"green": 2, "red": 2}


@pytest.mark.live
def test_plan_writes_nothing(program: Program, cluster: KubeCluster) -> None:
    lab = read_lab(program.root, commit=None)
    with open_session(lab, program.target) as session:
        prepared = plan(session)
        assert session.cluster.requests().writes == 0
    assert prepared.count(Action.CREATE) == 2 * OBJECTS
    assert prepared.create_namespace
    assert cluster.get(ObjectKey("Namespace", "", program.namespace)) is None


@pytest.mark.live
def test_names_limit_a_plan_and_must_be_the_names_that_were_read(program: Program) -> None:
    lab = read_lab(program.root, frozenset({"red"}), commit=None)
    with open_session(lab, program.target) as session:
        prepared = plan(session)
        assert [experiment.name for experiment in prepared.experiments] == ["red"]
        with pytest.raises(ValueError, match="was read for the names"):
            plan(session, SyncPolicy())


@pytest.mark.live
def test_sync_waits_for_the_lock_until_its_deadline(program: Program, cluster: KubeCluster) -> None:
    program.sync()
    key = ObjectKey("Lease", program.namespace, "nimlab-experiments")
    lease = cluster.get(key)
    assert lease is not None
    spec = {"holderIdentity": "ada", "leaseDurationSeconds": 60, "renewTime": "2999-01-01T00:00:00.000000Z"}
    cluster.replace({**lease, "spec": spec})
    program.write("blue")
    seen: list[Event] = []

    def collect(session: Session) -> list[Event]:
        for event in sync(session, SyncOptions(lock_timeout_s=4.0)):
            seen.append(event)
        return seen

    with pytest.raises(LockHeld):
        program.using(collect, SyncPolicy(), threading.Event())
    assert [type(event) for event in seen] == [PlanMade, LockAwaited]
    assert isinstance(seen[1], LockAwaited)
    assert seen[1].holder == "ada"


@pytest.mark.live
def test_saved_plan_is_executed_only_while_it_is_valid(program: Program) -> None:
    policy = SyncPolicy()
    lab = read_lab(program.root, commit=None)
    with open_session(lab, program.target) as session:
        saved = make_saved_plan(plan(session, policy), policy, session.cluster)
    program.sync(SyncOptions(policy=policy, saved_plan=saved))
    with pytest.raises(PlanError, match="no longer valid"):
        program.sync(SyncOptions(policy=policy, saved_plan=saved))
    with pytest.raises(ValueError, match="not the one of the saved plan"):
        SyncOptions(policy=replace(policy, prune=False), saved_plan=saved)


@pytest.mark.parametrize("limit", ["many", "101%", "1_0", "", "-1"])
def test_policy_rejects_an_invalid_limit(limit: str) -> None:
    with pytest.raises(ValueError, match="neither a number of objects nor a percentage"):
        SyncPolicy(max_prune=limit)


def test_name_clash_hides_no_other_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = make_lab(tmp_path / "lab", "x", ())
    for name in ("red", "red-spec", "green", "blue"):
        (root / "experiments" / f"{name}.yaml").write_text(EXPERIMENT.format(name=name), encoding="utf-8")
    template = root / "templates" / "experiment" / "configmap.yaml.j2"
    text = template.read_text(encoding="utf-8")
    suffix = '(full_name ~ ("" if name == "red-spec" else "-spec"))'
    template.write_text(text.replace('(full_name ~ "-spec")', suffix), encoding="utf-8")
    wrong = root / "experiments" / "blue.yaml"
    wrong.write_text(wrong.read_text(encoding="utf-8").replace("peers: 2", "peers: many"), encoding="utf-8")
    lab = read_desired_lab(root, None)
    assert [type(error) for error in lab.errors] == [SpecError, GuardError]
    assert "both contain this object" in lab.errors[1].what
    assert {broken.name for broken in lab.broken} == {"blue", "red", "red-spec"}
    assert [group.name for group in lab.desired] == ["green"]
    problems = {(problem.code, problem.location.path) for problem in check_lab(root).problems}
    assert problems == {("wrong-type", "experiments/blue.yaml"), ("guard", "experiments/red-spec.yaml")}
