"""Rules for the nodes on which peers may run.

In: fields of a pod spec. Out: one message per violation. The loader applies the rules to files, and the guard
applies them to pods. Pure.
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
_SYSTEM_PRIORITY: Final = "system-"


def toleration_faults(toleration: Mapping[str, Any]) -> Iterator[str]:
    """Yield the reasons why peers may not use this toleration."""
    key, operator = str(toleration.get("key") or ""), toleration.get("operator") or "Equal"
    effect = toleration.get("effect") or ""
    if not key:
        yield "a toleration without a key tolerates every taint"
    elif not is_qualified(key):
        yield f"`{key}` is not a valid key of a taint"
    if operator == "Exists" and toleration.get("value"):
        yield "`operator: Exists` does not allow a value"
    if not _VALUE.fullmatch(str(toleration.get("value") or "")):
        yield f"`{toleration['value']}` is not a valid value of a taint"
    if "tolerationSeconds" in toleration and effect != "NoExecute":
        yield "`tolerationSeconds` requires `effect: NoExecute`"
    if key in _CONTROL_PLANE:
        yield f"peers may not tolerate `{key}`, which keeps pods off control plane nodes"
    elif key.startswith(_NODE_CONDITIONS) and not _is_delayed_eviction(key, toleration):
        yield (
            f"peers may not tolerate the node condition `{key}`; to delay an eviction, they may tolerate "
            f"{_quoted(_EVICTIONS)} with `effect: NoExecute` and `tolerationSeconds`"
        )


def _is_delayed_eviction(key: str, toleration: Mapping[str, Any]) -> bool:
    return (
        key in _EVICTIONS
        and toleration.get("effect") == "NoExecute"
        and toleration.get("tolerationSeconds") is not None
    )


def selector_faults(selector: Mapping[str, Any]) -> Iterator[str]:
    """Yield the problems of a nodeSelector: invalid labels, and labels of control plane nodes."""
    for key, value in selector.items():
        if not is_qualified(str(key)):
            yield f"`{key}` is not a valid label key"
        elif not isinstance(value, str) or not _VALUE.fullmatch(value):
            yield f"`{value}` is not a valid label value"
        elif key in _CONTROL_PLANE:
            yield f"`{key}` selects control plane nodes"


def priority_faults(name: str) -> Iterator[str]:
    """Yield the reason why peers may not use the PriorityClass with this name, if there is a reason."""
    if name.startswith(_SYSTEM_PRIORITY):
        yield f"`{name}` is reserved for system pods, which peers would evict"


def is_qualified(key: str) -> bool:
    """Return True for a valid key of a label or taint: `name` or `domain/name`."""
    prefix, slash, _ = key.rpartition("/")
    return _QUALIFIED.fullmatch(key) is not None and (not slash or len(prefix) <= _PREFIX_LIMIT)


def _quoted(keys: frozenset[str]) -> str:
    return " or ".join(f"`{key}`" for key in sorted(keys))
