"""Guard of experiments: a manifest may affect only its own experiment.

In: stamped manifests of one experiment. Out: nothing, or a GuardError that names all violations. The rules
apply to the parsed objects, so no template and no spec can evade them. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from nimlab.errors import GuardError
from nimlab.files.placement_rules import priority_faults, selector_faults, toleration_faults
from nimlab.files.spec import Experiment, Isolation, Lab
from nimlab.objects.applyset import EXPERIMENT, EXPERIMENT_KINDS, MEMBER, PART_OF, POD_SECURITY, ApplySet
from nimlab.objects.kinds_and_order import KINDS
from nimlab.objects.manifest import Manifest, ObjectKey, annotations_of, key_of, labels_of
from nimlab.render.guard.shared_rules import (
    NAME,
    PROBES,
    api_version_violations,
    containers_of,
    duplicates,
    effective_context,
    membership_violations,
    reject_violations,
    reserved_metadata_violations,
    unlisted,
)

_POD: Final = frozenset({
    "activeDeadlineSeconds", "affinity", "automountServiceAccountToken", "containers", "dnsConfig",
    "dnsPolicy", "enableServiceLinks", "hostAliases", "hostname", "imagePullSecrets", "initContainers",
    "nodeSelector", "priorityClassName", "readinessGates", "restartPolicy", "securityContext",
    "serviceAccountName", "setHostnameAsFQDN", "shareProcessNamespace", "subdomain",
    "terminationGracePeriodSeconds", "tolerations", "topologySpreadConstraints", "volumes",
})  # fmt: skip
"""Allowed fields of a pod. Some other fields, such as `runtimeClassName`, could affect other pods."""
_PULL_POLICIES: Final = frozenset({"Always", "IfNotPresent", "Never"})
_POD_CONTEXT: Final = frozenset({
    "fsGroup", "fsGroupChangePolicy", "runAsGroup", "runAsNonRoot", "runAsUser", "seccompProfile",
    "supplementalGroups", "supplementalGroupsPolicy", "sysctls",
})  # fmt: skip
_CONTEXT: Final = frozenset({
    "allowPrivilegeEscalation", "capabilities", "readOnlyRootFilesystem", "runAsGroup", "runAsNonRoot",
    "runAsUser", "seccompProfile",
})  # fmt: skip
_FORBIDDEN_SERVICE: Final = (
    "externalIPs", "externalName", "loadBalancerIP", "loadBalancerClass", "loadBalancerSourceRanges",
)  # fmt: skip
_VOLUME: Final = frozenset({"name", "configMap", "emptyDir", "downwardAPI"})
SHAPER: Final = "shape"
"""Name of the only init container that may have NET_ADMIN: it shapes the link of a peer."""
_SHAPER_FIELDS: Final = frozenset({
    "args", "command", "image", "imagePullPolicy", "name", "resources", "securityContext",
    "terminationMessagePolicy",
})  # fmt: skip
_SHAPER_COMMAND: Final = ["python3", "-m", "nimlab.agents.shape"]
_OLD_AGENT: Final = re.compile(r"-m\W+(nimlab\.(?:rtt|shape|stagger))\b")
"""Matches a command that starts an agent by the module path of images before 0.2.0."""
_SYSCTL: Final = {"name": "net.ipv4.ping_group_range", "value": "65534 65534"}
"""The only allowed sysctl. Its value is a range that contains only the group of the RTT exporter."""
_OWN_FIELDS: Final = frozenset({"metadata.name", "status.podIP"})
"""Fields of its own pod that a container may read. They reveal nothing about the node."""


def check_manifests(
    manifests: Sequence[Manifest], experiment: Experiment, lab: Lab, apply_set: ApplySet
) -> None:
    """Raise a GuardError that names all violations of an experiment's manifests."""
    reject_violations(
        manifests,
        lambda manifest: _violations(manifest, experiment, lab, apply_set),
        lambda: _hint(manifests, experiment),
    )


