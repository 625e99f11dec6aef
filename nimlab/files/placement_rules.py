"""Rules for where peers may run: the same for an experiment's file and for a rendered pod.

In: fields of a pod, named as in Kubernetes. Out: what is forbidden or contradicts itself, in words. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

_QUALIFIED: Final = re.compile(
    r"(?:[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)*/)?"
    r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
_VALUE: Final = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_PREFIX_LIMIT: Final = 253
_CONTROL_PLANE: Final = frozenset({
    "node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master",
    "node-role.kubernetes.io/etcd",
})  # fmt: skip
_NODE_CONDITIONS: Final = "node.kubernetes.io/"
_EVICTIONS: Final = frozenset({"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"})
_SYSTEM: Final = "system-"


def toleration_faults(toleration: Mapping[str, Any]) -> Iterator[str]:
    """Yield why a toleration is not allowed: it is too wide, or contradicts itself."""
    key, operator = str(toleration.get("key") or ""), toleration.get("operator") or "Equal"
    effect = toleration.get("effect") or ""
    if not key:
        yield "a toleration without a key tolerates every taint"
    elif not is_qualified(key):
        yield f"`{key}` is not the key of a taint"
    if operator == "Exists" and toleration.get("value"):
        yield "`operator: Exists` takes no value"
    if not _VALUE.fullmatch(str(toleration.get("value") or "")):
        yield f"`{toleration['value']}` is not the value of a taint"
    if "tolerationSeconds" in toleration and effect != "NoExecute":
        yield "`tolerationSeconds` needs `effect: NoExecute`"
    if key in _CONTROL_PLANE:
        yield f"`{key}` keeps peers off the control plane's nodes"
    elif key.startswith(_NODE_CONDITIONS) and not _is_delayed_eviction(key, toleration):
        yield f"`{key}` is a node's own condition: only a NoExecute of {_told(_EVICTIONS)} may be delayed"


def _is_delayed_eviction(key: str, toleration: Mapping[str, Any]) -> bool:
    return (
        key in _EVICTIONS
        and toleration.get("effect") == "NoExecute"
        and toleration.get("tolerationSeconds") is not None
    )


def selector_faults(selector: Mapping[str, Any]) -> Iterator[str]:
    """Yield the labels of a nodeSelector that no node can have, or that choose the control plane."""
    for key, value in selector.items():
        if not is_qualified(str(key)):
            yield f"`{key}` is not the key of a label"
        elif not isinstance(value, str) or not _VALUE.fullmatch(value):
            yield f"`{value}` is not the value of a label"
        elif key in _CONTROL_PLANE:
            yield f"`{key}` chooses the control plane's nodes"


def priority_faults(name: str) -> Iterator[str]:
    """Yield why peers may not have this PriorityClass."""
    if name.startswith(_SYSTEM):
        yield f"`{name}` is for the cluster's own pods: peers would evict them"


def is_qualified(key: str) -> bool:
    """Return True when a text can be the key of a label or taint: a name, or a domain, `/` and a name."""
    prefix, slash, _ = key.rpartition("/")
    return _QUALIFIED.fullmatch(key) is not None and (not slash or len(prefix) <= _PREFIX_LIMIT)


def _told(keys: frozenset[str]) -> str:
    return " or ".join(f"`{key}`" for key in sorted(keys))
