"""The HTTP client: the error for each response status, retries, pages, preconditions."""

from __future__ import annotations

import json
from typing import Any

import pytest
import urllib3

from nimlab.cluster.interface import Propagation
from nimlab.cluster.kube import KubeCluster, Target, connect, list_contexts
from nimlab.cluster.kube.rest_paths import object_path
from nimlab.cluster.kube.retry import is_retried
from nimlab.cluster.kube.status_errors import error_of
from nimlab.cluster.kube.transport import Transport
from nimlab.errors import (
    ClusterError,
    Expired,
    FieldConflict,
    Forbidden,
    NimlabError,
    PreconditionFailed,
    Rejected,
    Unreachable,
)
from nimlab.objects.manifest import ObjectKey
from tests.support.api_proxy import Broken, Fault, Seen, run_proxy
from tests.support.lab import Lab

KEY = ObjectKey("ConfigMap", "default", "kube-root-ca.crt")


def error_for(status: int, **details: Any) -> ClusterError:
    """Return the error for a response with this status and these details."""
    return error_of(status, details, verb="patch", where="ConfigMap/a/b", path="/api/v1/x?y=z")


@pytest.mark.parametrize(
    ("status", "details", "expected"),
    [
        (400, {}, Rejected),
        (401, {}, Forbidden),
        (403, {}, Forbidden),
        (403, {"details": {"causes": [{"reason": "NamespaceTerminating"}]}}, PreconditionFailed),
        (404, {}, ClusterError),
        (409, {"reason": "Conflict"}, PreconditionFailed),
        (409, {"details": {"causes": [{"reason": "FieldManagerConflict"}]}}, FieldConflict),
        (410, {}, Expired),
        (422, {}, Rejected),
        (429, {}, Unreachable),
        (500, {"message": "etcdserver: leader changed"}, Unreachable),
        (500, {"message": "failed to create typed patch object (…): .x: field not declared"}, Rejected),
        (503, {}, Unreachable),
    ],
)
def test_each_status_maps_to_its_error(
    status: int, details: dict[str, Any], expected: type[ClusterError]
) -> None:
    assert type(error_for(status, **details)) is expected


def test_conflict_names_manager_and_field() -> None:
    cause = {
        "reason": "FieldManagerConflict",
        "field": ".spec.replicas",
        "message": 'conflict with "kubectl" with subresource "scale" using apps/v1',
    }
    error = error_for(409, details={"causes": [cause]})
    assert isinstance(error, FieldConflict)
    assert [(c.manager, c.field) for c in error.conflicts] == [("kubectl", ".spec.replicas")]
    assert "spec.replicas is owned by `kubectl`" in str(error)


def test_forbidden_error_names_the_missing_permission() -> None:
    assert "permission to patch at /api/v1/x" in str(error_for(403, message="no").hint)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("a \"b\" is forbidden: ValidatingAdmissionPolicy 'c' with binding 'c' denied request: no", Rejected),
        ('admission webhook "c" denied request without explanation', Rejected),
        (
            'pods "b" is forbidden: exceeded quota: q, requested: pods=1, used: pods=4, limited: pods=4',
            Rejected,
        ),
        ('pods "b" is forbidden: violates PodSecurity "restricted:latest": privileged', Rejected),
        ('secrets "b" is forbidden: User "u" cannot get resource "secrets" in API group ""', Forbidden),
        (
            'roles "b" is forbidden: user "u" (groups=["g"]) is attempting to grant RBAC permissions',
            Forbidden,
        ),
    ],
)
def test_admission_error_is_distinguished_from_a_missing_permission(
    message: str, expected: type[ClusterError]
) -> None:
    """Admission rejects the object for every user, so the plan must report the object as blocked."""
    error = error_for(403, message=message)
    assert type(error) is expected
    assert ("an admission rule" in str(error.hint)) is (expected is Rejected)


def test_only_transient_errors_are_retried() -> None:
    assert [status for status in range(200, 600) if is_retried(status, "")] == [429, 500, 502, 503, 504]
    assert not is_retried(500, "failed to convert new object (…)")


def test_long_messages_are_shortened() -> None:
    error = error_for(422, message="x\n" * 1000)
    assert (len(error.what), "\n" in error.what, error.args) == (500, False, (error.what,))


def test_missing_server_is_unreachable_after_six_attempts() -> None:
    pauses: list[float] = []
    transport = Transport(
        pool=urllib3.PoolManager(),
        host="http://127.0.0.1:1",
        credentials=dict,
        sleep=pauses.append,
    )
    cluster = KubeCluster(transport)
    with pytest.raises(Unreachable, match="no response"):
        cluster.get(KEY)
    assert len(pauses) == 5
    assert cluster.requests().total == 6
    assert all(0 < pause <= 10 for pause in pauses)


def test_invalid_kubeconfig_is_a_nimlab_error(tmp_path: Any) -> None:
    path = tmp_path / "config"
    with pytest.raises(NimlabError, match="kubeconfig"):
        connect(Target(kubeconfig=path, context=None, name="x", why=""), parallel=1)
    path.write_text("a: [", encoding="utf-8")
    with pytest.raises(NimlabError, match="kubeconfig"):
        connect(Target(kubeconfig=path, context=None, name="x", why=""), parallel=1)
    assert list_contexts(path) == ()


