"""The lock: only one sync can hold it, and a sync stops writing if its lock may be lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from nimlab.cluster.apply import (
    ApplyOptions,
    Lock,
    ObjectDone,
    Outcome,
    acquire_lock,
    current_holder,
    execute,
    system_clock,
)
from nimlab.cluster.kube import transport
from nimlab.cluster.kube.http_response import ahead_s
from nimlab.cluster.observe import observe
from nimlab.errors import LockHeld, PreconditionFailed
from nimlab.objects.applyset import ApplySet, stamp
from nimlab.objects.manifest import Manifest
from nimlab.plan.make_plan import make_plan
from nimlab.workflow import wait_for_lock
from tests.plan.test_make_plan import group, policy
from tests.support.api_proxy import Seen, run_proxy
from tests.support.lab import Lab

NO_CLUSTER: Any = object()  # a held lock causes an error before any request
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def lease_of(holder: object, renewed: object, duration_s: object = 60) -> dict[str, Any]:
    spec = {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": duration_s}
    return {name: value for name, value in spec.items() if value is not None}


LONG_AGO = (NOW - timedelta(seconds=61)).isoformat()


@pytest.mark.parametrize(
    ("spec", "holder"),
    [
        (None, None),
        ({}, None),
        (lease_of("", NOW.isoformat()), None),
        (lease_of("ada", NOW.isoformat()), "ada"),
        (lease_of("ada", LONG_AGO), None),
        (lease_of("ada", (NOW - timedelta(seconds=59)).isoformat()), "ada"),
        # with an expiry in the far future or an invalid expiry, the lease counts as held
        (lease_of("ada", "9999-12-31T23:59:59.000000Z"), "ada"),
        (lease_of("ada", "2099-01-01T00:00:00.000000Z"), "ada"),
        (lease_of("ada", "0001-01-01T00:00:00.000000+14:00"), "ada"),
        (lease_of("ada", NOW.isoformat(), 2**31 - 1), "ada"),
        (lease_of("ada", NOW.isoformat(), 10**30), "ada"),
        (lease_of("ada", NOW.isoformat(), "a minute"), "ada"),
        (lease_of("ada", NOW.isoformat(), None), "ada"),
        (lease_of("ada", LONG_AGO, None), None),
        (lease_of("ada", None), "ada"),
        (lease_of("ada", "yesterday"), "ada"),
        (lease_of("ada", 1764244800), "ada"),
    ],
)
def test_lease_is_held_until_it_has_certainly_expired(
    spec: dict[str, Any] | None, holder: str | None
) -> None:
    current = current_holder(None if spec is None else {"spec": spec}, NOW)
    assert (current and current.name) == holder


@pytest.mark.parametrize(
    ("spec", "what", "hint"),
    [
        (
            lease_of("ada", NOW.isoformat()),
            "another sync is running: ada; its lock expires in 60 s",
            "a minute",
        ),
        (lease_of("ada", (NOW - timedelta(seconds=50)).isoformat()), "expires in 10 s", "within a minute"),
        (lease_of("ada", "2099-01-01T00:00:00.000000Z"), "its expiry is 2099-01-01T00:01:00Z", "kubectl"),
        (lease_of("ada", "9999-12-31T23:59:59.000000Z"), "its expiry cannot be determined", "kubectl"),
        (lease_of("ada", NOW.isoformat(), 3600), "its expiry is 2026-11-23T13:00:00Z", "kubectl"),
        (lease_of("ada", None), "its lock was renewed at an unknown time", "kubectl"),
        (lease_of("ada", "0001-01-01T00:00:00+14:00"), "its expiry cannot be determined", "kubectl"),
    ],
)
def test_error_for_a_held_lock_names_holder_expiry_and_the_command_to_free_it(
    spec: dict[str, Any], what: str, hint: str
) -> None:
    apply_set = ApplySet(name="experiments", namespace="dst-lab")
    with pytest.raises(LockHeld) as caught:
        acquire_lock(
            NO_CLUSTER, apply_set, {"spec": spec}, holder="bob", now=lambda: NOW, stop=threading.Event()
        )  # fmt: skip
    error = caught.value
    assert "ada" in error.what
    assert what in error.what
    assert error.hint is not None
    assert hint in error.hint
    if hint == "kubectl":
        assert "free it with `kubectl -n dst-lab delete lease nimlab-experiments`" in error.hint
        assert "the time on this machine is 2026-11-23T12:00:00Z" in error.what
        assert "within a minute" not in error.hint


@pytest.mark.live
@pytest.mark.parametrize("renewed", ["9999-12-31T23:59:59.000000Z", "2099-01-01T00:00:00.000000Z"])
def test_lock_with_a_time_in_the_far_future_is_freed_by_the_command_in_the_hint(
    lab: Lab, renewed: str
) -> None:
    assert lab.run("sync", "--no-wait").code == 0
    lab.edit("blue", "four", "4")
    lease = lab.get("Lease", "nimlab-experiments")
    assert lease is not None
    lab.cluster.replace({**lease, "spec": lease_of("ada\x1b[2J", renewed)})
    answer = lab.run("sync", "--no-wait")
    assert answer.code == 1, answer
    assert "another sync may be running: ada" in answer.err
    assert "\x1b" not in answer.err
    waited = lab.run("sync", "--no-wait", "--lock-timeout", "1s")
    assert waited.code == 1
    assert "lock     waiting for ada" in waited.err
    assert "\x1b" not in waited.err
    lab.kubectl("delete", "lease", "nimlab-experiments")
    assert lab.run("sync", "--no-wait").code == 0


@pytest.mark.live
@pytest.mark.parametrize("ahead", [timedelta(hours=1), timedelta(hours=-1)], ids=["ahead", "behind"])
def test_machine_with_a_wrong_clock_respects_locks_and_can_hold_one(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, ahead: timedelta
) -> None:
    assert lab.run("sync", "--no-wait").code == 0
    lab.edit("blue", "four", "4")
    lease = lab.get("Lease", "nimlab-experiments")
    assert lease is not None
    held = {**lease, "spec": lease_of("ada", datetime.now(UTC).isoformat(timespec="microseconds"))}
    held = lab.cluster.replace(held)
    wrong = replace(system_clock(), now=lambda: datetime.now(UTC) + ahead)
    monkeypatch.setattr(wait_for_lock, "system_clock", lambda: wrong)
    monkeypatch.setattr(transport, "_now_s", lambda: (datetime.now(UTC) + ahead).timestamp())
    answer = lab.run("sync", "--no-wait")
    assert answer.code == 1, answer
    assert "another sync is running: ada; its lock expires in" in answer.err
    lab.cluster.replace({**held, "spec": {}})
    assert lab.run("sync", "--no-wait").code == 0
    mine = lab.get("Lease", "nimlab-experiments")
    assert mine is not None
    renewed = datetime.fromisoformat(mine["spec"]["renewTime"])
    assert abs(renewed - datetime.now(UTC)) < timedelta(seconds=30), "the renew time uses the server's clock"


@pytest.mark.parametrize(
    ("date", "expected_s"),
    [
        ("Mon, 23 Nov 2026 12:00:00 GMT", 0.0),
        ("Mon, 23 Nov 2026 12:00:02 GMT", 0.0),
        ("Mon, 23 Nov 2026 12:01:00 GMT", 60.0),
        ("Mon, 23 Nov 2026 11:00:00 GMT", -3600.0),
        ("", 0.0),
        ("soon", 0.0),
        ("Mon, 99 Nov 9999999 12:00:00 GMT", 0.0),
    ],
)
def test_server_clock_is_read_from_the_date_header(date: str, expected_s: float) -> None:
    assert ahead_s(date, NOW.timestamp()) == expected_s


@pytest.mark.live
def test_lock_is_acquired_only_if_the_lease_is_unchanged(lab: Lab) -> None:
    lab.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": lab.namespace}})
    apply_set = ApplySet(name="experiments", namespace=lab.namespace)

    def take(lease: Manifest | None, holder: str) -> Any:
        return acquire_lock(
            lab.cluster,
            apply_set,
            lease,
            holder=holder,
            now=lambda: datetime.now(UTC),
            stop=threading.Event(),
        )

    first = take(None, "ada")
    with pytest.raises(PreconditionFailed):
        take(None, "bob")
    held = lab.cluster.get(apply_set.lease_key)
    with pytest.raises(LockHeld, match="ada"):
        take(held, "bob")
    first.release()
    with pytest.raises(PreconditionFailed):
        take({**(held or {}), "spec": {}}, "bob")
    second = take(lab.cluster.get(apply_set.lease_key), "bob")
    assert not second.lost.is_set()
    second.release()


@dataclass
class Watch:
    """A clock that a test can advance, to simulate a suspended process."""

    ahead: timedelta = timedelta()

    def now(self) -> datetime:
        """Return the time of this clock."""
        return datetime.now(UTC) + self.ahead


@dataclass
class Held:
    """A lab whose lock is held, with a clock that can be advanced."""

    lab: Lab
    apply_set: ApplySet
    watch: Watch
    stop: threading.Event
    lock: Lock


@pytest.fixture
def held(lab: Lab) -> Any:
    """Hold the lock of the lab's apply-set."""
    lab.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": lab.namespace}})
    apply_set = ApplySet(name="experiments", namespace=lab.namespace)
    watch, stop = Watch(), threading.Event()
    lock = acquire_lock(lab.cluster, apply_set, None, holder="ada", now=watch.now, stop=stop)
    yield Held(lab, apply_set, watch, stop, lock)
    lock.release()


