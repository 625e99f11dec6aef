"""Facts about workloads: requested resources, immutable fields, and the peers that restart."""

from __future__ import annotations

from typing import Any

import pytest

from nimlab.objects.manifest import Manifest
from nimlab.plan.immutable_fields import immutable_changes
from nimlab.plan.pod_restarts import caveats_of, estimate_restart_s, is_restarted_by_sync, restarts_of
from nimlab.plan.resource_requests import Resources, resources_of


def workload(kind: str = "StatefulSet", **spec: Any) -> Manifest:
    """Return an object of a kind."""
    return {"kind": kind, "metadata": {"name": "a", "generation": 1}, "spec": spec}


def test_resources_are_replicas_times_requests_including_sidecars() -> None:
    containers = [{"resources": {"requests": {"cpu": "50m", "memory": "16Mi"}}}]
    sidecar = {"restartPolicy": "Always", "resources": {"limits": {"cpu": "0.1", "memory": "1Mi"}}}
    step = {"resources": {"requests": {"cpu": "0.12", "memory": "20Mi"}}}
    for before, cpu_m, memory_mib in (
        ([], 50, 16),
        ([sidecar], 150, 17),
        ([step], 120, 20),
        ([step, sidecar], 150, 20),
        ([sidecar, step], 220, 21),  # the sidecar runs at the same time as the init container
        ([sidecar, sidecar], 250, 18),
    ):
        pod = {"spec": {"containers": containers, "initContainers": before}}
        assert resources_of(workload(replicas=4, template=pod)) == Resources(
            pods=4, cpu_m=4 * cpu_m, memory_bytes=4 * memory_mib * 2**20
        )
    assert resources_of(None) == resources_of(workload("Service")) == Resources()
    odd = {"spec": {"containers": [{"resources": {"requests": {"cpu": "?"}}}]}}
    assert resources_of(workload(template=odd)) == Resources(pods=1)


def test_caveat_for_bandwidth_limits_of_the_long_term_average() -> None:
    annotations = {"kubernetes.io/egress-bandwidth": "16M"}
    (caveat,) = caveats_of(workload(template={"metadata": {"annotations": annotations}}))
    assert "average" in caveat
    assert caveats_of(workload(template={"metadata": {"annotations": {"a": "b"}}})) == ()
    assert caveats_of(workload("Service")) == caveats_of(None) == ()


@pytest.mark.parametrize(
    ("kind", "desired", "live", "paths"),
    [
        ("StatefulSet", {"serviceName": "a"}, {"serviceName": "b"}, ("spec.serviceName",)),
        ("StatefulSet", {"podManagementPolicy": "Parallel"}, {}, ("spec.podManagementPolicy",)),
        (
            "StatefulSet",
            {"selector": {"matchLabels": {"a": "b"}}},
            {"selector": {"matchLabels": {"a": "c"}}},
            ("spec.selector",),
        ),
        ("StatefulSet", {"replicas": 5, "template": {"a": 1}}, {"replicas": 3, "template": {}}, ()),
        (
            "StatefulSet",
            {"volumeClaimTemplates": [{"a": 1}]},
            {"volumeClaimTemplates": [{"a": 1, "b": 2}]},
            (),
        ),
        ("Service", {"clusterIP": "None"}, {"clusterIP": "10.0.0.1"}, ("spec.clusterIP",)),
        ("Deployment", {"selector": {"a": 1}, "replicas": 2}, {"selector": {"a": 2}}, ("spec.selector",)),
        ("ConfigMap", {}, {}, ()),
    ],
)
def test_changes_of_immutable_fields_are_found(
    kind: str, desired: Any, live: Any, paths: tuple[str, ...]
) -> None:
    assert immutable_changes(workload(kind, **desired), workload(kind, **live)) == paths


@pytest.mark.parametrize(
    "name",
    [
        "replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy", "minReadySeconds",
    ],
)  # fmt: skip
def test_changes_of_mutable_statefulset_fields_are_allowed(name: str) -> None:
    desired, live = workload(), workload()
    desired["spec"][name], live["spec"][name] = 1, 2
    assert immutable_changes(desired, live) == ()
    desired["spec"]["serviceName"] = "a"
    assert immutable_changes(desired, live) == ("spec.serviceName",)


def test_changes_of_immutable_config_maps_and_role_references_are_found() -> None:
    frozen = {"kind": "ConfigMap", "immutable": True, "data": {"a": "b"}}
    assert immutable_changes({"kind": "ConfigMap", "data": {"a": "c"}}, frozen) == ("data",)
    assert immutable_changes(
        {"kind": "RoleBinding", "roleRef": {"name": "a"}}, {"kind": "RoleBinding", "roleRef": {"name": "b"}}
    ) == ("roleRef",)


def test_number_of_restarted_peers() -> None:
    live = workload(template={"a": 1}, updateStrategy={"type": "OnDelete"})
    live["status"] = {"replicas": 5, "updatedReplicas": 5, "observedGeneration": 1}
    assert restarts_of(live, workload(template={"a": 2}, replicas=9)) == 5
    assert restarts_of(live, workload(template={"a": 2}, replicas=2)) == 2
    assert restarts_of(live, workload(template={"a": 1})) == 0
    assert restarts_of(live, None) == 0
    live["status"]["updatedReplicas"] = 3
    assert restarts_of(live, None) == 2
    assert restarts_of(workload("Service"), None) == 0
    assert is_restarted_by_sync(live)
    assert not is_restarted_by_sync(workload(updateStrategy={"type": "RollingUpdate"}))


@pytest.mark.parametrize(
    ("pod", "spec", "at_once", "expected_s"),
    [
        ({}, {}, True, 32),
        ({"terminationGracePeriodSeconds": 5}, {}, True, 7),
        ({"terminationGracePeriodSeconds": 5}, {}, False, 28),
        ({"terminationGracePeriodSeconds": 0}, {"minReadySeconds": 10}, True, 12),
    ],
)
def test_restart_estimate_is_grace_period_and_delays_per_round(
    pod: dict[str, Any], spec: dict[str, Any], at_once: bool, expected_s: int
) -> None:
    desired = workload(template={"spec": {"containers": [{}], **pod}}, **spec)
    assert estimate_restart_s(desired, 4, at_once=at_once) == expected_s
    slow = {"containers": [{"readinessProbe": {"initialDelaySeconds": 9}}], **pod}
    assert estimate_restart_s(workload(template={"spec": slow}), 1, at_once=True) > 9
    assert estimate_restart_s(desired, 0, at_once=at_once) == 0
