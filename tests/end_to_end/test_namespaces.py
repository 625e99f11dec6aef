"""Experiments with their own namespace, and syncs with limited credentials."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nimlab.objects.manifest import ObjectKey
from tests.support.lab import Lab, remove_namespaces

pytestmark = pytest.mark.live


@pytest.fixture
def go(lab: Lab) -> Iterator[str]:
    """Create an experiment with the contract dst-go and a unique name; yield the name."""
    name = f"go-{secrets.token_hex(3)}"
    head = f"apiVersion: nimlab.dev/v1\nkind: Experiment\nmetadata: {{name: {name}}}\n"
    lab.write(name, head + "spec: {contract: dst-go, peers: 3}\n")
    yield name
    remove_namespaces(lab.cluster, [f"nimp2p-exp-{name}"])


def synced(lab: Lab, *arguments: str) -> str:
    """Sync and require success; return the output."""
    answer = lab.run("sync", *arguments)
    assert answer.code == 0, answer.out + answer.err
    return answer.out


def test_namespace_is_created_and_deleted_with_its_experiment(lab: Lab, go: str) -> None:
    synced(lab)
    namespace = f"nimp2p-exp-{go}"
    assert lab.get("StatefulSet", "pod", namespace) is not None
    assert lab.get("Service", "nimp2p-service", namespace) is not None
    for name in (namespace, lab.namespace):  # link shaping requires the Pod Security level `privileged`
        live = lab.get("Namespace", name, "")
        assert live is not None
        assert live["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "privileged"
    pod = lab.get("Pod", "pod-2", namespace)
    assert pod is not None
    env = {variable["name"]: variable["value"] for variable in pod["spec"]["containers"][0]["env"]}
    assert env == {
        "PEERS": "3",
        "CONNECTTO": "2",
        "SERVICE": "nimp2p-service",
        "SHADOWENV": "false",
    }
    assert lab.run("sync", "--dry-run", "--exit-code").code == 0
    (lab.root / "experiments" / f"{go}.yaml").unlink()
    synced(lab)
    assert lab.get("Namespace", namespace, "") is None
    assert len(lab.names("StatefulSet")) == 2
    assert lab.run("sync", "--dry-run", "--exit-code").code == 0


def test_namespace_with_a_foreign_object_is_kept(lab: Lab, go: str) -> None:
    synced(lab)
    namespace = f"nimp2p-exp-{go}"
    notes = {"name": "notes", "namespace": namespace}
    lab.cluster.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": notes, "data": {"a": "b"}})
    (lab.root / "experiments" / f"{go}.yaml").unlink()
    out = synced(lab)
    assert "ConfigMap/" in out
    assert lab.get("Namespace", namespace, "") is not None
    assert lab.get("ConfigMap", "notes", namespace) is not None
    assert lab.get("StatefulSet", "pod", namespace) is None
    lab.kubectl("delete", "configmap", "notes", "-n", namespace)
    synced(lab)
    assert lab.get("Namespace", namespace, "") is None


def test_platform_objects_do_not_block_the_namespace_but_copies_of_them_do(lab: Lab, go: str) -> None:
    synced(lab)
    assert lab.run("sync", "platform", "--no-wait").code == 0
    namespace = f"nimp2p-exp-{go}"
    role = lab.get("Role", "lab-discovery", namespace)
    assert role is not None
    kept = {field: role["metadata"][field] for field in ("labels", "annotations")}
    copy = {**role, "metadata": {"name": "lab-discovery-2", "namespace": namespace, **kept}}
    lab.cluster.create(copy)
    (lab.root / "experiments" / f"{go}.yaml").unlink()
    assert "Role/" in synced(lab)
    assert lab.get("Namespace", namespace, "") is not None
    lab.kubectl("delete", "role", "lab-discovery-2", "-n", namespace)
    synced(lab)
    assert lab.get("Namespace", namespace, "") is None
    assert lab.run("sync", "platform", "--no-wait").code == 0
    assert lab.run("sync", "platform", "--dry-run", "--exit-code").code == 0


def credentials(lab: Lab, folder: Path, rules: list[dict[str, Any]]) -> Path:
    """Return a kubeconfig of a new ServiceAccount with these RBAC rules in the lab's namespace."""
    namespace = lab.namespace
    for manifest in (
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "ci", "namespace": namespace}},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": "ci", "namespace": namespace},
            "rules": rules,
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "ci", "namespace": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "ci"},
            "subjects": [{"kind": "ServiceAccount", "name": "ci", "namespace": namespace}],
        },
    ):
        lab.cluster.create(manifest)
    token = lab.kubectl("create", "token", "ci").strip()
    config = json.loads(lab.kubectl("config", "view", "--raw", "-o", "json"))
    config["users"] = [{"name": config["users"][0]["name"], "user": {"token": token}}]
    path = folder / "ci-kubeconfig"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


GROUPS = ["", "apps", "networking.k8s.io", "policy", "coordination.k8s.io"]
READ = [{"apiGroups": GROUPS, "resources": ["*"], "verbs": ["get", "list", "watch"]}]
WRITE = [
    *READ,
    {"apiGroups": GROUPS, "resources": ["*"], "verbs": ["create", "patch", "update", "delete"]},
]


def test_read_only_credentials_suffice_for_a_plan(lab: Lab, tmp_path: Path) -> None:
    synced(lab)
    reader = replace(lab, kubeconfig=credentials(lab, tmp_path, READ))
    assert reader.run("sync", "--dry-run", "--exit-code").code == 0
    lab.kubectl("scale", "statefulset/nimp2p-exp-purple", "--replicas=2")
    answer = reader.run("sync", "--dry-run", "--exit-code")
    assert answer.code == 3, answer.out + answer.err
    assert "2 → 5" in answer.out
    assert "unverified" in answer.out
    answer = reader.run("sync")
    assert answer.code == 1
    assert "forbidden" in answer.err + answer.out


def test_namespaced_credentials_suffice_for_a_sync(lab: Lab, tmp_path: Path) -> None:
    lab.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": lab.namespace}})
    writer = replace(lab, kubeconfig=credentials(lab, tmp_path, WRITE))
    synced(writer)
    (lab.root / "experiments" / "blue.yaml").unlink()
    synced(writer)
    assert lab.names("StatefulSet") == ["nimp2p-exp-purple"]


@pytest.mark.parametrize("all_namespaces", [False, True])
def test_error_for_a_missing_namespace_contains_the_command_to_create_it(
    lab: Lab, tmp_path: Path, all_namespaces: bool
) -> None:
    """The permissions cover only one namespace, or all namespaces but not their creation."""
    lab.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": lab.namespace}})
    writer = replace(lab, kubeconfig=credentials(lab, tmp_path, WRITE))
    if all_namespaces:
        lab.kubectl("create", "clusterrolebinding", lab.namespace, "--clusterrole=edit",
                    f"--serviceaccount={lab.namespace}:ci")  # fmt: skip
    config = lab.root / "lab.yaml"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace(lab.namespace, f"{lab.namespace}-no"), encoding="utf-8")
    try:
        answer = writer.run("sync")
    finally:
        if all_namespaces:
            lab.kubectl("delete", f"clusterrolebinding/{lab.namespace}")
    assert answer.code == 1
    assert f"kubectl create namespace {lab.namespace}-no" in answer.err
    assert lab.cluster.get(ObjectKey("Namespace", "", f"{lab.namespace}-no")) is None