def _hint(manifests: Sequence[Manifest], experiment: Experiment) -> str:
    if any(_old_agents(container) for manifest in manifests for _, _, container in _containers(manifest)):
        return (
            "start the modules `nimlab.agents.shape`, `nimlab.agents.rtt` and `nimlab.agents.stagger` in the "
            "template, and set `spec.images.nimlab` in lab.yaml to image tag 0.2.0 or later"
        )
    return f"remove it from `{experiment.source}`, or from the template in templates/experiment"


def check_unstamped(manifests: Sequence[Manifest], experiment: Experiment) -> None:
    """Raise GuardError if a template sets the label or the annotation of a member of an apply-set.

    Call this function before the manifests are stamped, because stamping overwrites both.
    """
    for manifest in manifests:
        reserved = sorted({PART_OF, MEMBER} & {*labels_of(manifest), *annotations_of(manifest)})
        if reserved:
            raise GuardError(
                f"metadata: {reserved[0]} is reserved",
                where=key_of(manifest),
                hint=f"remove it from `{experiment.source}` or the template; nimlab sets it",
            )


def check_unique(by_experiment: Mapping[str, Sequence[Manifest]]) -> None:
    """Raise GuardError if two experiments have an object with the same key."""
    owners: dict[ObjectKey, str] = {}
    for name, manifests in by_experiment.items():
        for manifest in manifests:
            key = key_of(manifest)
            if owners.setdefault(key, name) != name:
                raise GuardError(
                    f"the experiments `{owners[key]}` and `{name}` both contain this object",
                    where=key,
                    hint="rename one of the experiments",
                )


def _violations(manifest: Manifest, experiment: Experiment, lab: Lab, apply_set: ApplySet) -> Iterator[str]:
    key = key_of(manifest)
    is_namespace = key.kind == "Namespace" and experiment.contract.isolation is Isolation.NAMESPACE
    if not is_namespace and (key.kind not in KINDS or key.kind not in EXPERIMENT_KINDS):
        yield "an experiment cannot contain objects of this kind"
        return
    if is_namespace:
        if key.name != experiment.namespace or key.name == lab.namespace:
            yield f"metadata.name of the namespace must be `{experiment.namespace}`"
    else:
        if key.namespace != experiment.namespace:
            yield f"metadata.namespace must be `{experiment.namespace}`"
        if not _is_own_name(key.name, experiment):
            full_name = experiment.full_name
            yield f"metadata.name must be `{full_name}` or start with `{full_name}-`"
    if key.kind in KINDS:
        yield from api_version_violations(manifest)
    yield from membership_violations(manifest, apply_set, POD_SECURITY if is_namespace else {})
    yield from _experiment_violations(manifest, experiment)
    yield from _kind_violations(manifest, experiment, lab)


def _is_own_name(name: str, experiment: Experiment) -> bool:
    """Return True if a name belongs to this experiment.

    It can also belong to an experiment with a longer name; `check_unique` detects such a conflict.
    """
    workloads = (experiment.workload_of(group) for group in experiment.groups)
    own_names = {experiment.full_name, experiment.service, *workloads}
    return name in own_names or name.startswith(experiment.full_name + "-")


def _experiment_violations(manifest: Manifest, experiment: Experiment) -> Iterator[str]:
    if labels_of(manifest).get(EXPERIMENT) != experiment.name:
        yield f"the label `{EXPERIMENT}` must be `{experiment.name}`"
    template = (manifest.get("spec") or {}).get("template")
    if isinstance(template, Mapping):
        metadata = template.get("metadata") or {}
        yield from unlisted(metadata, frozenset({"annotations", "labels"}), "pods: metadata")
        if any("apparmor" in name for name in metadata.get("annotations") or ()):
            yield "pods: AppArmor annotations are not allowed"
        yield from reserved_metadata_violations(metadata, {})
        if (metadata.get("labels") or {}).get(EXPERIMENT) != experiment.name:
            yield f"pods: the label `{EXPERIMENT}` must be `{experiment.name}`"


