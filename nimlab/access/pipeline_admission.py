"""ValidatingAdmissionPolicies: they restrict the names and contents of the objects an account may write.

In: an account, its apply-set and the kinds that it writes. Out: a ValidatingAdmissionPolicy and its binding.
Pure.

RBAC roles cannot separate two apply-sets in one namespace, because roles cannot select objects by a prefix of
their names. Roles also cannot prevent an account from creating pods that run under another service account.
The policies repeat the rules of `render.guard` that protect other apply-sets. The server therefore enforces
these rules even if a client uses the account's token without nimlab.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

from nimlab.errors import NimlabError
from nimlab.files.spec import GRAFANA_SECRET
from nimlab.objects.applyset import COMPONENT, EXPERIMENT, PART_OF, PLATFORM, ApplySet
from nimlab.objects.kinds_and_order import KINDS, Kind
from nimlab.objects.manifest import Manifest

DISCOVERY: Final = "lab-discovery"
"""Name of the Role and the RoleBinding that allow the platform to find pods in a namespace."""

_GROUP: Final = "admissionregistration.k8s.io"
_PLATFORM_PREFIX: Final = "lab-"
_RESERVED_PREFIXES: Final = (_PLATFORM_PREFIX, "kube-")
_DISCOVERY_KINDS: Final = ["roles", "rolebindings"]
_CLUSTER_KINDS: Final = ["clusterroles", "clusterrolebindings"]
_VARIABLES: Final = {
    "writes": "request.operation != 'DELETE'",
    "kind": "request.resource.resource",
    "templates": "variables.writes && variables.kind in ['statefulsets', 'deployments', 'daemonsets']"
    " ? [object.spec.template] : []",
    "containers": "variables.templates.map(t, t.spec.containers + t.spec.?initContainers.orValue([]))",
}
"""CEL variables. If an object has no pod template, the lists are empty, so all rules for pods are true."""

_Rule: TypeAlias = tuple[str, str]
"""A CEL expression that must be true, and the message for a request that violates it."""


def node_metrics_role(namespace: str) -> str:
    """Return the name of the platform's ClusterRole; it contains the namespace, to be unique among labs."""
    return f"lab-prometheus-{namespace}"


def check_prefix(prefix: str, namespace: str) -> None:
    """Raise NimlabError if, with this prefix, an experiment's object could have the name of another object.

    The other objects are the platform's objects, the parents of the apply-sets, and Kubernetes' own objects.
    """
    parents = (f"nimlab-{name}" for name in ("experiments", PLATFORM))
    if prefix.startswith(_RESERVED_PREFIXES) or any(name.startswith(prefix) for name in parents):
        raise NimlabError(
            f"with the prefix `{prefix}`, names of experiments can clash with other objects in `{namespace}`",
            where="lab.yaml",
            hint="choose a `spec.prefix` that does not begin with `lab-`, `kube-` or `nimlab-`",
        )


