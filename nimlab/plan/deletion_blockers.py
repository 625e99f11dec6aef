"""A live object that is being deleted -> what keeps it.

In: live objects. Out: words, and a trouble that names the object. An object stays until its last finalizer is
removed; a namespace stays until everything in it is gone, and its conditions name what remains. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from nimlab.objects.manifest import Manifest
from nimlab.plan.kstatus import peers_of
from nimlab.plan.pod_trouble import Trouble

TERMINATING: Final = "Terminating"
_FOREGROUND: Final = "foregroundDeletion"
_ORPHAN: Final = "orphan"
_GARBAGE_COLLECTOR: Final = frozenset({_FOREGROUND, _ORPHAN})
_NAMESPACE_FINALIZER: Final = "kubernetes"  # of every namespace; the namespace controller removes it
_REMAINING: Final = (
    "NamespaceDeletionDiscoveryFailure",
    "NamespaceDeletionGroupVersionParsingFailure",
    "NamespaceDeletionContentFailure",
    "NamespaceContentRemaining",
    "NamespaceFinalizersRemaining",
)


def is_leaving(live: Manifest | None) -> bool:
    """Return True for an object that is being deleted and still exists."""
    return live is not None and bool(live["metadata"].get("deletionTimestamp"))


def finalizers_of(live: Manifest) -> tuple[str, ...]:
    """Return the finalizers that somebody else than the garbage collector has to remove."""
    named = live["metadata"].get("finalizers") or ()
    of_namespace = (live.get("spec") or {}).get("finalizers") or () if live["kind"] == "Namespace" else ()
    unusual = (name for name in of_namespace if name != _NAMESPACE_FINALIZER)
    return tuple(dict.fromkeys([*(name for name in named if name not in _GARBAGE_COLLECTOR), *unusual]))


def held_by(live: Manifest) -> str:
    """Return in words what keeps an object that is being deleted."""
    parts = list(_reasons(live))
    return "; ".join(["it is being deleted", *parts]) if parts else "it is being deleted and still exists"


def leaving_trouble(live: Manifest) -> Trouble:
    """Return what keeps an object that is being deleted, as a trouble that names it."""
    return Trouble(
        kind=live["kind"],
        pod=live["metadata"]["name"],
        reason=TERMINATING,
        message=held_by(live),
        since=live["metadata"].get("deletionTimestamp"),
        fatal=False,
    )


def _reasons(live: Manifest) -> Iterator[str]:
    names = finalizers_of(live)
    if names:
        listed = ", ".join(f"`{name}`" for name in names)
        yield f"finalizer {listed} holds it" if len(names) == 1 else f"the finalizers {listed} hold it"
    if live["kind"] == "Namespace":
        yield from _namespace_reasons(live.get("status") or {})
    elif _FOREGROUND in (live["metadata"].get("finalizers") or ()) and not names:
        yield _dependents(live)


def _dependents(live: Manifest) -> str:
    """What a foreground deletion waits for."""
    peers = peers_of(live).existing if live["kind"] in ("StatefulSet", "Deployment", "DaemonSet") else 0
    return f"it waits for its {peers} pods" if peers > 1 else "it waits for what it owns"


def _namespace_reasons(status: Mapping[str, Any]) -> Iterator[str]:
    """What the namespace controller reports; a condition that is False is no obstacle."""
    found = {c.get("type"): c for c in status.get("conditions") or () if c.get("status") == "True"}
    for name in _REMAINING:
        if name in found:
            yield f"{name}: {found[name].get('message') or found[name].get('reason') or 'no message'}"
