"""Network and server faults in a sync cause no wrong deletion and no false report; the next sync succeeds.

Each fault is injected into each kind of request, once temporarily and once permanently, while a sync changes
the lab from one state to the other.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import urllib3

from nimlab.cluster.kube import api_client as client
from nimlab.cluster.kube import retry, transport
from tests.faults.two_states import OTHER, World, make_world
from tests.support.api_proxy import Broken, Proxy, Seen, run_proxy
from tests.support.lab import Lab
from tests.support.run_rules import has_mark

pytestmark = [
    pytest.mark.live,
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("short_pauses", "count_faults"),
]

INJECTED: Counter[str] = Counter()
SHORT_TIMEOUT_S = 0.4  # a test of slowness spends most of its time in this timeout


def status(code: int, **headers: str) -> Broken:
    """Return an error response with this status."""
    body = {"kind": "Status", "code": code, "message": "injected", "reason": "Injected"}
    return Broken(status=code, body=body, headers=headers)


FAULTS: dict[str, Broken] = {
    "429 with Retry-After": status(429, **{"Retry-After": "1"}),
    "500, 503, 504 and a proxy's 502": status(503),
    "403": status(403),
    "a cut before": Broken(cut_before=True),
    "a cut after": Broken(cut=True),
    "half a body": Broken(half=True),
    "slowness": Broken(delay_s=SHORT_TIMEOUT_S + 0.1),
}


def alone_if_timed(fault: str) -> Any:
    """Return a test parameter. `slowness` runs alone, because other tests would disturb its timeout."""
    return pytest.param(fault, marks=[pytest.mark.serial] if fault == "slowness" else [])


BUSY = (status(500), status(503), status(504), Broken(status=502, body="<html>"))
PLACES: dict[str, Callable[[Seen], bool]] = {
    "the parent": lambda r: r.method == "GET" and "/configmaps/nimlab-" in r.path,
    "a list": lambda r: r.method == "GET" and "/services?" in r.path,
    "a dry run": lambda r: "dryRun=All" in r.path,
    "the lock": lambda r: r.method in ("PUT", "POST") and "/leases" in r.path,
    "the scope": lambda r: r.method == "PATCH" and "/configmaps/nimlab-" in r.path,
    "an apply": lambda r: r.method == "PATCH" and "dryRun" not in r.path and "/services/" in r.path,
    "a workload": lambda r: r.method == "PATCH" and "dryRun" not in r.path and "/statefulsets/" in r.path,
    "a restart": lambda r: r.method == "DELETE" and "/pods/" in r.path,
    "a prune": lambda r: r.method == "DELETE" and "/configmaps/" in r.path,
    "everything": lambda r: True,
}
READS = ("the parent", "a list", "everything")


@dataclass(slots=True)
class Injector:
    """A proxy hook that injects a fault into one kind of requests (`place`) and counts the faults."""

    place: str
    fault: str
    times: int | None
    hits: int = 0
    deletes: list[str] = field(default_factory=list)

    def __call__(self, request: Seen) -> Broken | None:
        """Return the fault for a request, or None."""
        if request.method == "DELETE":
            self.deletes.append(request.path)
        if not PLACES[self.place](request) or self.hits == self.times:
            return None
        self.hits += 1
        INJECTED[self.fault] += 1
        return BUSY[self.hits % len(BUSY)] if self.fault.startswith("500") else FAULTS[self.fault]


@pytest.fixture
def count_faults(counts: dict[str, Counter[str]]) -> Iterator[None]:
    """Add the number of faults in this test to the counts of the test run."""
    INJECTED.clear()
    yield
    counts["faults"].update(INJECTED)


@pytest.fixture
def short_pauses(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the read timeout and the pauses between attempts, but not the pauses that a server requires.

    Tests that run beside others need a longer read timeout, because the server is slower then.
    """
    timeout_s = SHORT_TIMEOUT_S if has_mark(request.node, "serial") else 1
    monkeypatch.setattr(retry, "_FIRST_PAUSE_S", 0.002)
    monkeypatch.setattr(transport, "_TIMEOUT", urllib3.Timeout(connect=2, read=timeout_s))


@pytest.fixture
def proxy(lab: Lab, tmp_path: Path) -> Iterator[Proxy]:
    """Yield a proxy in front of the lab's cluster."""
    with run_proxy(lab.kubeconfig, tmp_path) as running:
        yield running


def free_lock(world: World) -> None:
    """Make the lock expire if the sync could not release it because of a fault."""
    live = world.lab.get("Lease", "nimlab-experiments")
    if live is not None and live["spec"].get("holderIdentity"):
        spec = {**live["spec"], "renewTime": "2020-01-01T00:00:00.000000Z"}
        world.lab.cluster.replace({**live, "spec": spec})


