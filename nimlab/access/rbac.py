"""The rights that nimlab needs for a set: two accounts, one that can only look and one that also writes.

In: an apply-set, the prefix of experiments' names, and whether experiments have namespaces of their own. Out:
manifests for an administrator to apply. The accounts of one set can't touch the other: where roles can't say
so, `admission` does. No rule allows more than a plan or a sync asks for; a test holds the rules against the
requests. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nimlab.access.admission import DISCOVERY, admission_manifests, check_prefix, node_metrics_role
from nimlab.objects.applyset import PLATFORM, POD_SECURITY, ApplySet
from nimlab.objects.manifest import KINDS, WORKLOADS, Manifest

PLAN: Final = "nimlab-plan"
SYNC: Final = "nimlab-sync"

_READ: Final = ("get", "list")
_WRITE: Final = ("create", "patch", "delete")
_LOCK: Final = ("get", "update")
_BOUNDS: Final = frozenset({"ResourceQuota", "LimitRange"})
_NODES: Final = {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]}
_GROUP: Final = "rbac.authorization.k8s.io"


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """Verbs on a kind: in the lab's namespace or everywhere; on objects of these names, if there are any.

    A right to create what has a name is one to apply it: a POST has no name that a role could see.
    """

    kind: str
    verbs: tuple[str, ...]
    is_everywhere: bool = False
    names: tuple[str, ...] = ()


def access_manifests(apply_set: ApplySet, *, prefix: str, own_namespaces: bool) -> tuple[Manifest, ...]:
    """Return policies, accounts, their tokens, roles and bindings, in the order in which they can be applied.

    The rights end at the lab's namespace, but for what is the cluster's own. Where experiments have
    namespaces of their own, these are made and removed, so the rights to what the set has in them are
    cluster-wide. Raises NimlabError if the prefix can't tell the sets apart.
    """
    check_prefix(prefix, apply_set.namespace)
    home = apply_set.namespace
    is_platform = apply_set.name == PLATFORM
    suffix = f"-{PLATFORM}" if is_platform else ""
    plan = tuple(_plan_rights(apply_set, own_namespaces=own_namespaces))
    sync = tuple(
        (_platform_rights if is_platform else _sync_rights)(apply_set, own_namespaces=own_namespaces)
    )
    written = sorted({right.kind for right in sync if not {*_WRITE, "update"}.isdisjoint(right.verbs)})
    return (
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": home, "labels": dict(POD_SECURITY)}},
        *admission_manifests(SYNC + suffix, apply_set, written, prefix=prefix, own_namespaces=own_namespaces),
        *_given(PLAN + suffix, home, plan, []),
        *_given(SYNC + suffix, home, sync, [_NODES] if is_platform else []),
    )


def _reach(apply_set: ApplySet, *, own_namespaces: bool) -> dict[str, bool]:
    """The kinds that can be looked at, and which of them everywhere; namespaces only where some are made."""
    reach = {
        kind: not KINDS[kind].namespaced or (own_namespaces and kind in apply_set.kinds_elsewhere)
        for kind in apply_set.kinds
    }
    if not own_namespaces:
        reach.pop("Namespace", None)
    return reach


def _plan_rights(apply_set: ApplySet, *, own_namespaces: bool) -> Iterator[Right]:
    """Looking: each kind, the parent (a ConfigMap) and the lease."""
    for kind, is_everywhere in _reach(apply_set, own_namespaces=own_namespaces).items():
        yield Right(kind=kind, verbs=_READ, is_everywhere=is_everywhere)
    yield Right(kind="Lease", verbs=("get",), names=(apply_set.lease_key.name,))


def _sync_rights(apply_set: ApplySet, *, own_namespaces: bool) -> Iterator[Right]:
    """Looking and writing; the peers' restart, the watches of the waiting, and why a peer doesn't come up.

    What bounds a namespace is only written in those of experiments: in the lab's it bounds the platform, too.
    """
    for kind, is_everywhere in _reach(apply_set, own_namespaces=own_namespaces).items():
        verbs = _READ if kind in _BOUNDS and not is_everywhere else (*_READ, *_WRITE)
        watched = ("watch",) if kind in WORKLOADS else ()
        yield Right(kind=kind, verbs=(*verbs, *watched), is_everywhere=is_everywhere)
    yield from _lease_rights(apply_set)
    yield Right(kind="Pod", verbs=("list", "watch", "delete"), is_everywhere=own_namespaces)
    yield Right(kind="Event", verbs=("list",), is_everywhere=own_namespaces)


def _platform_rights(apply_set: ApplySet, *, own_namespaces: bool) -> Iterator[Right]:
    """Looking and writing; the watches of the waiting; and what is granted, which one has to have oneself.

    Source: kubernetes.io/docs/reference/access-authn-authz/rbac, "Privilege escalation prevention".
    """
    named = {
        **dict.fromkeys(("Role", "RoleBinding"), (DISCOVERY,)),
        **dict.fromkeys(("ClusterRole", "ClusterRoleBinding"), (node_metrics_role(apply_set.namespace),)),
    }
    for kind, is_everywhere in _reach(apply_set, own_namespaces=own_namespaces).items():
        if kind in named:
            yield Right(kind=kind, verbs=("list",), is_everywhere=is_everywhere)
            yield Right(kind=kind, verbs=("get", *_WRITE), is_everywhere=is_everywhere, names=named[kind])
            continue
        watched = ("watch",) if kind in WORKLOADS else ()
        yield Right(kind=kind, verbs=(*_READ, *_WRITE, *watched), is_everywhere=is_everywhere)
    yield from _lease_rights(apply_set)
    yield Right(kind="Pod", verbs=(*_READ, "watch"), is_everywhere=own_namespaces)
    yield Right(kind="Event", verbs=("list",))
    yield Right(kind="Secret", verbs=("create",))


def _lease_rights(apply_set: ApplySet) -> Iterator[Right]:
    yield Right(kind="Lease", verbs=("create",))
    yield Right(kind="Lease", verbs=_LOCK, names=(apply_set.lease_key.name,))


def _rules(rights: Iterable[Right]) -> list[dict[str, Any]]:
    """One rule for all kinds of a group with the same verbs and names."""
    plurals: dict[tuple[str, tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for right in rights:
        kind = KINDS[right.kind]
        plurals.setdefault((kind.group, right.verbs, right.names), []).append(kind.plural)
    return [
        {
            "apiGroups": [group],
            "resources": sorted(resources),
            "verbs": list(verbs),
            **({"resourceNames": list(names)} if names else {}),
        }
        for (group, verbs, names), resources in plurals.items()
    ]


def _given(
    account: str, home: str, rights: Sequence[Right], cluster_rules: Sequence[dict[str, Any]]
) -> Iterator[Manifest]:
    """An account with its token and its rights: those in the lab's namespace, and those beyond it if any."""
    yield _account(account, home)
    yield _token(account, home)
    yield from _granted(
        account, home, _rules(one for one in rights if not one.is_everywhere), everywhere=False
    )
    beyond = [*_rules(one for one in rights if one.is_everywhere), *cluster_rules]
    if beyond:
        yield from _granted(account, home, beyond, everywhere=True)


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
