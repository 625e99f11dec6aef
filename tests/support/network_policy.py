"""Evaluate NetworkPolicies by the rules of their API, because the sandbox does not enforce them.

Source: kubernetes.io/docs/concepts/services-networking/network-policies. Only the fields that nimlab's
policies use are supported. Any other field causes a KeyError or a failed assertion.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nimlab.objects.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """The properties of a pod that policies select."""

    name: str
    namespace: str
    labels: Mapping[str, str]


def may_leave(policies: Iterable[Manifest], source: Pod, target: Pod, port: int, protocol: str) -> bool:
    """Return True if the policies of the source allow the outgoing connection."""
    return _side_allows(list(policies), source, target, "Egress", (port, protocol))


def may_enter(policies: Iterable[Manifest], source: Pod, target: Pod, port: int, protocol: str) -> bool:
    """Return True if the policies of the target allow the incoming connection."""
    return _side_allows(list(policies), target, source, "Ingress", (port, protocol))


def _side_allows(
    policies: list[Manifest], subject: Pod, other: Pod, direction: str, port: tuple[int, str]
) -> bool:
    specs = [
        policy["spec"]
        for policy in policies
        if policy["metadata"]["namespace"] == subject.namespace
        and _selects(policy["spec"]["podSelector"], subject.labels)
        and direction in policy["spec"]["policyTypes"]
    ]
    if not specs:  # a pod that no policy selects is not isolated
        return True
    peers = "from" if direction == "Ingress" else "to"
    rules = [rule for spec in specs for rule in spec.get(direction.lower(), ())]
    assert all(set(rule) <= {peers, "ports"} for rule in rules)
    return any(
        _includes_peer(rule.get(peers), other, policy_namespace=subject.namespace)
        and _includes_port(rule.get("ports"), port)
        for rule in rules
    )


def _includes_peer(peers: list[Mapping[str, Any]] | None, other: Pod, *, policy_namespace: str) -> bool:
    if not peers:  # a missing or empty list means all peers
        return True
    for peer in peers:
        assert set(peer) <= {"podSelector", "namespaceSelector"}
        namespaces = peer.get("namespaceSelector")
        if namespaces is None:
            in_namespace = other.namespace == policy_namespace
        else:
            in_namespace = _selects(namespaces, {"kubernetes.io/metadata.name": other.namespace})
        if in_namespace and _selects(peer.get("podSelector", {}), other.labels):
            return True
    return False


def _includes_port(ports: list[Mapping[str, Any]] | None, port: tuple[int, str]) -> bool:
    assert all(set(allowed) == {"port", "protocol"} for allowed in ports or ())
    return not ports or any((allowed["port"], allowed["protocol"]) == port for allowed in ports)


def _selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    assert set(selector) <= {"matchLabels", "matchExpressions"}
    for expression in selector.get("matchExpressions", ()):
        assert expression["operator"] == "DoesNotExist"
        if expression["key"] in labels:
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
