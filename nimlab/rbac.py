"""The rights that nimlab needs: two accounts, one that can only look and one that also writes.

In: an apply-set, and whether its experiments have namespaces of their own. Out: manifests for an
administrator to apply. No rule allows more than a plan or a sync asks for; a test holds the rules against the
requests. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from nimlab.manifest import KINDS, Manifest
from nimlab.owned import ApplySet

PLAN: Final = "nimlab-plan"
SYNC: Final = "nimlab-sync"

_READ: Final = ("get", "list")
_WRITE: Final = (*_READ, "create", "patch", "delete")
_GROUP: Final = "rbac.authorization.k8s.io"


def access_manifests(apply_set: ApplySet, *, own_namespaces: bool) -> tuple[Manifest, ...]:
    """Return accounts, their tokens, roles and bindings, in the order in which they can be applied.

    The rights end at the lab's namespace, unless experiments have namespaces of their own: these are made and
    removed, so the rights are cluster-wide then. Both keep to the kinds of the set.
    """
    home = apply_set.namespace
    found: list[Manifest] = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": home}}]
    kinds = [kind for kind in apply_set.kinds if own_namespaces or KINDS[kind].namespaced]
    for account, rights in ((PLAN, _plan_rights(kinds)), (SYNC, _sync_rights(kinds))):
        found += [
            _account(account, home),
            _token(account, home),
            *_granted(account, home, _rules(rights), everywhere=own_namespaces),
        ]
    return tuple(found)


def _plan_rights(kinds: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Looking: each kind, the parent (a ConfigMap) and the lease."""
    return {**dict.fromkeys(kinds, _READ), "Lease": ("get",)}


def _sync_rights(kinds: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Looking and writing; the peers' restart, the watches of the waiting, and why a peer doesn't come up."""
    return {
        **dict.fromkeys(kinds, _WRITE),
        "StatefulSet": (*_WRITE, "watch"),
        "Lease": ("get", "create", "update"),
        "Pod": ("list", "watch", "delete"),
        "Event": ("list",),
    }


def _rules(rights: Mapping[str, tuple[str, ...]]) -> list[dict[str, Any]]:
    """One rule for all kinds of a group with the same verbs."""
    plurals: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for kind, verbs in rights.items():
        plurals.setdefault((KINDS[kind].group, verbs), []).append(KINDS[kind].plural)
    return [
        {"apiGroups": [group], "resources": sorted(names), "verbs": list(verbs)}
        for (group, verbs), names in plurals.items()
    ]


def _account(name: str, namespace: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _metadata(name, namespace)}


def _token(name: str, namespace: str) -> Manifest:
    """A token that doesn't expire, for a pipeline's variable; deleting it ends its use."""
    metadata = {**_metadata(name, namespace), "annotations": {"kubernetes.io/service-account.name": name}}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/service-account-token",
        "metadata": metadata,
    }


def _granted(
    account: str, namespace: str, rules: list[dict[str, Any]], *, everywhere: bool
) -> tuple[Manifest, Manifest]:
    """A role and its binding; cluster-wide ones carry the lab's name, since clusters have several labs."""
    prefix = "Cluster" if everywhere else ""
    name = f"{account}-{namespace}" if everywhere else account
    metadata = {"name": name} if everywhere else _metadata(name, namespace)
    role = {"apiVersion": f"{_GROUP}/v1", "kind": f"{prefix}Role", "metadata": metadata, "rules": rules}
    binding = {
        "apiVersion": f"{_GROUP}/v1",
        "kind": f"{prefix}RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": _GROUP, "kind": f"{prefix}Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
    }
    return role, binding


def _metadata(name: str, namespace: str) -> Mapping[str, str]:
    return {"name": name, "namespace": namespace}
