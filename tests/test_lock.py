"""One sync at a time: a lease taken as it was read, and no write by whoever may have lost it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from nimlab.apply import (
    Lock,
    ObjectDone,
    Options,
    Outcome,
    acquire,
    execute,
    holder_of,
    system_clock,
)
from nimlab.cli import act
from nimlab.cluster import observe
from nimlab.errors import LockHeld, Moved
from nimlab.manifest import Manifest
from nimlab.owned import ApplySet, stamp
from nimlab.plan import make_plan
from tests.live import Lab
from tests.proxy import Seen, run_proxy
from tests.test_plan import group, policy

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("spec", "holder"),
    [
        (None, None),
        ({}, None),
        ({"holderIdentity": "", "renewTime": NOW.isoformat(), "leaseDurationSeconds": 60}, None),
        ({"holderIdentity": "ada", "renewTime": NOW.isoformat(), "leaseDurationSeconds": 60}, "ada"),
        (
            {
                "holderIdentity": "ada",
                "renewTime": (NOW - timedelta(seconds=61)).isoformat(),
                "leaseDurationSeconds": 60,
            },
            None,
        ),
    ],
)
def test_lease_is_held_until_its_time_is_over(spec: dict[str, Any] | None, holder: str | None) -> None:
    assert holder_of(None if spec is None else {"spec": spec}, NOW) == holder


@pytest.mark.live
def test_lock_is_taken_only_as_it_was_read(lab: Lab) -> None:
    lab.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": lab.namespace}})
    apply_set = ApplySet(name="experiments", namespace=lab.namespace)

    def take(lease: Manifest | None, who: str) -> Any:
        return acquire(
            lab.cluster, apply_set, lease, holder=who, now=lambda: datetime.now(UTC), stop=threading.Event()
        )

    first = take(None, "ada")
    with pytest.raises(Moved):
        take(None, "bob")
    held = lab.cluster.get(apply_set.lease_key)
    with pytest.raises(LockHeld, match="ada"):
        take(held, "bob")
    first.release()
    with pytest.raises(Moved):
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
    options = Options(parallel=1, take_ownership=False, timeout_s=5, version="0")
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
    assert holder_of(lease, later.now()) == "bob", "what is no longer held isn't given back"
    theirs.release()


def test_command_writes_nothing_more_once_its_lock_may_have_run_out(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch()

    def leave(request: Seen, status: int, body: bytes) -> None:
        del status, body
        if request.is_write and "/services/" in request.path:
            watch.ahead = timedelta(seconds=50)

    monkeypatch.setattr(act, "system_clock", lambda: replace(system_clock(), now=watch.now))
    with run_proxy(lab.kubeconfig, tmp_path) as proxy:
        proxy.answered = leave
        answer = replace(lab, kubeconfig=proxy.kubeconfig).run("sync", "--timeout", "60s")
    assert answer.code == 1, answer.out
    assert "has run out" in answer.out
    assert "another sync may be at work" in answer.err
    assert lab.names("StatefulSet") == []