def sync_with_fault(world: World, proxy: Proxy, injector: Injector, state: str) -> int:
    """Sync with a fault and check the invariants, then sync without the fault.

    Return the exit code of the first sync.
    """
    bystander = world.bystander_version()
    before = world.names()
    world.write_files(state)
    through = replace(world.lab, kubeconfig=proxy.kubeconfig)
    proxy.seen.clear()
    proxy.fault = injector
    if injector.times is None and injector.place in READS:
        dry = through.run("sync", "--dry-run", "--exit-code")
        assert dry.code in (1, 3), f"falsely reported as in sync: {dry.out}"
        assert proxy.writes == []
    answer = through.run("sync", "--no-wait")
    proxy.fault = None
    output = answer.out + answer.err
    context = f"{injector.fault} at {injector.place}, {injector.times or 'always'}: {output}"
    assert answer.code in (0, 1), context
    assert "Traceback" not in output, context
    if answer.code == 1:
        assert "error[" in output, context
        assert "In sync" not in output, context
    if injector.times is None and injector.place in READS:
        assert answer.code == 1, context
        assert proxy.writes == [], context
        assert world.names() == before, context
    assert not any("bystander" in path for path in injector.deletes), context
    assert world.bystander_version() == bystander, context
    if answer.code == 0:
        dry = world.lab.run("sync", "--dry-run", "--output", "json")
        actions = {change["action"] for change in json.loads(dry.out)["objects"]}
        # An update may be planned while peers are still starting.
        assert actions <= {"keep", "update"}, context
    free_lock(world)
    clean = world.lab.run("sync", "--timeout", "60s")
    assert clean.code == 0, context + clean.out + clean.err
    world.assert_is(state)
    return answer.code


@pytest.mark.parametrize("fault", [alone_if_timed(fault) for fault in FAULTS])
def test_no_fault_causes_a_wrong_deletion_or_a_false_report(lab: Lab, proxy: Proxy, fault: str) -> None:
    world, state = make_world(lab), "B"
    for place in PLACES:
        for times in (2, None):
            if fault == "429 with Retry-After" and times is None and place != "a list":
                continue  # each of these cases takes five seconds, because the client obeys Retry-After
            injector = Injector(place=place, fault=fault, times=times)
            code = sync_with_fault(world, proxy, injector, state)
            assert injector.hits, f"no request matched {place}"
            if times is not None and fault != "403":
                assert code == 0, f"{fault} at {place} was temporary"
            state = OTHER[state]


@pytest.mark.parametrize(
    "fault", [alone_if_timed(fault) for fault in ("a cut after", "half a body", "slowness")]
)
def test_every_request_can_be_retried(lab: Lab, proxy: Proxy, fault: str) -> None:
    """The requests include those of the first sync, which creates the namespace and the lock."""
    seen: set[tuple[str, str, bytes]] = set()

    def first_time(request: Seen) -> Broken | None:
        key = (request.method, request.path, request.body)
        if key in seen or "watch=true" in request.path:
            return None
        seen.add(key)
        INJECTED[fault] += 1
        return FAULTS[fault]

    through = replace(lab, kubeconfig=proxy.kubeconfig)
    proxy.fault = first_time
    answer = through.run("sync")
    assert answer.code == 0, answer.out + answer.err
    proxy.fault = None
    world = make_world(lab)
    bystander = world.bystander_version()
    for state in ("B", "A"):
        world.write_files(state)
        proxy.fault = first_time
        answer = through.run("sync")
        assert answer.code == 0, answer.out + answer.err
        proxy.fault = None
        world.assert_is(state)
    assert world.bystander_version() == bystander


def test_retry_after_is_obeyed(lab: Lab, proxy: Proxy) -> None:
    through = replace(lab, kubeconfig=proxy.kubeconfig)
    proxy.fault = Injector(place="a list", fault="429 with Retry-After", times=2)
    started_s = time.monotonic()
    assert through.run("sync", "--dry-run").code == 0
    assert time.monotonic() - started_s >= 2


@pytest.mark.parametrize("times", [1, 2, None])
def test_expired_pages_are_read_again_and_never_treated_as_the_complete_list(
    lab: Lab, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, times: int | None
) -> None:
    world = make_world(lab)
    bystander = world.bystander_version()
    world.write_files("B")
    monkeypatch.setattr(client, "PAGE_SIZE", 2)
    remaining = [times]

    def expire(request: Seen) -> Broken | None:
        if "continue=" not in request.path or remaining[0] == 0:
            return None
        remaining[0] = None if remaining[0] is None else remaining[0] - 1
        INJECTED["410"] += 1
        return status(410)

    proxy.fault = expire
    answer = replace(lab, kubeconfig=proxy.kubeconfig).run("sync")
    if times is None:
        assert answer.code == 1
        assert "expire" in answer.err
        assert proxy.writes == []
    else:
        assert answer.code == 0, answer.out + answer.err
    proxy.fault = None
    assert lab.run("sync").code == 0
    world.assert_is("B")
    assert world.bystander_version() == bystander


