"""What an account that writes may write, by name and by what is in it: policies for the API server.

In: an account, its set and the kinds that it writes. Out: a ValidatingAdmissionPolicy and its binding. Rights
can't tell two sets in one namespace apart, since they know no names that begin with something; nor can they
keep a pod from running under another account. The rules are those of `guard` and `guard_platform` as far as
another set is concerned, held against whoever has the account's token instead of nimlab. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from nimlab.errors import NimlabError
from nimlab.files.spec import GRAFANA_SECRET
from nimlab.objects.applyset import COMPONENT, EXPERIMENT, PART_OF, PLATFORM, ApplySet
from nimlab.objects.manifest import KINDS, Kind, Manifest

DISCOVERY: Final = "lab-discovery"
"""The Role, and its binding, by which the platform finds pods in a namespace."""

_GROUP: Final = "admissionregistration.k8s.io"
_OURS: Final = "lab-"
_TAKEN: Final = (_OURS, "kube-")
_DISCOVERY_KINDS: Final = ["roles", "rolebindings"]
_CLUSTER_KINDS: Final = ["clusterroles", "clusterrolebindings"]
_VARIABLES: Final = {
    "writes": "request.operation != 'DELETE'",
    "kind": "request.resource.resource",
    "templates": "variables.writes && variables.kind in ['statefulsets', 'deployments', 'daemonsets']"
    " ? [object.spec.template] : []",
    "containers": "variables.templates.map(t, t.spec.containers + t.spec.?initContainers.orValue([]))",
}
"""Lists with one element at most where the object has pods: what there isn't violates nothing."""

_Rule = tuple[str, str]


def node_metrics_role(namespace: str) -> str:
    """Return the name of the platform's one ClusterRole; clusters have several labs."""
    return f"lab-prometheus-{namespace}"


def check_prefix(prefix: str, namespace: str) -> None:
    """Raise NimlabError if experiments' names could be those of the platform, or of a set's own record."""
    records = (f"nimlab-{name}" for name in ("experiments", PLATFORM))
    if prefix.startswith(_TAKEN) or any(name.startswith(prefix) for name in records):
        raise NimlabError(
            f"with the prefix `{prefix}` experiments can't be told from what else is in `{namespace}`",
            where="lab.yaml",
            hint="choose a `spec.prefix` that doesn't begin with `lab-`, `kube-` or `nimlab-`",
        )


def admission_manifests(
    account: str, apply_set: ApplySet, kinds: Iterable[str], *, prefix: str, own_namespaces: bool
) -> tuple[Manifest, Manifest]:
    """Return the policy for an account's writes of these kinds, and its binding. Both are the cluster's."""
    home = apply_set.namespace
    is_platform = apply_set.name == PLATFORM
    rules = [
        _own_names(apply_set, prefix, own_namespaces=own_namespaces),
        _own_members(apply_set),
        *_SERVICES,
        *(_platform_rules(home) if is_platform else _experiment_rules(home)),
    ]
    name = f"{account}-{home}"
    user = f"system:serviceaccount:{home}:{account}"
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
    """One rule a group; what else the account may do elsewhere, by other rights, is no matter of ours."""
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
    """The names of a set's objects, and its record and lock. A request without a name has none of them."""
    home, record = apply_set.namespace, apply_set.parent_key.name
    at_home = f"request.namespace == '{home}'"
    in_experiments_own = f"request.namespace.startsWith('{prefix}') && !({at_home})"
    is_record = f"variables.kind in ['configmaps', 'leases'] && request.name == '{record}'"
    if apply_set.name == PLATFORM:
        cases = [
            f"{at_home} && request.name.startsWith('{_OURS}')",
            f"variables.kind in {_CLUSTER_KINDS} && request.name == '{node_metrics_role(home)}'",
        ]
        message = f"writes only what is called {_OURS}… in the namespace {home}"
        if own_namespaces:
            is_discovery = f"variables.kind in {_DISCOVERY_KINDS} && request.name == '{DISCOVERY}'"
            cases.append(f"{is_discovery} && {in_experiments_own}")
            message += f", and {DISCOVERY} in those of experiments"
    else:
        is_prefixed = f"request.name.startsWith('{prefix}')"
        cases = [f"variables.kind != 'namespaces' && {at_home} && {is_prefixed}"]
        message = f"writes only what is called {prefix}… in the namespace {home}"
        if own_namespaces:
            cases += [
                f"variables.kind != 'namespaces' && {in_experiments_own}",
                f"variables.kind == 'namespaces' && {is_prefixed} && request.name != '{home}'",
            ]
            message += ", and namespaces of such names with what is in them"
    return " || ".join([f"{at_home} && {is_record}", *cases]), message


