"""Two service accounts per apply-set with minimal rights: one for plans (read only), one for syncs.

In: an apply-set, the prefix of experiments' names, and whether each experiment has its own namespace. Out:
manifests that an administrator applies. Pure.

The accounts of one apply-set cannot write objects of the other apply-set. `pipeline_admission` adds the
restrictions that roles cannot express. The roles grant no right that a plan or a sync does not use. A test
compares the granted rights with the requests that nimlab sends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nimlab.access.pipeline_admission import DISCOVERY, admission_manifests, check_prefix, node_metrics_role
from nimlab.objects.applyset import PLATFORM, POD_SECURITY, ApplySet
from nimlab.objects.kinds_and_order import KINDS, WORKLOADS
from nimlab.objects.manifest import Manifest

PLAN: Final = "nimlab-plan"
SYNC: Final = "nimlab-sync"

_READ: Final = ("get", "list")
_WRITE: Final = ("create", "patch", "delete")
_LOCK: Final = ("get", "update")
_NAMESPACE_LIMITS: Final = frozenset({"ResourceQuota", "LimitRange"})
_NODES: Final = {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]}
_GROUP: Final = "rbac.authorization.k8s.io"


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """The right to use some verbs on objects of a kind.

    The right covers the lab's namespace, or the whole cluster if `is_everywhere` is True. If `names` is not
    empty, the right covers only objects with these names. In this case, the verb `create` allows only an
    apply (PATCH), because the path of a POST contains no name.
    """

    kind: str
    verbs: tuple[str, ...]
    is_everywhere: bool = False
    names: tuple[str, ...] = ()


def access_manifests(apply_set: ApplySet, *, prefix: str, own_namespaces: bool) -> tuple[Manifest, ...]:
    """Return the policies, accounts, tokens, roles and bindings, in an order in which they can be applied.

    The rights cover only the lab's namespace, except for cluster-scoped kinds. If each experiment has its own
    namespace, syncs create and delete such namespaces, so the rights for objects in them are cluster-wide.
    Raises NimlabError if, with this prefix, an experiment and the platform could have objects of the same
    name.
    """
    check_prefix(prefix, apply_set.namespace)
    namespace = apply_set.namespace
    is_platform = apply_set.name == PLATFORM
    suffix = f"-{PLATFORM}" if is_platform else ""
    plan = tuple(_plan_rights(apply_set, own_namespaces=own_namespaces))
    sync = tuple(
        (_platform_rights if is_platform else _sync_rights)(apply_set, own_namespaces=own_namespaces)
    )
    written = sorted({right.kind for right in sync if not {*_WRITE, "update"}.isdisjoint(right.verbs)})
    return (
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": namespace, "labels": dict(POD_SECURITY)},
        },
        *admission_manifests(SYNC + suffix, apply_set, written, prefix=prefix, own_namespaces=own_namespaces),
        *_account_manifests(PLAN + suffix, namespace, plan, []),
        *_account_manifests(SYNC + suffix, namespace, sync, [_NODES] if is_platform else []),
    )


def _reach(apply_set: ApplySet, *, own_namespaces: bool) -> dict[str, bool]:
    """Return the kinds that the accounts may read, as the keys of a map.

    The value is True if the rights for the kind are cluster-wide.
    """
    reach = {
        kind: not KINDS[kind].namespaced or (own_namespaces and kind in apply_set.kinds_elsewhere)
        for kind in apply_set.kinds
    }
    if not own_namespaces:
        reach.pop("Namespace", None)  # a sync needs Namespaces only if each experiment has its own
    return reach


def _plan_rights(apply_set: ApplySet, *, own_namespaces: bool) -> Iterator[Right]:
    """Yield the rights to read all kinds of the apply-set, its parent (a ConfigMap) and its lease."""
    for kind, is_everywhere in _reach(apply_set, own_namespaces=own_namespaces).items():
        yield Right(kind=kind, verbs=_READ, is_everywhere=is_everywhere)
    yield Right(kind="Lease", verbs=("get",), names=(apply_set.lease_key.name,))


def _sync_rights(apply_set: ApplySet, *, own_namespaces: bool) -> Iterator[Right]:
    """Yield the rights to read and write objects, to restart peers, and to read why a peer does not start.

    The account may write quotas and limit ranges only in namespaces of experiments. In the lab's namespace,
    they would also limit the platform.
    """
    for kind, is_everywhere in _reach(apply_set, own_namespaces=own_namespaces).items():
        verbs = _READ if kind in _NAMESPACE_LIMITS and not is_everywhere else (*_READ, *_WRITE)
        watched = ("watch",) if kind in WORKLOADS else ()
        yield Right(kind=kind, verbs=(*verbs, *watched), is_everywhere=is_everywhere)
    yield from _lease_rights(apply_set)
    yield Right(kind="Pod", verbs=("list", "watch", "delete"), is_everywhere=own_namespaces)
    yield Right(kind="Event", verbs=("list",), is_everywhere=own_namespaces)


def _platform_rights(apply_set: ApplySet, *, own_namespaces: bool) -> Iterator[Right]:
    """Yield the rights to read, write and wait, and all rights that the platform's own accounts need.

    The platform contains roles for its own accounts, and Kubernetes allows an account to grant only rights
    that it has itself. Source: kubernetes.io/docs/reference/access-authn-authz/rbac, "Privilege escalation
    prevention".
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
    """Return one rule per combination of API group, verbs and names."""
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


def _account_manifests(
    account: str, namespace: str, rights: Sequence[Right], cluster_rules: Sequence[dict[str, Any]]
) -> Iterator[Manifest]:
    """Yield an account, its token, its Role in the lab's namespace, and its ClusterRole if it needs one."""
    yield _account(account, namespace)
    yield _token(account, namespace)
    in_namespace = _rules(right for right in rights if not right.is_everywhere)
    yield from _role_and_binding(account, namespace, in_namespace, everywhere=False)
    cluster_wide = [*_rules(right for right in rights if right.is_everywhere), *cluster_rules]
    if cluster_wide:
        yield from _role_and_binding(account, namespace, cluster_wide, everywhere=True)


def _account(name: str, namespace: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _metadata(name, namespace)}


def _token(name: str, namespace: str) -> Manifest:
    """Return the Secret that contains the account's token. The token is valid until the Secret is deleted."""
    metadata = {**_metadata(name, namespace), "annotations": {"kubernetes.io/service-account.name": name}}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/service-account-token",
        "metadata": metadata,
    }


def _role_and_binding(
    account: str, namespace: str, rules: list[dict[str, Any]], *, everywhere: bool
) -> tuple[Manifest, Manifest]:
    """Return a role and its binding. The name of a ClusterRole contains the lab's namespace, to be unique."""
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
