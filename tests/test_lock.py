"""One sync at a time: a lease taken as it was read, and no write by whoever may have lost it."""

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
    acquire,
    execute,
    hold_of,
    system_clock,
)
from nimlab.cluster.kube import client
from nimlab.cluster.kube import requests as wire
from nimlab.cluster.observe import observe
from nimlab.errors import LockHeld, PreconditionFailed
from nimlab.objects.applyset import ApplySet, stamp
from nimlab.objects.manifest import Manifest
from nimlab.plan.make_plan import make_plan
from nimlab.workflow import sync_lock
from tests.live import Lab
from tests.proxy import Seen, run_proxy
from tests.test_plan import group, policy

NOBODY: Any = object()  # a lock that is held is refused before anything is sent
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
        # who might hold it still does
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
def test_lease_is_held_until_its_time_is_certainly_over(
    spec: dict[str, Any] | None, holder: str | None
) -> None:
    hold = hold_of(None if spec is None else {"spec": spec}, NOW)
    assert (hold and hold.holder) == holder


@pytest.mark.parametrize(
    ("spec", "said", "hint"),
    [
        (lease_of("ada", NOW.isoformat()), "another sync is at work: ada; its lock ends in 60 s", "a minute"),
        (lease_of("ada", (NOW - timedelta(seconds=50)).isoformat()), "ends in 10 s", "within a minute"),
        (lease_of("ada", "2099-01-01T00:00:00.000000Z"), "its end is at 2099-01-01T00:01:00Z", "kubectl"),
        (lease_of("ada", "9999-12-31T23:59:59.000000Z"), "its end can't be computed", "kubectl"),
        (lease_of("ada", NOW.isoformat(), 3600), "its end is at 2026-11-23T13:00:00Z", "kubectl"),
        (lease_of("ada", None), "its lock was renewed at no time that it says", "kubectl"),
        (lease_of("ada", "0001-01-01T00:00:00+14:00"), "its end can't be computed", "kubectl"),
    ],
)
def test_held_lock_says_whose_it_is_when_it_ends_and_how_to_free_it(
    spec: dict[str, Any], said: str, hint: str
) -> None:
    apply_set = ApplySet(name="experiments", namespace="dst-lab")
    with pytest.raises(LockHeld) as caught:
        acquire(
            NOBODY, apply_set, {"spec": spec}, holder="bob", now=lambda: NOW, stop=threading.Event()
        )  # fmt: skip
    error = caught.value
    assert "ada" in error.what
    assert said in error.what
    assert error.hint is not None
    assert hint in error.hint
    if hint == "kubectl":
        assert "`kubectl -n dst-lab delete lease nimlab-experiments` frees it" in error.hint
        assert "it is 2026-11-23T12:00:00Z now" in error.what
        assert "within a minute" not in error.hint


@pytest.mark.live
@pytest.mark.parametrize("renewed", ["9999-12-31T23:59:59.000000Z", "2099-01-01T00:00:00.000000Z"])
def test_lock_of_the_far_future_is_an_error_and_freed_by_the_command_it_names(lab: Lab, renewed: str) -> None:
    assert lab.run("sync", "--no-wait").code == 0
    lab.edit("blue", "four", "4")
    lease = lab.get("Lease", "nimlab-experiments")
    assert lease is not None
    lab.cluster.replace({**lease, "spec": lease_of("ada\x1b[2J", renewed)})
    answer = lab.run("sync", "--no-wait")
    assert answer.code == 1, answer
    assert "another sync may be at work: ada" in answer.err
    assert "\x1b" not in answer.err
    waited = lab.run("sync", "--no-wait", "--lock-timeout", "1s")
    assert waited.code == 1
    assert "lock     waiting for ada" in waited.err
    assert "\x1b" not in waited.err
    lab.kubectl("delete", "lease", "nimlab-experiments")
    assert lab.run("sync", "--no-wait").code == 0


@pytest.mark.live
@pytest.mark.parametrize("ahead", [timedelta(hours=1), timedelta(hours=-1)], ids=["ahead", "behind"])
def test_machine_with_a_wrong_clock_takes_nobodys_lock_and_keeps_its_own(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, ahead: timedelta
) -> None:
    assert lab.run("sync", "--no-wait").code == 0
    lab.edit("blue", "four", "4")
    lease = lab.get("Lease", "nimlab-experiments")
    assert lease is not None
    held = {**lease, "spec": lease_of("ada", datetime.now(UTC).isoformat(timespec="microseconds"))}
    held = lab.cluster.replace(held)
    wrong = replace(system_clock(), now=lambda: datetime.now(UTC) + ahead)
    monkeypatch.setattr(sync_lock, "system_clock", lambda: wrong)
    monkeypatch.setattr(client, "_now_s", lambda: (datetime.now(UTC) + ahead).timestamp())
    answer = lab.run("sync", "--no-wait")
    assert answer.code == 1, answer
    assert "another sync is at work: ada; its lock ends in" in answer.err
    lab.cluster.replace({**held, "spec": {}})
    assert lab.run("sync", "--no-wait").code == 0
    mine = lab.get("Lease", "nimlab-experiments")
    assert mine is not None
    renewed = datetime.fromisoformat(mine["spec"]["renewTime"])
    assert abs(renewed - datetime.now(UTC)) < timedelta(seconds=30), "its time is the server's"


