"""One Kubernetes object as a dict: its key, its kind's facts and order, and its canonical form.

In: parsed manifests and live objects, both plain dicts. Out: keys, sort keys, canonical dicts and text.
Nothing here knows experiments or ownership, reads files or speaks to a server. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import yaml

from nimlab.units import canonical_quantity

Manifest: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """The fixed facts of a kind: where its REST path is and when it is applied.

    `stage` orders what must exist before what: 0 namespaces, 1 policies and quotas, 2 configuration,
    3 Services, 4 workloads; deletion goes the other way.
    """

    name: str
    group: str
    version: str
    plural: str
    namespaced: bool
    stage: int

    @property
    def api_version(self) -> str:
        """`v1`, or `apps/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def group_kind(self) -> str:
        """`StatefulSet.apps`, or `Service` for the core group, as kubectl writes a set's scope."""
        return f"{self.name}.{self.group}" if self.group else self.name


def _kind(name: str, api_version: str, plural: str, stage: int, *, namespaced: bool = True) -> Kind:
    group, _, version = api_version.rpartition("/")
    return Kind(name=name, group=group, version=version, plural=plural, namespaced=namespaced, stage=stage)


KINDS: Final[Mapping[str, Kind]] = {
    kind.name: kind
    for kind in (
        _kind("Namespace", "v1", "namespaces", 0, namespaced=False),
        _kind("NetworkPolicy", "networking.k8s.io/v1", "networkpolicies", 1),
        _kind("ResourceQuota", "v1", "resourcequotas", 1),
        _kind("LimitRange", "v1", "limitranges", 1),
        _kind("ServiceAccount", "v1", "serviceaccounts", 1),
        _kind("Role", "rbac.authorization.k8s.io/v1", "roles", 1),
        _kind("RoleBinding", "rbac.authorization.k8s.io/v1", "rolebindings", 1),
        _kind("ClusterRole", "rbac.authorization.k8s.io/v1", "clusterroles", 1, namespaced=False),
        _kind(
            "ClusterRoleBinding", "rbac.authorization.k8s.io/v1", "clusterrolebindings", 1, namespaced=False
        ),
        _kind("ConfigMap", "v1", "configmaps", 2),
        _kind("Secret", "v1", "secrets", 2),
        _kind("PersistentVolumeClaim", "v1", "persistentvolumeclaims", 2),
        _kind("Service", "v1", "services", 3),
        _kind("PodDisruptionBudget", "policy/v1", "poddisruptionbudgets", 3),
        _kind("StatefulSet", "apps/v1", "statefulsets", 4),
        _kind("Deployment", "apps/v1", "deployments", 4),
        _kind("DaemonSet", "apps/v1", "daemonsets", 4),
        _kind("Pod", "v1", "pods", 4),
        _kind("Event", "v1", "events", 4),
        _kind("Lease", "coordination.k8s.io/v1", "leases", 2),
    )
}
"""Every kind that nimlab reads or writes, by name; no two groups share a kind's name here."""

WORKLOADS: Final = frozenset({"StatefulSet", "Deployment", "DaemonSet"})
"""The kinds whose pods are waited for."""


@dataclass(frozen=True, slots=True, order=True)
class ObjectKey:
    """Which object: kind, namespace (empty if cluster-scoped), name. Prints `Kind/namespace/name`."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        parts = (self.kind, self.namespace, self.name) if self.namespace else (self.kind, self.name)
        return "/".join(parts)

    @property
    def stage(self) -> int:
        """The stage of the key's kind; unknown kinds come last."""
        kind = KINDS.get(self.kind)
        return kind.stage if kind else 9


def key_of(manifest: Mapping[str, Any]) -> ObjectKey:
    """Return the key of a manifest or live object. Raises KeyError if kind or name is missing."""
    metadata = manifest["metadata"]
    return ObjectKey(manifest["kind"], metadata.get("namespace") or "", metadata["name"])


def apply_order(key: ObjectKey) -> tuple[int, str, str, str]:
    """Sort key: stage, namespace, kind, name. Deletion sorts by it in reverse."""
    return (key.stage, key.namespace, key.kind, key.name)


def labels_of(manifest: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the object's labels; empty when it has none."""
    return manifest["metadata"].get("labels") or {}


def annotations_of(manifest: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the object's annotations; empty when it has none."""
    return manifest["metadata"].get("annotations") or {}


def canonical(manifest: Mapping[str, Any]) -> Manifest:
    """Return the form in which the API server would store what is asked, keys sorted, nothing empty.

    Server-side apply remembers what was *sent*; whatever the server rewrites or leaves out would look like
    a difference for ever. So quantities get their canonical text, ports their protocol, and nulls and empty
    lists and maps that Go omits are dropped (docs/server-side-apply.md).
    Raises UnitError for a quantity that isn't one.
    """
    result = _clean(manifest, "")
    if not isinstance(result, dict):
        raise TypeError("a manifest is a map")
    result.pop("status", None)
    if result.get("kind") == "LimitRange" and isinstance(
        limits := result.get("spec", {}).get("limits"), list
    ):
        result["spec"]["limits"] = [_with_defaults(item) for item in limits]
    return result


def _with_defaults(limit: Manifest) -> Manifest:
    """Say what the server would fill in: the list is atomic, so any default in it would differ for ever.

    Source: Kubernetes' SetDefaults_LimitRangeItem (pkg/apis/core/v1/defaults.go).
    """
    if limit.get("type") != "Container":
        return limit
    default = {**limit.get("max", {}), **limit.get("default", {})}
    request = {**limit.get("min", {}), **default, **limit.get("defaultRequest", {})}
    filled = {**limit, "default": default, "defaultRequest": request}
    return {name: filled[name] for name in sorted(filled) if filled[name]}


_CONTAINERS: Final = (dict, list, tuple)  # a tuple of types is tried faster than a union
_DEPTH_LIMIT: Final = 100
_TEXTS: Final = frozenset({("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace")})
_MAPS: Final = frozenset({
    "metadata", "spec", "template", "data", "selector", "podSelector", "namespaceSelector", "securityContext",
    "resources", "capabilities",
})  # fmt: skip
_LISTS: Final = frozenset({
    "containers", "initContainers", "ephemeralContainers", "volumes", "volumeMounts", "env", "envFrom",
    "ports", "volumeClaimTemplates", "ingress", "egress",
})  # fmt: skip
_TEXT_MAPS: Final = frozenset({"labels", "annotations", "matchLabels", "nodeSelector"})
_SHAPED: Final = frozenset(path[-1] for path in _TEXTS) | _MAPS | _LISTS | _TEXT_MAPS
_QUANTITY_MAPS: Final = frozenset({"limits", "requests", "hard", "default", "defaultRequest", "max", "min"})
_QUANTITY_FIELDS: Final = frozenset({"sizeLimit", "storage"})
_FREE_MAPS: Final = _TEXT_MAPS | {"data"}
_MEANINGFUL_EMPTY: Final = frozenset({"podSelector", "namespaceSelector", "emptyDir", "securityContext"})
_ZERO_IS_ABSENT: Final = frozenset({
    "hostPort", "nodePort", "minReadySeconds", "initialDelaySeconds", "readOnly", "hostNetwork",
    "stdin", "paused", "publishNotReadyAddresses",
})  # fmt: skip


def _clean(value: Any, field: str) -> Any:  # noqa: ANN401 -- any JSON value
    """The value, canonical; `field` is the key that it stands under, directly or in a list."""
    if isinstance(value, dict):
        if field in _QUANTITY_MAPS and _holds_quantities(value):
            return {str(k): canonical_quantity(str(v)) for k, v in sorted(value.items())}
        return _clean_map(value, field)
    if isinstance(value, list | tuple):
        return [_clean(item, field) for item in value if item is not None]
    if field in _QUANTITY_FIELDS:
        return canonical_quantity(str(value))
    return value


def _clean_map(value: Mapping[str, Any], field: str) -> Manifest:
    free = field in _FREE_MAPS
    result: Manifest = {}
    for key in sorted(value):
        item = value[key]
        if item is None:
            continue
        if isinstance(item, _CONTAINERS) or (key in _QUANTITY_FIELDS and not free):
            item = _clean(item, key)
        if item or free or not _is_omitted(key, item):
            result[key] = item
    if field == "ports" and "protocol" not in result:
        return dict(sorted({**result, "protocol": "TCP"}.items()))
    return result


def _holds_quantities(value: Mapping[str, Any]) -> bool:
    return not any(isinstance(v, _CONTAINERS) for v in value.values())


def _is_omitted(key: str, item: object) -> bool:
    """True for an empty value that Go leaves out."""
    if item in ({}, []):
        return key not in _MEANINGFUL_EMPTY
    if key in _ZERO_IS_ABSENT:
        return item in (0, False)
    return key == "value" and item == ""


def parse_yaml(text: str) -> list[Any]:
    """Return the documents of a YAML text that we rendered ourselves; empty ones are left out.

    Raises UnreadableYamlError, also for a key that stands twice: the last one would win silently.
    """
    try:
        _check_bounded(text)
        return [d for d in yaml.load_all(text, Loader=_StrictLoader) if d is not None]
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # 2026-13-01 is a ValueError
        raise UnreadableYamlError(" ".join(str(error).split())) from error


def _check_bounded(text: str) -> None:
    """Refuse what can grow without end, or is so deep that libyaml's loader would crash the process."""
    depth = 0
    for event in yaml.parse(text, _StrictLoader):
        if getattr(event, "anchor", None) is not None:
            raise UnreadableYamlError("anchors and aliases are not allowed: they can grow without end")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _DEPTH_LIMIT:
            raise UnreadableYamlError(f"it is nested more than {_DEPTH_LIMIT} deep")


def misshapen(value: Any, path: tuple[str, ...] = ()) -> str | None:  # noqa: ANN401 -- any JSON
    """Return the path of what can't be part of any Kubernetes object, and what it should be; else None.

    So everything that works on manifests may rely on their coarse shape.
    """
    if isinstance(value, list):
        return next((found for item in value if (found := misshapen(item, path))), None)
    if not isinstance(value, dict):
        return None
    for key, item in value.items():
        if key not in _SHAPED and not isinstance(item, _CONTAINERS):
            continue  # most of a manifest
        here = (*path, key)
        wanted = _wrong_type(here, item)
        if wanted is not None:
            return f"{'.'.join(here)} must be {wanted}"
        if key not in _FREE_MAPS and (found := misshapen(item, here)):
            return found
    return None


def _wrong_type(path: tuple[str, ...], item: object) -> str | None:
    """What a field should be that is something else; null is nothing."""
    if item is None:
        return None
    if path in _TEXTS:
        return None if isinstance(item, str) else "text"
    if path[-1] in _TEXT_MAPS:
        fits = isinstance(item, dict) and all(isinstance(value, str) for value in item.values())
        return None if fits else "a map of texts"
    if path[-1] in _MAPS and path[0] != "rules":  # a Role's rules have other fields of these names
        return None if isinstance(item, dict) else "a map"
    if path[-1] in _LISTS:
        fits = isinstance(item, list) and all(isinstance(value, dict) for value in item)
        return None if fits else "a list of maps"
    return None


class UnreadableYamlError(ValueError):
    """The text isn't YAML, or holds a key twice."""


class _StrictLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc] # libyaml's where there is one
    """A safe loader that refuses duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 -- the base class's signature
        """Refuse a key that isn't text, or stands twice; the last one would win silently."""
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key isn't text", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key `{key.value}` stands twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)  # type: ignore[no-any-return] # the stubs don't know the C loader


def to_json_bytes(manifest: Mapping[str, Any]) -> bytes:
    """Return the body of a server-side apply, which the server parses as YAML."""
    return to_yaml_safe_json(manifest).encode()


def to_yaml_safe_json(value: object) -> str:
    r"""Return JSON that a YAML reader takes for the same value, whatever characters it holds.

    YAML readers mangle some characters and refuse others, so all of U+007F..U+FFFF is written as `\uXXXX`;
    what lies above is written as it is, since they refuse surrogate pairs (docs/server-side-apply.md).
    """
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return "".join(f"\\u{ord(c):04x}" if 0x7F <= ord(c) <= 0xFFFF else c for c in text)


def to_json_text(value: object) -> str:
    """Return canonical JSON: sorted keys, no spaces. Equal values give equal text."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def to_yaml(manifests: Iterable[Mapping[str, Any]]) -> str:
    """Return a YAML stream, one document an object, keys sorted; the same objects give the same bytes."""
    return "".join("---\n" + _dumped(dict(m), sort_keys=True) for m in manifests)


def to_yaml_text(value: object) -> str:
    """Return one YAML document for people to read: keys stay in the order in which they were written."""
    return _dumped(value, sort_keys=False)


def _dumped(value: object, *, sort_keys: bool) -> str:
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.dump(value, Dumper=dumper, sort_keys=sort_keys, allow_unicode=True, width=120)
    return text
