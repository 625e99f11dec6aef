"""The rights that nimlab needs for a set: two accounts, one that can only look and one that also writes.

In: an apply-set, and whether experiments have namespaces of their own. Out: manifests for an administrator
to apply. The accounts of one set can't touch the other. No rule allows more than a plan or a sync asks for; a
test holds the rules against the requests. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from nimlab.manifest import KINDS, WORKLOADS, Manifest
from nimlab.owned import PLATFORM, ApplySet

PLAN: Final = "nimlab-plan"
SYNC: Final = "nimlab-sync"

_READ: Final = ("get", "list")
_NODES: Final = {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]}
_WRITE: Final = (*_READ, "create", "patch", "delete")
_GROUP: Final = "rbac.authorization.k8s.io"


def access_manifests(apply_set: ApplySet, *, own_namespaces: bool) -> tuple[Manifest, ...]:
    """Return accounts, their tokens, roles and bindings, in the order in which they can be applied.

    The rights end at the lab's namespace, unless experiments have namespaces of their own: these are made and
    removed, so the rights are cluster-wide then. The platform's always are: it looks at pods in those
    namespaces, and at the nodes' metrics. Both accounts keep to the kinds of the set.
    """
    home = apply_set.namespace
    is_platform = apply_set.name == PLATFORM
    everywhere = own_namespaces or is_platform
    found: list[Manifest] = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": home}}]
    kinds = [kind for kind in apply_set.kinds if everywhere or KINDS[kind].namespaced]
    sync = _platform_rights(kinds) if is_platform else _sync_rights(kinds)
    for account, rights in ((PLAN, _plan_rights(kinds)), (SYNC, sync)):
        name = f"{account}-{PLATFORM}" if is_platform else account
        rules = _rules(rights)
        if is_platform and account == SYNC:
            rules.append(_NODES)
        found += [
            _account(name, home),
            _token(name, home),
            *_granted(name, home, rules, everywhere=everywhere),
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


def _platform_rights(kinds: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Looking and writing; the watches of the waiting; and what is granted, which one has to have oneself.

    Source: kubernetes.io/docs/reference/access-authn-authz/rbac, "Privilege escalation prevention".
    """
    return {
        **dict.fromkeys(kinds, _WRITE),
        **dict.fromkeys((kind for kind in kinds if kind in WORKLOADS), (*_WRITE, "watch")),
        "Lease": ("get", "create", "update"),
        "Pod": (*_READ, "watch"),
        "Event": ("list",),
        "Secret": ("create",),
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
