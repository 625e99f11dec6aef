"""What a NetworkPolicy allows, worked out as its API says: no engine that enforces one runs in these tests.

Source: kubernetes.io/docs/concepts/services-networking/network-policies. Only what our policies use is known;
anything else is a KeyError or a failed assertion, not a guess.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nimlab.objects.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod as policies see it."""

    name: str
    namespace: str
    labels: Mapping[str, str]


def may_leave(policies: Iterable[Manifest], source: Pod, target: Pod, port: int, protocol: str) -> bool:
    """Return whether the policies about the source let a connection out; it is open if it may enter, too."""
    return _side_allows(list(policies), source, target, "Egress", (port, protocol))


def may_enter(policies: Iterable[Manifest], source: Pod, target: Pod, port: int, protocol: str) -> bool:
    """Return whether the policies about the target let a connection in."""
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
    if not about:  # a pod that no policy is about is open
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
    if not peers:  # none named means all
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
    assert all(set(one) == {"port", "protocol"} for one in ports or ())
    return not ports or any((one["port"], one["protocol"]) == where for one in ports)


def _selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    assert set(selector) <= {"matchLabels", "matchExpressions"}
    for one in selector.get("matchExpressions", ()):
        assert one["operator"] == "DoesNotExist"
        if one["key"] in labels:
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