def _own_members(apply_set: ApplySet) -> _Rule:
    """Another set's label would make its sync take the object for a member of its own, and prune it."""
    label = f"object.metadata.?labels[?'{PART_OF}'].orValue('{apply_set.id}')"
    return f"!variables.writes || {label} == '{apply_set.id}'", "puts no other set's label on what it writes"


_SERVICES: Final[Sequence[_Rule]] = (
    (
        "!variables.writes || variables.kind != 'services'"
        " || object.spec.?type.orValue('ClusterIP') == 'ClusterIP'"
        " && object.spec.?externalIPs.orValue([]).size() == 0",
        "makes Services of type ClusterIP alone, without external addresses: those take over others' traffic",
    ),
)


def _all_pods(condition: str) -> str:
    """Of each pod template `t`."""
    return f"variables.templates.all(t, {condition})"


def _all_containers(condition: str) -> str:
    """Of each container `c`."""
    return f"variables.containers.all(cs, cs.all(c, {condition}))"


def _experiment_rules(home: str) -> Iterable[_Rule]:
    """What would reach the platform, or a node, from an experiment's own objects."""
    yield (
        f"!(variables.kind in ['resourcequotas', 'limitranges']) || request.namespace != '{home}'",
        f"bounds no other pods: quotas and limits in {home} are for the platform's, too",
    )
    for kind, selector in (("networkpolicies", "podSelector"), ("poddisruptionbudgets", "selector")):
        yield (
            f"!variables.writes || variables.kind != '{kind}'"
            f" || '{EXPERIMENT}' in object.spec.?{selector}.?matchLabels.orValue({{}})",
            f"selects pods by the label `{EXPERIMENT}`: others aren't its own",
        )
    yield (
        _all_pods(f"!('{COMPONENT}' in t.?metadata.?labels.orValue({{}}))"),
        f"makes no pods with the label `{COMPONENT}`: the platform's Services would find them",
    )
    yield (
        _all_pods("t.spec.?serviceAccountName.orValue('') in ['', 'default']"),
        "makes pods of the account `default` alone",
    )
    yield (
        _all_pods(
            "!t.spec.?hostNetwork.orValue(false) && !t.spec.?hostPID.orValue(false)"
            " && !t.spec.?hostIPC.orValue(false)"
            " && !t.spec.?priorityClassName.orValue('').startsWith('system-')"
        ),
        "makes no pods in a node's network or among its processes, and none that drive out others",
    )
    yield (
        _all_pods(
            "t.spec.?volumes.orValue([]).all(v, has(v.configMap) || has(v.emptyDir) || has(v.downwardAPI))"
        ),
        "mounts no Secret, token, claim or folder of the node",
    )
    yield (
        "variables.templates.size() == 0 || object.spec.?volumeClaimTemplates.orValue([]).size() == 0",
        "makes no claims of volumes",
    )
    yield _unprivileged(["NET_ADMIN"])  # the shaper's
    yield (
        _all_containers("c.?ports.orValue([]).all(p, p.?hostPort.orValue(0) == 0)"),
        "takes no ports of a node",
    )
    yield _secrets("false")