def failing(times: int, status: int, inner: Fault | None = None) -> Fault:
    """Return a fault that answers the first `times` requests with this status."""
    remaining = [times]

    def fault(seen: Seen) -> tuple[int, object] | Broken | None:
        if remaining[0] == 0:
            return inner(seen) if inner else None
        remaining[0] -= 1
        return status, {"kind": "Status", "code": status, "message": "injected"}

    return fault


@pytest.mark.live
@pytest.mark.parametrize("status", [429, 500, 503])
def test_transient_errors_are_retried(lab: Lab, tmp_path: Any, status: int) -> None:
    with run_proxy(lab.kubeconfig, tmp_path) as proxy:
        target = Target(kubeconfig=proxy.kubeconfig, context=None, name="proxy", why="")
        cluster = connect(target, parallel=2)
        proxy.fault = failing(2, status)
        assert cluster.get(KEY) is not None
        assert len(proxy.seen) == 3
        cluster.close()


@pytest.mark.live
def test_expired_pages_restart_the_list(lab: Lab, tmp_path: Any) -> None:
    with run_proxy(lab.kubeconfig, tmp_path) as proxy:
        target = Target(kubeconfig=proxy.kubeconfig, context=None, name="proxy", why="")
        cluster = connect(target, parallel=2)
        proxy.fault = failing(1, 410)
        assert cluster.list_objects("Namespace", namespace=None).items
        proxy.fault = failing(9, 410)
        with pytest.raises(Unreachable, match="expire"):
            cluster.list_objects("Namespace", namespace=None)
        cluster.close()


@pytest.mark.live
def test_body_that_is_not_an_object_is_rejected(lab: Lab, tmp_path: Any) -> None:
    with run_proxy(lab.kubeconfig, tmp_path) as proxy:
        target = Target(kubeconfig=proxy.kubeconfig, context=None, name="proxy", why="")
        cluster = connect(target, parallel=2)
        proxy.fault = lambda _: (200, [])
        with pytest.raises(Unreachable, match="not a JSON object"):
            cluster.get(KEY)
        cluster.close()


@pytest.mark.live
def test_delete_removes_only_the_object_with_the_given_uid_and_version(lab: Lab) -> None:
    lab.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": lab.namespace}})
    key = ObjectKey("ConfigMap", lab.namespace, "a")
    created = lab.cluster.create({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": lab.namespace},
    })  # fmt: skip
    uid, version = created["metadata"]["uid"], created["metadata"]["resourceVersion"]
    for wrong_uid, wrong_version in ((uid[::-1], version), (uid, "1")):
        with pytest.raises(PreconditionFailed):
            lab.cluster.delete(
                key, uid=wrong_uid, resource_version=wrong_version, propagation=Propagation.BACKGROUND
            )
    for _ in range(2):  # the second delete finds no object
        lab.cluster.delete(key, uid=uid, resource_version=version, propagation=Propagation.BACKGROUND)
    assert lab.cluster.get(key) is None
    with pytest.raises(PreconditionFailed):
        lab.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": lab.namespace}})


@pytest.mark.live
def test_apply_keeps_every_character(lab: Lab) -> None:
    lab.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": lab.namespace}})
    odd = [*range(1, 0x300), 0x2028, 0x2029, 0xFEFF, 0xFFFD, 0x1F600, 0x10FFFF]
    data = {"text": "".join(chr(c) for c in odd), "spaces": " x \u2028 y \n", "json": json.dumps({"a": 1})}
    created = lab.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "a", "namespace": lab.namespace},
            "data": data,
        },
        manager="nimlab",
        force=False,
        dry_run=False,
    )
    assert created["data"] == data


@pytest.mark.live
def test_pauses_between_attempts_grow_and_are_jittered(lab: Lab, tmp_path: Any) -> None:
    runs = []
    with run_proxy(lab.kubeconfig, tmp_path) as proxy:
        target = Target(kubeconfig=proxy.kubeconfig, context=None, name="proxy", why="")
        for _ in range(2):
            pauses: list[float] = []
            cluster = connect(target, parallel=2)
            cluster.transport.sleep = pauses.append
            proxy.fault = failing(99, 503)
            with pytest.raises(Unreachable, match="503"):
                cluster.get(KEY)
            cluster.close()
            runs.append(pauses)
    assert runs[0] != runs[1], "otherwise many clients would retry at the same moment"
    for pauses in runs:
        assert len(pauses) == 5
        assert all(0.1 * 2 ** (n + 1) <= pause <= 0.2 * 2 ** (n + 1) for n, pause in enumerate(pauses))


def test_names_are_escaped_in_paths() -> None:
    key = ObjectKey("ConfigMap", "lab/../x", "a/../../secrets/hush?dryRun=All")
    path = "/api/v1/namespaces/lab%2F..%2Fx/configmaps/a%2F..%2F..%2Fsecrets%2Fhush%3FdryRun%3DAll"
    assert object_path(key) == path