@pytest.mark.parametrize(
    ("date", "ahead_s"),
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
def test_servers_clock_is_read_from_its_answers(date: str, ahead_s: float) -> None:
    assert wire.ahead_s(date, NOW.timestamp()) == ahead_s


@pytest.mark.live
def test_lock_is_taken_only_as_it_was_read(lab: Lab) -> None:
    lab.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": lab.namespace}})
    apply_set = ApplySet(name="experiments", namespace=lab.namespace)

    def take(lease: Manifest | None, who: str) -> Any:
        return acquire(
            lab.cluster, apply_set, lease, holder=who, now=lambda: datetime.now(UTC), stop=threading.Event()
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
    """A clock that goes on while its process doesn't, as for a machine that was asleep."""

    ahead: timedelta = timedelta()

    def now(self) -> datetime:
        """The time by this clock."""
        return datetime.now(UTC) + self.ahead


@dataclass
class Held:
    """A namespace whose lock is held, by a watch that can be put forward."""

    lab: Lab
    apply_set: ApplySet
    watch: Watch
    stop: threading.Event
    lock: Lock


@pytest.fixture
def held(lab: Lab) -> Any:
    """Hold the lock of the lab's set."""
    lab.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": lab.namespace}})
    apply_set = ApplySet(name="experiments", namespace=lab.namespace)
    watch, stop = Watch(), threading.Event()
    lock = acquire(lab.cluster, apply_set, None, holder="ada", now=watch.now, stop=stop)
    yield Held(lab, apply_set, watch, stop, lock)
    lock.release()


def config_map(held: Held, name: str) -> Manifest:
    """A stamped ConfigMap of an experiment."""
    metadata = {"name": name, "namespace": held.lab.namespace, "labels": {"experiment": name}}
    return stamp({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}, held.apply_set)


def test_holder_that_was_away_longer_than_the_lease_writes_no_more(held: Held) -> None:
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
        with pytest.raises(LockHeld, match="has run out"):
            write()
    assert held.lock.lost.is_set()
    assert held.stop.is_set()
    assert fenced.apply(b, manager="nimlab", force=True, dry_run=True), "looking is free"
    assert set(held.lab.names("ConfigMap")) - {"kube-root-ca.crt"} == {"a"}


def test_sync_that_was_away_leaves_the_rest_and_the_record_to_who_came_after(held: Held) -> None:
    """Another one takes the lock meanwhile and writes; nothing of it is undone."""
    wanted = [group(name, config_map(held, name)) for name in "abc"]
    cluster = held.lab.cluster
    seen = observe(cluster, wanted, held.apply_set, take_ownership=False, remove_foreign=False, parallel=2)
    plan = make_plan(wanted, seen, policy())
    options = ApplyOptions(parallel=1, take_ownership=False, timeout_s=5, version="0")
    told = []
    for event in execute(plan, cluster.fenced(held.lock.check), options, stop=held.stop):
        told.append(event)
        if held.watch.ahead:
            continue
        held.watch.ahead = timedelta(seconds=70)
        later = Watch(held.watch.ahead)
        lease = cluster.get(held.apply_set.lease_key)
        theirs = acquire(cluster, held.apply_set, lease, holder="bob", now=later.now, stop=threading.Event())
        parent = cluster.get(held.apply_set.parent_key)
    outcomes = [event.outcome for event in told if isinstance(event, ObjectDone)]
    assert outcomes[0] is Outcome.CREATED
    assert Outcome.FAILED in outcomes or outcomes.count(Outcome.CREATED) == 2, "one may have been under way"
    assert outcomes[-1] is not Outcome.CREATED
    assert cluster.get(held.apply_set.parent_key) == parent
    assert held.lock.lost.is_set()
    held.lock.release()
    lease = cluster.get(held.apply_set.lease_key)
    hold = hold_of(lease, later.now())
    assert hold is not None
    assert hold.holder == "bob", "what is no longer held isn't given back"
    theirs.release()


def test_command_writes_nothing_more_once_its_lock_may_have_run_out(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch()

    def leave(request: Seen, status: int, body: bytes) -> None:
        del status, body
        if request.is_write and "/services/" in request.path:
            watch.ahead = timedelta(seconds=50)

    monkeypatch.setattr(sync_lock, "system_clock", lambda: replace(system_clock(), now=watch.now))
    with run_proxy(lab.kubeconfig, tmp_path) as proxy:
        proxy.answered = leave
        answer = replace(lab, kubeconfig=proxy.kubeconfig).run("sync", "--timeout", "60s")
    assert answer.code == 1, answer.out
    assert "has run out" in answer.out
    assert "another sync may be at work" in answer.err
    assert lab.names("StatefulSet") == []
