"""What a rendered manifest may be: checked on the parsed object, whatever the template did.

In: stamped manifests of one experiment. Out: nothing, or a GuardError that names every violation. A
template or a spec that tries to reach beyond its experiment ends here, before anything is sent. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from nimlab.errors import GuardError
from nimlab.files.placement_rules import priority_faults, selector_faults, toleration_faults
from nimlab.files.spec import Experiment, Isolation, Lab
from nimlab.objects.applyset import (
    EXPERIMENT,
    EXPERIMENT_KINDS,
    MEMBER,
    PART_OF,
    POD_SECURITY,
    ApplySet,
    member_reference,
)
from nimlab.objects.manifest import KINDS, Manifest, ObjectKey, annotations_of, key_of, labels_of

_NAME: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
"""RFC 1123, as the server has it: what is none could be read as a path on the way there."""
_RESERVED: Final = (
    "applyset.kubernetes.io/",
    "nimlab.dev/",
    "pod-security.kubernetes.io/",
    "kubectl.kubernetes.io/",
    "argocd.argoproj.io/",
    "kustomize.toolkit.fluxcd.io/",
)
_FORBIDDEN_METADATA: Final = (
    "ownerReferences", "finalizers", "managedFields", "generateName", "uid", "resourceVersion",
    "deletionTimestamp",
)  # fmt: skip
_POD: Final = frozenset({
    "activeDeadlineSeconds", "affinity", "automountServiceAccountToken", "containers", "dnsConfig",
    "dnsPolicy", "enableServiceLinks", "hostAliases", "hostname", "imagePullSecrets", "initContainers",
    "nodeSelector", "priorityClassName", "readinessGates", "restartPolicy", "securityContext",
    "serviceAccountName", "setHostnameAsFQDN", "shareProcessNamespace", "subdomain",
    "terminationGracePeriodSeconds", "tolerations", "topologySpreadConstraints", "volumes",
})  # fmt: skip
"""What pods may say of themselves; devices, other runtimes and schedulers touch other pods."""
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
PROBES: Final = ("livenessProbe", "readinessProbe", "startupProbe")
SHAPER: Final = "shape"
"""Name of the one init container that may have NET_ADMIN: it sets the limits of a peer's link."""
_SHAPER: Final = frozenset({
    "args", "command", "image", "imagePullPolicy", "name", "resources", "securityContext",
    "terminationMessagePolicy",
})  # fmt: skip
_SHAPER_COMMAND: Final = ["python3", "-m", "nimlab.agents.shape"]
_SYSCTL: Final = {"name": "net.ipv4.ping_group_range", "value": "65534 65534"}
"""The one setting of the kernel that pods may have: the group that may send ICMP echoes."""
_OWN_FIELDS: Final = frozenset({"metadata.name", "status.podIP"})
"""What a container may be told of its own pod: nothing that leads to the node or to a secret."""


def check_manifests(
    manifests: Sequence[Manifest], experiment: Experiment, lab: Lab, apply_set: ApplySet
) -> None:
    """Raise GuardError if any manifest is more than this experiment may be; all violations are named."""
    refuse_violations(
        manifests,
        lambda manifest: _violations(manifest, experiment, lab, apply_set),
        f"`{experiment.source}` or a template asks for what no experiment may have",
    )


def refuse_violations(
    manifests: Sequence[Manifest], violations: Callable[[Manifest], Iterable[str]], hint: str
) -> None:
    """Raise a GuardError that names all violations, and every object that is made twice."""
    found: list[tuple[ObjectKey, str]] = []
    seen: set[ObjectKey] = set()
    for manifest in manifests:
        key = key_of(manifest)
        if key in seen:
            found.append((key, "two templates make it"))
        seen.add(key)
        found += [(key, what) for what in violations(manifest)]
    if found:
        more = "".join(f"\n  {key}: {what}" for key, what in found[1:20])
        raise GuardError(found[0][1] + more, where=found[0][0], hint=hint)


def check_unmarked(manifests: Sequence[Manifest], experiment: Experiment) -> None:
    """Raise GuardError if a template sets a mark of ownership itself: stamping would hide that."""
    for manifest in manifests:
        marks = sorted({PART_OF, MEMBER} & {*labels_of(manifest), *annotations_of(manifest)})
        if marks:
            raise GuardError(
                f"metadata: {marks[0]} is reserved",
                where=key_of(manifest),
                hint=f"leave it to nimlab; `{experiment.source}` or a template sets it",
            )