def _platform_rules(home: str) -> Iterable[_Rule]:
    """What would reach an experiment, or be more than looking: at pods, and at the nodes by the agents."""
    yield (
        "variables.kind != 'secrets'"
        f" || request.operation == 'CREATE' && request.name == '{GRAFANA_SECRET}' && object.type == 'Opaque'",
        f"makes the Secret {GRAFANA_SECRET} with a password, and touches no other",
    )
    yield from _granted_rules(home)
    yield (
        _all_pods(f"!('{EXPERIMENT}' in t.?metadata.?labels.orValue({{}}))"),
        f"makes no pods with the label `{EXPERIMENT}`: they would be taken for peers",
    )
    yield (
        _all_pods(
            "t.spec.?serviceAccountName.orValue('') in ['', 'default']"
            f" || t.spec.serviceAccountName.startsWith('{_OURS}')"
        ),
        f"makes pods of its own accounts alone: `default`, or {_OURS}…",
    )
    yield (
        _all_pods(
            "variables.kind == 'daemonsets' || !t.spec.?hostNetwork.orValue(false)"
            " && !t.spec.?hostPID.orValue(false) && !t.spec.?hostIPC.orValue(false)"
        ),
        "makes no pods but the agents' in a node's network or among its processes",
    )
    yield (
        _all_pods(
            "t.spec.?volumes.orValue([]).all(v, has(v.configMap) || has(v.emptyDir) || has(v.downwardAPI)"
            " || has(v.persistentVolumeClaim) || variables.kind == 'daemonsets' && has(v.hostPath))"
        ),
        "mounts no Secret or token, and a node's folders only in agents",
    )
    yield (
        _all_pods(
            "(t.spec.containers + t.spec.?initContainers.orValue([])).all(c, c.?volumeMounts.orValue([])"
            ".all(m, m.?readOnly.orValue(false) || t.spec.?volumes.orValue([]).all(v, v.name != m.name"
            " || !has(v.hostPath) || v.hostPath.path.startsWith('/var/lib/nimlab/'))))"
        ),
        "writes to no folder of a node but /var/lib/nimlab",
    )
    yield _unprivileged([])
    yield _secrets(f"s == '{GRAFANA_SECRET}'")


def _granted_rules(home: str) -> Iterable[_Rule]:
    """Rights that it gives, to its own accounts: another one with more could do all that is refused here."""
    verbs = {"roles": ("pods", "['get', 'list', 'watch']"), "clusterroles": ("nodes/metrics", "['get']")}
    for kind, (resource, allowed) in verbs.items():
        yield (
            f"!variables.writes || variables.kind != '{kind}' || object.?rules.orValue([]).all(r,"
            f" r.apiGroups == [''] && r.resources == ['{resource}'] && r.verbs.all(v, v in {allowed}))",
            f"gives no right but to look at {resource}",
        )
    yield (
        "!variables.writes || !(variables.kind in ['rolebindings', 'clusterrolebindings'])"
        f" || object.roleRef.name in ['{DISCOVERY}', '{node_metrics_role(home)}']"
        " && object.?subjects.orValue([]).all(s, s.kind == 'ServiceAccount'"
        f" && s.?namespace.orValue('') == '{home}' && s.name.startsWith('{_OURS}'))",
        f"gives rights to its own accounts alone: {_OURS}… in {home}",
    )


def _unprivileged(capabilities: Sequence[str]) -> _Rule:
    allowed = list(capabilities)
    return (
        _all_containers(
            "!c.?securityContext.?privileged.orValue(false)"
            f" && c.?securityContext.?capabilities.?add.orValue([]).all(a, a in {allowed})"
        ),
        "makes no privileged containers, and none with capabilities "
        + (f"but {', '.join(allowed)}" if allowed else "of their own"),
    )


def _secrets(allowed: str) -> _Rule:
    """No Secret `s` is given to a container, unless it is allowed; the accounts' tokens are Secrets, too."""
    return (
        _all_containers(
            "c.?env.orValue([]).all(e, e.?valueFrom.?secretKeyRef.?name.optMap(s, "
            + allowed
            + ").orValue(true)) && c.?envFrom.orValue([]).all(f, !has(f.secretRef))"
        ),
        "gives its containers no Secret but its own",
    )
