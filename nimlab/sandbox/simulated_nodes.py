"""Simulated Node objects: create and delete them, and check that they are ready.

kwok keeps the nodes Ready and simulates their kubelets. This module only creates and deletes Node objects
through the API.
"""

from __future__ import annotations

from typing import Any, Final

from nimlab.sandbox.http_client import SandboxClient, require_success

_NODES: Final = "/api/v1/nodes"
_SIMULATED_NODES: Final = f"{_NODES}?labelSelector=type%3Dkwok"
_LEASES: Final = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_PREFIX: Final = "sim-"
_CAPACITY: Final = {"cpu": "64", "memory": "256Gi", "pods": "10000", "ephemeral-storage": "1Ti"}


def ensure_nodes(client: SandboxClient, count: int) -> None:
    """Create missing nodes, and delete surplus nodes. Raises SandboxError."""
    desired = {f"{_PREFIX}{index}" for index in range(1, count + 1)}
    existing = {node["metadata"]["name"] for node in _list_nodes(client)}
    for name in sorted(desired - existing, key=_number):
        created = client.request("POST", _NODES, _make_node(name))
        require_success(created, f"create node {name}", or_status=409)
    for name in sorted(existing - desired, key=_number, reverse=True):
        deleted = client.request("DELETE", f"{_NODES}/{name}")
        require_success(deleted, f"delete node {name}", or_status=404)


def are_nodes_ready(client: SandboxClient, count: int) -> bool:
    """Return True if exactly `count` simulated nodes exist and all of them are Ready."""
    response = client.request("GET", _SIMULATED_NODES)
    return response.ok and [_is_ready(node) for node in response.body["items"]] == [True] * count


def has_default_service_account(client: SandboxClient) -> bool:
    """Return True if the controller-manager has created the ServiceAccount that every Pod needs."""
    return client.request("GET", "/api/v1/namespaces/default/serviceaccounts/default").ok


def delete_leases(client: SandboxClient) -> None:
    """Delete the nodes' leases before kwok starts.

    When kwok is killed, its leases remain. The next kwok process has another identity and would ignore the
    nodes and their pods until these leases expire.
    """
    client.request("DELETE", _LEASES)


def _list_nodes(client: SandboxClient) -> list[dict[str, Any]]:
    response = require_success(client.request("GET", _SIMULATED_NODES), "list the nodes")
    items: list[dict[str, Any]] = response.body["items"]
    return items


def _make_node(name: str) -> dict[str, Any]:
    labels = {
        "type": "kwok",
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/role": "agent",
    }
    status = {"capacity": _CAPACITY, "allocatable": _CAPACITY}
    metadata = {"name": name, "labels": labels}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "status": status}


def _is_ready(node: dict[str, Any]) -> bool:
    conditions = node.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _number(name: str) -> tuple[int, str]:
    suffix = name.removeprefix(_PREFIX)
    return (int(suffix) if suffix.isdecimal() else 0, name)