def config_map(held: Held, name: str) -> Manifest:
    """Return a ConfigMap of an experiment, with nimlab's labels."""
    metadata = {"name": name, "namespace": held.lab.namespace, "labels": {"experiment": name}}
    return stamp({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}, held.apply_set)


def test_holder_that_was_suspended_longer_than_the_lease_stops_writing(held: Held) -> None:
    fenced = held.lab.cluster.fenced(held.lock.check)
    fenced.apply(config_map(held, "a"), manager="nimlab", force=False, dry_run=False)
    held.watch.ahead = timedelta(seconds=59)
    b = config_map(held, "b")
    writes: tuple[Callable[[], Manifest], ...] = (
        lambda: fenced.apply(b, manager="nimlab", force=True, dry_run=False),
        lambda: fenced.create(b),
        lambda: fenced.replace(b),
    )
    for write in writes:
        with pytest.raises(LockHeld, match="has expired"):
            write()
    assert held.lock.lost.is_set()
    assert held.stop.is_set()
    assert fenced.apply(b, manager="nimlab", force=True, dry_run=True), "a dry run needs no lock"
    assert set(held.lab.names("ConfigMap")) - {"kube-root-ca.crt"} == {"a"}


def test_suspended_sync_leaves_the_remaining_writes_to_the_next_holder(held: Held) -> None:
    """Another sync acquires the lock and writes in the meantime; the first sync overwrites nothing."""
    wanted = [group(name, config_map(held, name)) for name in "abc"]
    cluster = held.lab.cluster
    seen = observe(cluster, wanted, held.apply_set, take_ownership=False, remove_foreign=False, parallel=2)
    plan = make_plan(wanted, seen, policy())
    options = ApplyOptions(parallel=1, take_ownership=False, timeout_s=5, version="0")
    events = []
    for event in execute(plan, cluster.fenced(held.lock.check), options, stop=held.stop):
        events.append(event)
        if held.watch.ahead:
            continue
        held.watch.ahead = timedelta(seconds=70)
        later = Watch(held.watch.ahead)
        lease = cluster.get(held.apply_set.lease_key)
        theirs = acquire_lock(
            cluster, held.apply_set, lease, holder="bob", now=later.now, stop=threading.Event()
        )
        parent = cluster.get(held.apply_set.parent_key)
    outcomes = [event.outcome for event in events if isinstance(event, ObjectDone)]
    assert outcomes[0] is Outcome.CREATED
    assert Outcome.FAILED in outcomes or outcomes.count(Outcome.CREATED) == 2, (
        "one write may have been in progress"
    )
    assert outcomes[-1] is not Outcome.CREATED
    assert cluster.get(held.apply_set.parent_key) == parent
    assert held.lock.lost.is_set()
    held.lock.release()
    lease = cluster.get(held.apply_set.lease_key)
    current = current_holder(lease, later.now())
    assert current is not None
    assert current.name == "bob", "a lost lease must not be released"
    theirs.release()


def test_sync_command_stops_writing_once_its_lock_may_have_expired(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch()

    def suspend(request: Seen, status: int, body: bytes) -> None:
        del status, body
        if request.is_write and "/services/" in request.path:
            watch.ahead = timedelta(seconds=50)

    monkeypatch.setattr(wait_for_lock, "system_clock", lambda: replace(system_clock(), now=watch.now))
    with run_proxy(lab.kubeconfig, tmp_path) as proxy:
        proxy.on_response = suspend
        answer = replace(lab, kubeconfig=proxy.kubeconfig).run("sync", "--timeout", "60s")
    assert answer.code == 1, answer.out
    assert "has expired" in answer.out
    assert "another sync may be running" in answer.err
    assert lab.names("StatefulSet") == []
