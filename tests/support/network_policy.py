"""Evaluation of NetworkPolicies, because no program that enforces them runs in these tests.

Source: kubernetes.io/docs/concepts/services-networking/network-policies. Supports only the fields that our
policies use; any other field is a KeyError or a failed assertion.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nimlab.objects.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """The properties of a pod that policies select by."""

    name: str
    namespace: str
    labels: Mapping[str, str]


def may_leave(policies: Iterable[Manifest], source: Pod, target: Pod, port: int, protocol: str) -> bool:
    """Return whether the policies of the source pod allow a connection. It also requires `may_enter`."""
    return _side_allows(list(policies), source, target, "Egress", (port, protocol))


def may_enter(policies: Iterable[Manifest], source: Pod, target: Pod, port: int, protocol: str) -> bool:
    """Return whether the policies of the target pod allow a connection."""
    return _side_allows(list(policies), target, source, "Ingress", (port, protocol))


def _side_allows(
    policies: list[Manifest], subject: Pod, other: Pod, direction: str, where: tuple[int, str]
) -> bool:
    about = [
        policy["spec"]
        for policy in policies
        if policy["metadata"]["namespace"] == subject.namespace
        and _selects(policy["spec"]["podSelector"], subject.labels)
        and direction in policy["spec"]["policyTypes"]
    ]
    if not about:  # a pod without a policy accepts every connection
        return True
    peers = "from" if direction == "Ingress" else "to"
    rules = [rule for spec in about for rule in spec.get(direction.lower(), ())]
    assert all(set(rule) <= {peers, "ports"} for rule in rules)
    return any(
        _names_peer(rule.get(peers), other, spec_namespace=subject.namespace)
        and _names_port(rule.get("ports"), where)
        for rule in rules
    )


def _names_peer(peers: list[Mapping[str, Any]] | None, other: Pod, *, spec_namespace: str) -> bool:
    if not peers:  # an empty list means all
        return True
    for peer in peers:
        assert set(peer) <= {"podSelector", "namespaceSelector"}
        namespaces = peer.get("namespaceSelector")
        if namespaces is None:
            is_there = other.namespace == spec_namespace
        else:
            is_there = _selects(namespaces, {"kubernetes.io/metadata.name": other.namespace})
        if is_there and _selects(peer.get("podSelector", {}), other.labels):
            return True
    return False


def _names_port(ports: list[Mapping[str, Any]] | None, where: tuple[int, str]) -> bool:
    assert all(set(item) == {"port", "protocol"} for item in ports or ())
    return not ports or any((item["port"], item["protocol"]) == where for item in ports)


def _selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    assert set(selector) <= {"matchLabels", "matchExpressions"}
    for item in selector.get("matchExpressions", ()):
        assert item["operator"] == "DoesNotExist"
        if item["key"] in labels:
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