@pytest.mark.parametrize("fault", ["a cut before", "a cut after", "half a body"])
def test_broken_watches_are_resumed(lab: Lab, proxy: Proxy, fault: str) -> None:
    hits: list[str] = []
    # LISTs return an outdated, empty result, so that only watches can report that the peers run.
    version = next(iter(lab.cluster.pages("Pod", namespace=lab.namespace))).resource_version
    empty = {"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": []}
    outdated = json.dumps(empty).encode()

    def broken(request: Seen) -> Broken | None:
        if "watch=true" not in request.path:
            is_followed = "/pods?" in request.path or "/statefulsets?" in request.path
            return Broken(instead=outdated) if is_followed else None
        if len(hits) >= 4:
            return None
        hits.append(request.path)
        INJECTED[fault] += 1
        return FAULTS[fault]

    proxy.fault = broken
    answer = replace(lab, kubeconfig=proxy.kubeconfig).run("sync", "--timeout", "60s")
    assert answer.code == 0, answer.out + answer.err
    assert "9 of 9 peers running" in answer.out
    assert hits


def stale_reads(proxy: Proxy, matches: Callable[[Seen], bool]) -> Callable[[], None]:
    """Record responses. Return a function that makes the proxy repeat the recorded responses."""
    known: dict[str, bytes] = {}

    def record(request: Seen, code: int, body: bytes) -> None:
        if request.method == "GET" and matches(request) and "watch=true" not in request.path:
            known[request.path] = body if code == 200 else b""

    def repeat(request: Seen) -> Broken | None:
        if request.method != "GET" or request.path not in known:
            return None
        INJECTED["a stale read"] += 1
        body = known[request.path]
        return Broken(instead=body) if body else status(404)

    def freeze() -> None:
        proxy.on_response = None
        proxy.fault = repeat

    proxy.on_response = record
    return freeze


def test_stale_reads_never_overwrite_or_delete_newer_objects(lab: Lab, proxy: Proxy) -> None:
    """After the first reads, a user creates the planned object and recreates the object to prune."""
    world = make_world(lab)
    world.write_files("B")
    through = replace(lab, kubeconfig=proxy.kubeconfig)
    freeze = stale_reads(proxy, lambda request: True)
    assert through.run("sync", "--dry-run", "--exit-code").code == 3
    metadata = {"metadata": {"name": "nimp2p-exp-green", "namespace": lab.namespace}}
    service = {"apiVersion": "v1", "kind": "Service", **metadata, "spec": {"ports": [{"port": 1}]}}
    foreign = lab.cluster.create(service)
    old = lab.get("ConfigMap", "nimp2p-exp-blue-spec")
    assert old is not None
    lab.kubectl("delete", "configmap", "nimp2p-exp-blue-spec")
    keep = {field: old["metadata"][field] for field in ("name", "namespace", "labels", "annotations")}
    recreated = lab.cluster.create(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": keep, "data": {"x": "y"}}
    )
    freeze()
    answer = through.run("sync", "--no-wait", "--timeout", "2s")
    assert answer.code == 1, answer.out
    assert lab.get("Service", "nimp2p-exp-green") == foreign
    assert lab.get("ConfigMap", "nimp2p-exp-blue-spec") == recreated
    proxy.fault = None
    free_lock(world)
    lab.kubectl("delete", "service", "nimp2p-exp-green")
    assert lab.run("sync").code == 0
    assert lab.get("ConfigMap", "nimp2p-exp-blue-spec") == recreated, (
        "another client created the object with the lab's labels, so it is kept"
    )
    lab.kubectl("delete", "configmap", "nimp2p-exp-blue-spec")
    world.assert_is("B")


def test_stale_read_of_the_lock_is_detected_without_an_endless_loop(lab: Lab, proxy: Proxy) -> None:
    world = make_world(lab)
    world.write_files("B")
    through = replace(lab, kubeconfig=proxy.kubeconfig)
    freeze = stale_reads(proxy, lambda request: "/leases/" in request.path)
    assert through.run("sync", "--dry-run").code == 0
    live = lab.get("Lease", "nimlab-experiments")
    assert live is not None
    lab.cluster.replace({**live, "spec": {**live["spec"], "leaseTransitions": 1}})
    freeze()
    before = world.names()
    answer = through.run("sync", "--no-wait")
    assert answer.code == 1, answer.out
    assert world.names() == before
    proxy.fault = None
    assert lab.run("sync").code == 0
    world.assert_is("B")