def _kind_violations(manifest: Manifest, experiment: Experiment, lab: Lab) -> Iterator[str]:
    spec = manifest.get("spec") or {}
    kind = manifest["kind"]
    if kind == "Service":
        yield from _service_violations(spec, experiment)
    elif kind == "StatefulSet":
        labels = (spec.get("selector") or {}).get("matchLabels") or {}
        if labels.get(EXPERIMENT) != experiment.name:
            yield f"spec.selector must contain `{EXPERIMENT}: {experiment.name}`"
        if spec.get("volumeClaimTemplates"):
            yield "spec.volumeClaimTemplates is not allowed, because the claims would outlive the experiment"
        yield from _pod_violations(_pod_of(manifest), lab)
    elif kind in ("NetworkPolicy", "PodDisruptionBudget"):
        field = "podSelector" if kind == "NetworkPolicy" else "selector"
        labels = (spec.get(field) or {}).get("matchLabels") or {}
        if labels.get(EXPERIMENT) != experiment.name:
            yield f"spec.{field} must contain `{EXPERIMENT}: {experiment.name}`"


def _service_violations(spec: Mapping[str, Any], experiment: Experiment) -> Iterator[str]:
    yield from (f"spec.{name} is not allowed" for name in _FORBIDDEN_SERVICE if name in spec)
    if spec.get("type", "ClusterIP") != "ClusterIP":
        yield "spec.type must be ClusterIP"
    if (spec.get("selector") or {}).get(EXPERIMENT) != experiment.name:
        yield f"spec.selector must contain `{EXPERIMENT}: {experiment.name}`"
    yield from duplicates(spec.get("ports"), ("port", "protocol"), "spec.ports")


def _pod_of(manifest: Manifest) -> Mapping[str, Any]:
    template = (manifest.get("spec") or {}).get("template")
    pod: Mapping[str, Any] = (template.get("spec") or {}) if isinstance(template, Mapping) else {}
    return pod


def _containers(manifest: Manifest) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    return containers_of(_pod_of(manifest))


def _pod_violations(pod: Mapping[str, Any], lab: Lab) -> Iterator[str]:
    yield from unlisted({name: value for name, value in pod.items() if value}, _POD, "pods")
    context = pod.get("securityContext") or {}
    yield from unlisted(context, _POD_CONTEXT, "pods: securityContext")
    if pod.get("serviceAccountName", "default") != "default":
        yield "pods: serviceAccountName is not allowed"
    if pod.get("automountServiceAccountToken") is not False:
        yield "pods: automountServiceAccountToken must be false"
    if any(sysctl != _SYSCTL for sysctl in context.get("sysctls") or ()):
        yield f"pods: sysctls are not allowed, except {_SYSCTL['name']} with the value `{_SYSCTL['value']}`"
    yield from _placement_violations(pod)
    for volume in pod.get("volumes") or ():
        forbidden = sorted(set(volume) - _VOLUME)
        if forbidden:
            yield f"pods: a volume of type `{forbidden[0]}` is not allowed"
    yield from duplicates(pod.get("volumes"), ("name",), "volumes")
    for field, name, container in containers_of(pod):
        is_shaper = field == "initContainers" and _is_shaper(container, lab)
        yield from _container_violations(container, name, is_shaper=is_shaper)
        if effective_context(pod, container).get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{name}: seccompProfile must be `RuntimeDefault`"
    for field in ("initContainers", "containers"):
        yield from duplicates(pod.get(field), ("name",), field)