def check_unique(by_experiment: Mapping[str, Sequence[Manifest]]) -> None:
    """Raise GuardError if two experiments make the same object."""
    owner: dict[ObjectKey, str] = {}
    for name, manifests in by_experiment.items():
        for manifest in manifests:
            key = key_of(manifest)
            if owner.setdefault(key, name) != name:
                raise GuardError(
                    f"the experiments `{owner[key]}` and `{name}` both make it",
                    where=key,
                    hint="rename one of them",
                )


def _violations(manifest: Manifest, experiment: Experiment, lab: Lab, apply_set: ApplySet) -> Iterator[str]:
    key = key_of(manifest)
    kind = KINDS.get(key.kind)
    own_namespace = experiment.contract.isolation is Isolation.NAMESPACE
    if key.kind == "Namespace" and own_namespace:
        if key.name != experiment.namespace or key.name == lab.namespace:
            yield f"an experiment's namespace is `{experiment.namespace}`"
    elif kind is None or key.kind not in EXPERIMENT_KINDS:
        yield "no experiment may have objects of this kind"
        return
    elif key.namespace != experiment.namespace:
        yield f"its namespace must be `{experiment.namespace}`"
    if kind is not None and manifest["apiVersion"] != kind.api_version:
        yield f"its apiVersion must be `{kind.api_version}`"
    if key.kind != "Namespace" and not _is_own_name(key.name, experiment):
        yield f"its name must be `{experiment.full_name}`, or that and a suffix after `-`"
    yield from membership_violations(manifest, apply_set, POD_SECURITY if key.kind == "Namespace" else {})
    yield from _experiment_violations(manifest, experiment)
    yield from _kind_violations(manifest, experiment, lab)


def _is_own_name(name: str, experiment: Experiment) -> bool:
    """Whether a name belongs to this experiment; suffixes of neighbours are caught by `check_unique`."""
    workloads = (experiment.workload_of(group) for group in experiment.groups)
    own = {experiment.full_name, experiment.service, *workloads}
    return name in own or name.startswith(experiment.full_name + "-")


def membership_violations(manifest: Manifest, apply_set: ApplySet, marks: Mapping[str, str]) -> Iterator[str]:
    """Yield what keeps an object from being a member like any other: what is reserved, or the server's.

    `marks` are reserved labels that its set has beside those of every set.
    """
    metadata = manifest["metadata"]
    for field in ("name", "namespace"):
        if field in metadata and not _NAME.fullmatch(str(metadata[field])):
            yield f"metadata.{field} must be lower-case letters, digits, `-` and `.`, at most 253 of them"
    yield from (f"metadata.{name} is not to be set" for name in _FORBIDDEN_METADATA if name in metadata)
    if "status" in manifest:
        yield "status is the server's"
    expected = {PART_OF: apply_set.id, MEMBER: member_reference(key_of(manifest), apply_set), **marks}
    if labels_of(manifest).get(PART_OF) != expected[PART_OF]:
        yield "it lacks the set's label"
    if annotations_of(manifest).get(MEMBER) != expected[MEMBER]:
        yield "it lacks the annotation that names it"
    yield from reserved_marks(metadata, expected)


def _experiment_violations(manifest: Manifest, experiment: Experiment) -> Iterator[str]:
    if labels_of(manifest).get(EXPERIMENT) != experiment.name:
        yield f"its label `{EXPERIMENT}` must be `{experiment.name}`"
    template = (manifest.get("spec") or {}).get("template")
    if isinstance(template, Mapping):
        inner = template.get("metadata") or {}
        yield from unlisted(inner, frozenset({"annotations", "labels"}), "its pods' metadata")
        if any("apparmor" in name for name in inner.get("annotations") or ()):
            yield "its pods' AppArmor profile is the node's to choose"
        yield from reserved_marks(inner, {})
        if (inner.get("labels") or {}).get(EXPERIMENT) != experiment.name:
            yield f"its pods' label `{EXPERIMENT}` must be `{experiment.name}`"


