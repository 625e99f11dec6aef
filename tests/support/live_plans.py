"""Builders of live objects, pods and events, and of a plan with one experiment."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from nimlab.files.spec import (
    BrokenFile,
    ConnectLimit,
    Contract,
    Experiment,
    Image,
    Isolation,
    Network,
    OnImmutableChange,
    Rollout,
    Rtt,
)
from nimlab.objects.applyset import ApplySet
from nimlab.objects.applyset_parent import Parent
from nimlab.objects.foreign_fields import ForeignField
from nimlab.objects.manifest import Manifest, key_of
from nimlab.plan.change import Action, Change
from nimlab.plan.make_plan import ExperimentPlan, Plan
from nimlab.plan.resource_requests import Resources
from nimlab.report.experiment_detail import Detail, experiment_detail
from nimlab.report.list_rows import Row, rows_of

NOW = datetime(2026, 11, 23, 12, 35, 29, tzinfo=UTC)


MADE = "2026-11-23T11:57:05Z"


NAME = "nimp2p-exp-purple"


IMAGE = Image(name="katakuri100/nimp2p", tag="v1")


FOREIGN = ForeignField(manager="kubectl-edit", path=(), text="spec.x", value=1)


def statefulset(*, scale: int = 5, running: int = 5) -> Manifest:
    metadata: dict[str, Any] = {
        "name": NAME, "namespace": "dst-lab", "labels": {"prefix": NAME}, "creationTimestamp": MADE,
    }  # fmt: skip
    status = {"observedGeneration": 1, "replicas": scale, "readyReplicas": running, "updatedReplicas": scale}
    metadata["generation"] = 1
    return {"kind": "StatefulSet", "metadata": metadata, "spec": {"replicas": scale}, "status": status}


def spec_map(digest: str | None, *, ours: bool = True) -> Manifest:
    fields: dict[str, Any] = {"f:data": {"f:sha256": {}}} if ours else {"f:data": {}}
    managed = {"manager": "nimlab", "operation": "Apply", "fieldsV1": fields}
    return {
        "kind": "ConfigMap",
        "metadata": {"name": f"{NAME}-spec", "namespace": "dst-lab", "managedFields": [managed]},
        "data": {} if digest is None else {"sha256": digest},
    }


def change(action: Action, live: Manifest | None, desired: Manifest | None, **more: Any) -> Change:
    manifest = live or desired
    assert manifest is not None
    return Change(
        action=action, key=key_of(manifest), experiment="purple", live=live, desired=desired, **more
    )


def keep(live: Manifest, **more: Any) -> Change:
    return change(Action.KEEP, live, live, **more)


def plan_of(*changes: Change, source: str | None = "experiments/purple.yaml", broken: bool = False) -> Plan:
    planned = ExperimentPlan(name="purple", source=source, changes=changes, added=Resources())
    file = BrokenFile(name="white", source="experiments/white.yaml")
    return Plan(
        apply_set=ApplySet(name="experiments", namespace="dst-lab"),
        experiments=(planned,) if changes else (),
        stops=(),
        refusal=None,
        broken=(file,) if broken else (),
        file_errors=int(broken),
        narrowed=False,
        commit=None,
        create_namespace=False,
        before=Parent.none(),
        during=Parent.none(),
        after=Parent.none(),
    )


def experiment(name: str = "purple") -> Experiment:
    contract = Contract(
        name="nimp2p", description="", image=IMAGE, container="nimp2p", isolation=Isolation.LABEL,
        host_name="any", connect_limit=ConnectLimit.AT_MOST_PEERS, env=(), ports=(), fields=frozenset(),
        required=frozenset(), start_delay_s=0, logs={}, metrics=(), source="contracts/nimp2p.yaml",
    )  # fmt: skip
    return Experiment(
        name=name, full_name=f"nimp2p-exp-{name}", owner="dst", description="", contract=contract,
        image=IMAGE, settings={"peers": 7}, cpu_m=50, memory_bytes=16,
        rtt=Rtt(enabled=False, interval_ms=1, fanout=1, methods=("tcp",)),
        network=Network(method="none", downlink_bit_per_s=None, uplink_bit_per_s=None, latency_ms=None,
                        jitter_ms=None, loss_ratio=None),
        rollout=Rollout.TOGETHER, on_immutable_change=OnImmutableChange.FAIL, namespace="dst-lab",
        source=f"experiments/{name}.yaml", digest="d", document={},
    )  # fmt: skip


def only_row(plan: Plan) -> Row:
    (row,) = rows_of(plan, (experiment(),), NOW)
    return row


def pod(number: int, **status: Any) -> Manifest:
    metadata: dict[str, Any] = {"name": f"{NAME}-{number}", "namespace": "dst-lab", "creationTimestamp": MADE}
    return {"kind": "Pod", "metadata": metadata, "spec": {"nodeName": "node-1"}, "status": status}


def ready(number: int) -> Manifest:
    return pod(
        number, phase="Running", conditions=[{"type": "Ready", "status": "True"}],
        containerStatuses=[{"name": "nimp2p", "restartCount": 2}],
    )  # fmt: skip


def pulling(number: int) -> Manifest:
    state = {"waiting": {"reason": "ImagePullBackOff"}}
    return pod(
        number, phase="Pending", containerStatuses=[{"name": "nimp2p", "image": "x:9", "state": state}]
    )


def event(number: int, name: str, **more: Any) -> Manifest:
    return {
        "metadata": {"name": f"e{number}"},
        "involvedObject": {"kind": "Pod", "namespace": "dst-lab", "name": name},
        "lastTimestamp": f"2026-11-23T12:{number:02}:00Z",
        "reason": f"R{number}",
        "message": "m",
        "type": "Normal",
        **more,
    }


def rejection_event(number: int, message: str) -> Manifest:
    about = {"kind": "StatefulSet", "namespace": "dst-lab", "name": NAME}
    return event(number, "", involvedObject=about, reason="FailedCreate", message=message, type="Warning")


def detail_of(pods: list[Manifest], events: list[Manifest], *changes: Change, running: int = 5) -> Detail:
    plan = plan_of(*(changes or (keep(statefulset(running=running)),)))
    return experiment_detail(
        "purple", plan, (experiment(),), pods=pods, all_pods=True, events=events, now=NOW
    )