def admission_manifests(
    account: str, apply_set: ApplySet, kinds: Iterable[str], *, prefix: str, own_namespaces: bool
) -> tuple[Manifest, Manifest]:
    """Return the policy that restricts an account's writes of these kinds, and its binding.

    Both are cluster-scoped.
    """
    namespace = apply_set.namespace
    is_platform = apply_set.name == PLATFORM
    rules = [
        _own_names(apply_set, prefix, own_namespaces=own_namespaces),
        _own_members(apply_set),
        *_SERVICES,
        *(_platform_rules(namespace) if is_platform else _experiment_rules(namespace)),
    ]
    name = f"{account}-{namespace}"
    user = f"system:serviceaccount:{namespace}:{account}"
    policy = {
        "apiVersion": f"{_GROUP}/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": _resource_rules([KINDS[kind] for kind in kinds])},
            "matchConditions": [{"name": "account", "expression": f"request.userInfo.username == '{user}'"}],
            "variables": [{"name": key, "expression": text} for key, text in _VARIABLES.items()],
            "validations": [
                {"expression": expression, "message": f"{account} {message}", "reason": "Forbidden"}
                for expression, message in rules
            ],
        },
    }
    binding = {
        "apiVersion": f"{_GROUP}/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    }
    return policy, binding


def _resource_rules(kinds: Sequence[Kind]) -> list[dict[str, list[str]]]:
    """Return one resource rule per API group; the policy does not restrict writes of other kinds."""
    groups: dict[tuple[str, str], list[str]] = {}
    for kind in kinds:
        groups.setdefault((kind.group, kind.version), []).append(kind.plural)
    return [
        {
            "apiGroups": [group],
            "apiVersions": [version],
            "operations": ["CREATE", "UPDATE", "DELETE"],
            "resources": sorted(plurals),
        }
        for (group, version), plurals in groups.items()
    ]


def _own_names(apply_set: ApplySet, prefix: str, *, own_namespaces: bool) -> _Rule:
    """Return the rule for the names of the set's objects, parent and lease.

    The rule denies requests without a name.
    """
    namespace, parent_name = apply_set.namespace, apply_set.parent_key.name
    in_lab_namespace = f"request.namespace == '{namespace}'"
    in_experiments_own = f"request.namespace.startsWith('{prefix}') && !({in_lab_namespace})"
    is_own_record = f"variables.kind in ['configmaps', 'leases'] && request.name == '{parent_name}'"
    if apply_set.name == PLATFORM:
        cases = [
            f"{in_lab_namespace} && request.name.startsWith('{_PLATFORM_PREFIX}')",
            f"variables.kind in {_CLUSTER_KINDS} && request.name == '{node_metrics_role(namespace)}'",
        ]
        message = f"may only write objects named `{_PLATFORM_PREFIX}…` in namespace {namespace}"
        if own_namespaces:
            is_discovery = f"variables.kind in {_DISCOVERY_KINDS} && request.name == '{DISCOVERY}'"
            cases.append(f"{is_discovery} && {in_experiments_own}")
            message += f", and `{DISCOVERY}` in namespaces of experiments"
    else:
        is_prefixed = f"request.name.startsWith('{prefix}')"
        cases = [f"variables.kind != 'namespaces' && {in_lab_namespace} && {is_prefixed}"]
        message = f"may only write objects named `{prefix}…` in namespace {namespace}"
        if own_namespaces:
            cases += [
                f"variables.kind != 'namespaces' && {in_experiments_own}",
                f"variables.kind == 'namespaces' && {is_prefixed} && request.name != '{namespace}'",
            ]
            message += ", and namespaces with such names and the objects in them"
    return " || ".join([f"{in_lab_namespace} && {is_own_record}", *cases]), message


def _own_members(apply_set: ApplySet) -> _Rule:
    """Return the rule for the label of the apply-set.

    If the account could set the label of another apply-set, a sync of that apply-set could prune the object.
    """
    label = f"object.metadata.?labels[?'{PART_OF}'].orValue('{apply_set.id}')"
    return f"!variables.writes || {label} == '{apply_set.id}'", "may not set the label of another apply-set"


_SERVICES: Final[Sequence[_Rule]] = (
    (
        "!variables.writes || variables.kind != 'services'"
        " || object.spec.?type.orValue('ClusterIP') == 'ClusterIP'"
        " && object.spec.?externalIPs.orValue([]).size() == 0",
        "may only write Services of type ClusterIP without external IPs, which could divert other traffic",
    ),
)


def _all_pods(condition: str) -> str:
    """Return a CEL expression that requires a condition for each pod template `t`."""
    return f"variables.templates.all(t, {condition})"


def _all_containers(condition: str) -> str:
    """Return a CEL expression that requires a condition for each container `c`."""
    return f"variables.containers.all(cs, cs.all(c, {condition}))"


def _experiment_rules(namespace: str) -> Iterable[_Rule]:
    """Yield the rules that protect the platform and the nodes from objects of experiments."""
    yield (
        f"!(variables.kind in ['resourcequotas', 'limitranges']) || request.namespace != '{namespace}'",
        f"may not write quotas and limit ranges in {namespace}, which would also limit the platform",
    )
    for kind, selector in (("networkpolicies", "podSelector"), ("poddisruptionbudgets", "selector")):
        yield (
            f"!variables.writes || variables.kind != '{kind}'"
            f" || '{EXPERIMENT}' in object.spec.?{selector}.?matchLabels.orValue({{}})",
            f"may only select pods by the label `{EXPERIMENT}`",
        )
    yield (
        _all_pods(f"!('{COMPONENT}' in t.?metadata.?labels.orValue({{}}))"),
        f"may not create pods with the label `{COMPONENT}`: Services of the platform would select them",
    )
    yield (
        _all_pods("t.spec.?serviceAccountName.orValue('') in ['', 'default']"),
        "may only create pods with the service account `default`",
    )
    yield (
        _all_pods(
            "!t.spec.?hostNetwork.orValue(false) && !t.spec.?hostPID.orValue(false)"
            " && !t.spec.?hostIPC.orValue(false)"
            " && !t.spec.?priorityClassName.orValue('').startsWith('system-')"
        ),
        "may not create pods with host namespaces or with a system priority class",
    )
    yield (
        _all_pods(
            "t.spec.?volumes.orValue([]).all(v, has(v.configMap) || has(v.emptyDir) || has(v.downwardAPI))"
        ),
        "may not mount Secrets, tokens, claims or host paths",
    )
    yield (
        "variables.templates.size() == 0 || object.spec.?volumeClaimTemplates.orValue([]).size() == 0",
        "may not use volume claim templates",
    )
    yield _unprivileged(["NET_ADMIN"])  # the shaper needs this capability
    yield (
        _all_containers("c.?ports.orValue([]).all(p, p.?hostPort.orValue(0) == 0)"),
        "may not use host ports",
    )
    yield _secrets("false")


def _platform_rules(namespace: str) -> Iterable[_Rule]:
    """Yield the rules that protect experiments from the platform, and limit the platform's own rights."""
    yield (
        "variables.kind != 'secrets'"
        f" || request.operation == 'CREATE' && request.name == '{GRAFANA_SECRET}' && object.type == 'Opaque'",
        f"may only create the Secret {GRAFANA_SECRET}, and may not change or delete any Secret",
    )
    yield from _granted_rules(namespace)
    yield (
        _all_pods(f"!('{EXPERIMENT}' in t.?metadata.?labels.orValue({{}}))"),
        f"may not create pods with the label `{EXPERIMENT}`, which marks peers",
    )
    yield (
        _all_pods(
            "t.spec.?serviceAccountName.orValue('') in ['', 'default']"
            f" || t.spec.serviceAccountName.startsWith('{_PLATFORM_PREFIX}')"
        ),
        f"may only create pods with the service accounts `default` and `{_PLATFORM_PREFIX}…`",
    )
    yield (
        _all_pods(
            "variables.kind == 'daemonsets' || !t.spec.?hostNetwork.orValue(false)"
            " && !t.spec.?hostPID.orValue(false) && !t.spec.?hostIPC.orValue(false)"
        ),
        "may only use host namespaces in DaemonSets",
    )
    yield (
        _all_pods(
            "t.spec.?volumes.orValue([]).all(v, has(v.configMap) || has(v.emptyDir) || has(v.downwardAPI)"
            " || has(v.persistentVolumeClaim) || variables.kind == 'daemonsets' && has(v.hostPath))"
        ),
        "may not mount Secrets or tokens, and may mount host paths only in DaemonSets",
    )
    yield (
        _all_pods(
            "(t.spec.containers + t.spec.?initContainers.orValue([])).all(c, c.?volumeMounts.orValue([])"
            ".all(m, m.?readOnly.orValue(false) || t.spec.?volumes.orValue([]).all(v, v.name != m.name"
            " || !has(v.hostPath) || v.hostPath.path.startsWith('/var/lib/nimlab/'))))"
        ),
        "may only write to the host path /var/lib/nimlab",
    )
    yield _unprivileged([])
    yield _secrets(f"s == '{GRAFANA_SECRET}'")


def _granted_rules(namespace: str) -> Iterable[_Rule]:
    """Yield the rules for the roles and bindings that the platform creates.

    Without these rules, the account could grant rights to another account, and use that account for writes
    that the other rules deny.
    """
    verbs = {"roles": ("pods", "['get', 'list', 'watch']"), "clusterroles": ("nodes/metrics", "['get']")}
    for kind, (resource, allowed) in verbs.items():
        yield (
            f"!variables.writes || variables.kind != '{kind}' || object.?rules.orValue([]).all(r,"
            f" r.apiGroups == [''] && r.resources == ['{resource}'] && r.verbs.all(v, v in {allowed}))",
            f"may only grant the right to read {resource}",
        )
    yield (
        "!variables.writes || !(variables.kind in ['rolebindings', 'clusterrolebindings'])"
        f" || object.roleRef.name in ['{DISCOVERY}', '{node_metrics_role(namespace)}']"
        " && object.?subjects.orValue([]).all(s, s.kind == 'ServiceAccount'"
        f" && s.?namespace.orValue('') == '{namespace}' && s.name.startsWith('{_PLATFORM_PREFIX}'))",
        f"may only grant rights to its own service accounts: `{_PLATFORM_PREFIX}…` in {namespace}",
    )


def _unprivileged(capabilities: Sequence[str]) -> _Rule:
    allowed = list(capabilities)
    return (
        _all_containers(
            "!c.?securityContext.?privileged.orValue(false)"
            f" && c.?securityContext.?capabilities.?add.orValue([]).all(a, a in {allowed})"
        ),
        "may not create privileged containers or add capabilities"
        + (f" other than {', '.join(allowed)}" if allowed else ""),
    )


def _secrets(allowed: str) -> _Rule:
    """Return the rule for Secrets in env variables; `allowed` is a CEL condition on the name `s` of a Secret.

    The rule also protects the accounts' tokens, which are stored in Secrets.
    """
    return (
        _all_containers(
            "c.?env.orValue([]).all(e, e.?valueFrom.?secretKeyRef.?name.optMap(s, "
            + allowed
            + ").orValue(true)) && c.?envFrom.orValue([]).all(f, !has(f.secretRef))"
        ),
        "may not pass other Secrets to its containers",
    )