def reserved_marks(metadata: Mapping[str, Any], expected: Mapping[str, str]) -> Iterator[str]:
    """Yield labels and annotations that aren't strings, or reserved and not as expected."""
    for field in ("labels", "annotations"):
        for name, value in (metadata.get(field) or {}).items():
            if not isinstance(value, str):
                yield f"metadata.{field}[{name}] must be a string"
            elif name.startswith(_RESERVED) and expected.get(name) != value:
                yield f"metadata.{field}[{name}] is reserved"
            elif name == "app.kubernetes.io/managed-by" and value != "nimlab":
                yield f"metadata.{field}[{name}] must be `nimlab`"


def _kind_violations(manifest: Manifest, experiment: Experiment, lab: Lab) -> Iterator[str]:
    spec = manifest.get("spec") or {}
    kind = manifest["kind"]
    if kind == "Service":
        yield from (f"spec.{name} is not to be set" for name in _FORBIDDEN_SERVICE if name in spec)
        if spec.get("type", "ClusterIP") != "ClusterIP":
            yield "a Service of an experiment is of type ClusterIP"
        if (spec.get("selector") or {}).get(EXPERIMENT) != experiment.name:
            yield "spec.selector must select the experiment"
        yield from duplicates(spec.get("ports"), ("port", "protocol"), "spec.ports")
    elif kind == "StatefulSet":
        labels = (spec.get("selector") or {}).get("matchLabels") or {}
        if labels.get(EXPERIMENT) != experiment.name:
            yield "spec.selector must select the experiment"
        if spec.get("volumeClaimTemplates"):
            yield "spec.volumeClaimTemplates are not for experiments: they outlive them"
        yield from _pod_violations((spec.get("template") or {}).get("spec") or {}, lab)
    elif kind in ("NetworkPolicy", "PodDisruptionBudget"):
        selector = spec.get("podSelector" if kind == "NetworkPolicy" else "selector") or {}
        if (selector.get("matchLabels") or {}).get(EXPERIMENT) != experiment.name:
            yield "its pod selector must select the experiment"


def _pod_violations(pod: Mapping[str, Any], lab: Lab) -> Iterator[str]:
    yield from unlisted({name: value for name, value in pod.items() if value}, _POD, "pods")
    yield from unlisted(pod.get("securityContext") or {}, _POD_CONTEXT, "pods: securityContext")
    if pod.get("serviceAccountName", "default") != "default":
        yield "pods: serviceAccountName is not to be set"
    if pod.get("automountServiceAccountToken") is not False:
        yield "pods: automountServiceAccountToken must be false"
    if any(one != _SYSCTL for one in (pod.get("securityContext") or {}).get("sysctls") or ()):
        yield f"pods: sysctls are not to be set, but for {_SYSCTL['name']} of `{_SYSCTL['value']}`"
    yield from _placement_violations(pod)
    for volume in pod.get("volumes") or ():
        odd = sorted(set(volume) - {"name", "configMap", "emptyDir", "downwardAPI"})
        if odd:
            yield f"pods: a volume may not be `{odd[0]}`"
    yield from duplicates(pod.get("volumes"), ("name",), "volumes")
    for field in ("initContainers", "containers"):
        for container in pod.get(field) or ():
            name = f"{field}[{container.get('name')}]"
            is_shaper = field == "initContainers" and _is_shaper(container, lab)
            yield from _container_violations(container, name, is_shaper=is_shaper)
            if effective_context(pod, container).get("seccompProfile") != {"type": "RuntimeDefault"}:
                yield f"{name}: its seccompProfile must be `RuntimeDefault`"
        yield from duplicates(pod.get(field), ("name",), field)


def _placement_violations(pod: Mapping[str, Any]) -> Iterator[str]:
    """Yield what of a pod reaches for nodes, priority or credentials that are not an experiment's."""
    for toleration in pod.get("tolerations") or ():
        yield from (f"pods: tolerations: {what}" for what in toleration_faults(toleration))
    yield from (f"pods: nodeSelector: {what}" for what in selector_faults(pod.get("nodeSelector") or {}))
    yield from (
        f"pods: priorityClassName: {what}" for what in priority_faults(pod.get("priorityClassName") or "")
    )
    for secret in pod.get("imagePullSecrets") or ():
        yield from unlisted(secret, frozenset({"name"}), "pods: imagePullSecrets")
        if not _NAME.fullmatch(str(secret.get("name") or "")):
            yield "pods: imagePullSecrets: each needs the name of a Secret"
    yield from duplicates(pod.get("imagePullSecrets"), ("name",), "pods: imagePullSecrets")
    rules = pod.get("topologySpreadConstraints")
    yield from duplicates(rules, ("topologyKey", "whenUnsatisfiable"), "pods: topologySpreadConstraints")


