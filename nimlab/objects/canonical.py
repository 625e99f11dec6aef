"""Canonical form of a manifest: what the server would store if it were applied.

In: a parsed manifest. Out: the same in canonical form, or the reason why it has the wrong shape. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from nimlab.objects.manifest import Manifest
from nimlab.units import canonical_quantity


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


def shape_fault(value: Any, path: tuple[str, ...] = ()) -> str | None:  # noqa: ANN401 -- any JSON
    """Return the path of what can't be part of any Kubernetes object, and what it should be; else None.

    So everything that works on manifests may rely on their coarse shape.
    """
    if isinstance(value, list):
        return next((found for item in value if (found := shape_fault(item, path))), None)
    if not isinstance(value, dict):
        return None
    for key, item in value.items():
        if key not in _SHAPED and not isinstance(item, _CONTAINERS):
            continue  # most of a manifest
        here = (*path, key)
        wanted = _wrong_type(here, item)
        if wanted is not None:
            return f"{'.'.join(here)} must be {wanted}"
        if key not in _FREE_MAPS and (found := shape_fault(item, here)):
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
