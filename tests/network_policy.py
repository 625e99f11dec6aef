"""What a NetworkPolicy allows, worked out as its API says: no engine that enforces one runs in these tests.

Source: kubernetes.io/docs/concepts/services-networking/network-policies. Only what our policies use is known;
anything else is a KeyError or a failed assertion, not a guess.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nimlab.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod as policies see it."""

    name: str
    namespace: str
    labels: Mapping[str, str]


def allows(policies: Iterable[Manifest], source: Pod, target: Pod, port: int, protocol: str) -> bool:
    """Return whether a connection may be opened: the source may leave, and the target lets it in."""
    known = list(policies)
    return all(
        _side_allows(known, subject, other, direction, (port, protocol))
        for subject, other, direction in ((source, target, "Egress"), (target, source, "Ingress"))
    )


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
    return any(
        _names_peer(rule.get(peers), other, spec_namespace=subject.namespace)
        and _names_port(rule.get("ports"), where)
        for spec in about
        for rule in spec.get(direction.lower(), ())
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
    return not ports or any((one["port"], one["protocol"]) == where for one in ports)


def _selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    assert set(selector) <= {"matchLabels", "matchExpressions"}
    for one in selector.get("matchExpressions", ()):
        assert one["operator"] == "DoesNotExist"
        if one["key"] in labels:
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