def _is_shaper(container: Mapping[str, Any], lab: Lab) -> bool:
    """Whether it is ours and does what ours does: the name alone would let any program have NET_ADMIN.

    So would a folder or an env variable from which Python takes another `nimlab.agents.shape`.
    """
    return (
        container.get("name") == SHAPER
        and container.get("image") == str(lab.images.nimlab)
        and container.get("command") == _SHAPER_COMMAND
        and container.keys() <= _SHAPER
    )


def _container_violations(container: Mapping[str, Any], name: str, *, is_shaper: bool) -> Iterator[str]:
    context = container.get("securityContext") or {}
    yield from unlisted(context, _CONTEXT | {"privileged"}, f"{name}.securityContext")
    if context.get("privileged"):
        yield f"{name} may not be privileged"
    if context.get("allowPrivilegeEscalation") is not False:
        yield f"{name}: allowPrivilegeEscalation must be false"
    added = set((context.get("capabilities") or {}).get("add") or ())
    if added - ({"NET_ADMIN"} if is_shaper else set()):
        yield f"{name} may not add capabilities"
    if container.get("imagePullPolicy", "IfNotPresent") not in _PULL_POLICIES:
        yield f"{name}: imagePullPolicy must be one of {', '.join(sorted(_PULL_POLICIES))}"
    if any(port.get("hostPort") for port in container.get("ports") or ()):
        yield f"{name} may not use a hostPort"
    if container.get("envFrom") or not all(_is_own(e) for e in container.get("env") or ()):
        yield f"{name}: env comes from the contract alone"
    if any(action.get("host") for action in _node_actions(container)):
        yield f"{name}: probes and hooks ask the pod itself, no other host"
    yield from duplicates(container.get("env"), ("name",), f"{name}.env")
    yield from duplicates(container.get("ports"), ("containerPort", "protocol"), f"{name}.ports")


def _node_actions(container: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What the node asks for a container: from its own network, so with reach beyond any policy."""
    hooks = container.get("lifecycle") or {}
    for asker in [container.get(name) for name in PROBES] + [hooks.get("postStart"), hooks.get("preStop")]:
        for action in ("httpGet", "tcpSocket"):
            yield (asker or {}).get(action) or {}


def _is_own(variable: Mapping[str, Any]) -> bool:
    """Whether a variable is a plain value, or the pod's own name or address."""
    if "valueFrom" not in variable:
        return True
    source = variable["valueFrom"]
    return (
        isinstance(source, Mapping)
        and set(source) == {"fieldRef"}
        and (source["fieldRef"] or {}).get("fieldPath") in _OWN_FIELDS
    )


def effective_context(pod: Mapping[str, Any], container: Mapping[str, Any]) -> dict[str, Any]:
    """Return the security context as Kubernetes puts it together: the pod's, overlaid by the container's."""
    one, other = pod.get("securityContext") or {}, container.get("securityContext") or {}
    return {**one, **{name: value for name, value in other.items() if value is not None}}


def unlisted(fields: Mapping[str, Any], allowed: Collection[str], where: str) -> Iterator[str]:
    """Yield the fields that no list names, whatever their value: what is new to us is refused."""
    yield from (f"{where}: {name} is not to be set" for name in sorted(fields.keys() - set(allowed)))


def duplicates(items: Any, keys: tuple[str, ...], where: str) -> Iterator[str]:  # noqa: ANN401 -- any JSON
    """Yield what stands twice in a list that the server merges by these keys."""
    seen = set()
    for item in items or ():
        value = tuple(str(item.get(key)) for key in keys)
        if value in seen:
            yield f"{where}: {'/'.join(value)} stands twice"
        seen.add(value)
