"""The simulated Node objects: as many as asked for, and whether all is settled.

kwok keeps them Ready and plays their kubelets; here they are only created and deleted, through the
API.
"""

from __future__ import annotations

from typing import Any, Final

from nimlab.sandbox.client import Api, expect

_NODES: Final = "/api/v1/nodes"
_LEASES: Final = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_PREFIX: Final = "sim-"
_CAPACITY: Final = {"cpu": "64", "memory": "256Gi", "pods": "10000", "ephemeral-storage": "1Ti"}


def ensure_nodes(api: Api, count: int) -> None:
    """Create the nodes that are missing and delete those past `count`. Raises SandboxError."""
    wanted = {f"{_PREFIX}{i}" for i in range(1, count + 1)}
    there = {node["metadata"]["name"] for node in _list_nodes(api)}
    for name in sorted(wanted - there, key=_number):
        expect(api.call("POST", _NODES, _make_node(name)), f"create node {name}", or_status=409)
    for name in sorted(there - wanted, key=_number, reverse=True):
        expect(api.call("DELETE", f"{_NODES}/{name}"), f"delete node {name}", or_status=404)


def are_nodes_ready(api: Api, count: int) -> bool:
    """Tell whether exactly `count` simulated nodes exist and all are Ready."""
    answer = api.call("GET", f"{_NODES}?labelSelector=type%3Dkwok")
    return answer.ok and [_is_ready(node) for node in answer.body["items"]] == [True] * count


def is_default_account_there(api: Api) -> bool:
    """Tell whether the controller-manager has made the account that every Pod needs."""
    return api.call("GET", "/api/v1/namespaces/default/serviceaccounts/default").ok


def forget_leases(api: Api) -> None:
    """Delete the nodes' leases before kwok starts.

    A kwok that was killed leaves them to nobody: its successor has a new identity and would not
    touch the nodes and their pods until they have expired.
    """
    api.call("DELETE", _LEASES)


def _list_nodes(api: Api) -> list[dict[str, Any]]:
    answer = expect(api.call("GET", f"{_NODES}?labelSelector=type%3Dkwok"), "list the nodes")
    items: list[dict[str, Any]] = answer.body["items"]
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
    tail = name.removeprefix(_PREFIX)
    return (int(tail) if tail.isdecimal() else 0, name)