def _placement_violations(pod: Mapping[str, Any]) -> Iterator[str]:
    """Yield violations of the rules for nodes, priorities and registry credentials."""
    for toleration in pod.get("tolerations") or ():
        yield from (f"pods: tolerations: {what}" for what in toleration_faults(toleration))
    yield from (f"pods: nodeSelector: {what}" for what in selector_faults(pod.get("nodeSelector") or {}))
    yield from (
        f"pods: priorityClassName: {what}" for what in priority_faults(pod.get("priorityClassName") or "")
    )
    for secret in pod.get("imagePullSecrets") or ():
        yield from unlisted(secret, frozenset({"name"}), "pods: imagePullSecrets")
        if not NAME.fullmatch(str(secret.get("name") or "")):
            yield "pods: each entry of imagePullSecrets must name a Secret"
    yield from duplicates(pod.get("imagePullSecrets"), ("name",), "pods: imagePullSecrets")
    rules = pod.get("topologySpreadConstraints")
    yield from duplicates(rules, ("topologyKey", "whenUnsatisfiable"), "pods: topologySpreadConstraints")


def _is_shaper(container: Mapping[str, Any], lab: Lab) -> bool:
    """Return True if the container runs nimlab's own shaper, and nothing else.

    A check of the name alone would allow NET_ADMIN for any program. A working directory, a volume or an env
    variable could make Python load a different `nimlab.agents.shape`.
    """
    return (
        container.get("name") == SHAPER
        and container.get("image") == str(lab.images.nimlab)
        and container.get("command") == _SHAPER_COMMAND
        and container.keys() <= _SHAPER_FIELDS
    )


def _old_agents(container: Mapping[str, Any]) -> list[str]:
    """Return the agents that a container starts by the module paths of images before 0.2.0."""
    return _OLD_AGENT.findall(f"{container.get('command')} {container.get('args')}")


def _container_violations(container: Mapping[str, Any], name: str, *, is_shaper: bool) -> Iterator[str]:
    for old in _old_agents(container):
        new = old.replace("nimlab.", "nimlab.agents.")
        yield f"{name}: the module `{old}` was renamed to `{new}`; change the command"
    yield from _context_violations(container.get("securityContext") or {}, name, is_shaper=is_shaper)
    if container.get("imagePullPolicy", "IfNotPresent") not in _PULL_POLICIES:
        yield f"{name}: imagePullPolicy must be one of {', '.join(sorted(_PULL_POLICIES))}"
    if any(port.get("hostPort") for port in container.get("ports") or ()):
        yield f"{name}: hostPort is not allowed"
    if container.get("envFrom") or not all(_is_plain(variable) for variable in container.get("env") or ()):
        yield f"{name}: env must not refer to Secrets, ConfigMaps or other fields"
    if any(action.get("host") for action in _node_actions(container)):
        yield f"{name}: probes and hooks must not set host"
    yield from duplicates(container.get("env"), ("name",), f"{name}.env")
    yield from duplicates(container.get("ports"), ("containerPort", "protocol"), f"{name}.ports")


def _context_violations(context: Mapping[str, Any], name: str, *, is_shaper: bool) -> Iterator[str]:
    yield from unlisted(context, _CONTEXT | {"privileged"}, f"{name}.securityContext")
    if context.get("privileged"):
        yield f"{name}: privileged is not allowed"
    if context.get("allowPrivilegeEscalation") is not False:
        yield f"{name}: allowPrivilegeEscalation must be false"
    added = set((context.get("capabilities") or {}).get("add") or ())
    if added - ({"NET_ADMIN"} if is_shaper else set()):
        yield f"{name}: additional capabilities are not allowed"


def _node_actions(container: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the requests that the kubelet sends as probes or hooks. No network policy applies to them."""
    hooks = container.get("lifecycle") or {}
    senders = [container.get(name) for name in PROBES] + [hooks.get("postStart"), hooks.get("preStop")]
    for sender in senders:
        for action in ("httpGet", "tcpSocket"):
            yield (sender or {}).get(action) or {}


def _is_plain(variable: Mapping[str, Any]) -> bool:
    """Return True if a variable has a plain value, or refers to the name or address of its own pod."""
    if "valueFrom" not in variable:
        return True
    source = variable["valueFrom"]
    return (
        isinstance(source, Mapping)
        and set(source) == {"fieldRef"}
        and (source["fieldRef"] or {}).get("fieldPath") in _OWN_FIELDS
    )
