"""Stuck deletions: the reasons why an object that is being deleted still exists.

In: live objects. Out: the reasons in words, and a `Trouble` for the object. An object exists until its last
finalizer is removed. A namespace exists until all objects in it are deleted; its conditions list the objects
that still exist. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from nimlab.objects.kinds_and_order import WORKLOADS
from nimlab.objects.manifest import Manifest
from nimlab.plan.kstatus import peers_of
from nimlab.plan.pod_trouble import Trouble

TERMINATING: Final = "Terminating"
_FOREGROUND: Final = "foregroundDeletion"
_ORPHAN: Final = "orphan"
_GARBAGE_COLLECTOR: Final = frozenset({_FOREGROUND, _ORPHAN})
_NAMESPACE_FINALIZER: Final = "kubernetes"  # each namespace has it; the namespace controller removes it
_NAMESPACE_CONDITIONS: Final = (
    "NamespaceDeletionDiscoveryFailure",
    "NamespaceDeletionGroupVersionParsingFailure",
    "NamespaceDeletionContentFailure",
    "NamespaceContentRemaining",
    "NamespaceFinalizersRemaining",
)


def is_terminating(live: Manifest | None) -> bool:
    """Return True for an object that is being deleted but still exists."""
    return live is not None and bool(live["metadata"].get("deletionTimestamp"))


def finalizers_of(live: Manifest) -> tuple[str, ...]:
    """Return the finalizers that Kubernetes itself does not remove."""
    in_metadata = live["metadata"].get("finalizers") or ()
    in_spec = (live.get("spec") or {}).get("finalizers") or () if live["kind"] == "Namespace" else ()
    names = [name for name in in_metadata if name not in _GARBAGE_COLLECTOR]
    names += [name for name in in_spec if name != _NAMESPACE_FINALIZER]
    return tuple(dict.fromkeys(names))


def describe_blockers(live: Manifest) -> str:
    """Return a text that describes why an object that is being deleted still exists."""
    parts = list(_reasons(live))
    return "; ".join(["it is being deleted", *parts]) if parts else "it is being deleted and still exists"


def deletion_trouble(live: Manifest) -> Trouble:
    """Return the trouble that describes why an object that is being deleted still exists."""
    return Trouble(
        kind=live["kind"],
        pod=live["metadata"]["name"],
        reason=TERMINATING,
        message=describe_blockers(live),
        since=live["metadata"].get("deletionTimestamp"),
        fatal=False,
    )


def _reasons(live: Manifest) -> Iterator[str]:
    names = finalizers_of(live)
    if names:
        listed = ", ".join(f"`{name}`" for name in names)
        if len(names) == 1:
            yield f"finalizer {listed} blocks the deletion"
        else:
            yield f"the finalizers {listed} block the deletion"
    if live["kind"] == "Namespace":
        yield from _namespace_reasons(live.get("status") or {})
    elif _FOREGROUND in (live["metadata"].get("finalizers") or ()) and not names:
        yield _dependents(live)


def _dependents(live: Manifest) -> str:
    """Return the objects for which a foreground deletion waits, as text."""
    pods = peers_of(live).existing if live["kind"] in WORKLOADS else 0
    return f"it waits for its {pods} pods" if pods > 1 else "it waits for its dependent objects"


def _namespace_reasons(status: Mapping[str, Any]) -> Iterator[str]:
    """Yield the conditions that block the deletion of a namespace. Only conditions that are True block it."""
    true = {c.get("type"): c for c in status.get("conditions") or () if c.get("status") == "True"}
    for name in _NAMESPACE_CONDITIONS:
        if name in true:
            yield f"{name}: {true[name].get('message') or true[name].get('reason') or 'no message'}"
