"""Canonical form of a manifest: the form in which the API server would store it.

In: a parsed manifest. Out: the manifest in canonical form, or a message about the first field whose type is
wrong. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from nimlab.objects.manifest import Manifest
from nimlab.units import canonical_quantity


def canonical(manifest: Mapping[str, Any]) -> Manifest:
    """Return the manifest as the API server would store it, with sorted keys.

    Server-side apply records the fields that a client *sends*. Every plan would therefore show a difference
    for a value that the server rewrites or omits. To prevent this, quantities are written in canonical form,
    ports without a protocol get the protocol TCP, and a LimitRange gets its defaults. Null values, and empty
    values that the server omits, are removed (docs/server-side-apply.md). `status` is removed too.

    Raises UnitError for a malformed quantity.
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
    """Return an item of a LimitRange's `limits` with the server's defaults.

    The list `limits` is atomic, so every plan would show a difference if a default were missing.

    Source: Kubernetes' SetDefaults_LimitRangeItem (pkg/apis/core/v1/defaults.go).
    """
    if limit.get("type") != "Container":
        return limit
    default = {**limit.get("max", {}), **limit.get("default", {})}
    request = {**limit.get("min", {}), **default, **limit.get("defaultRequest", {})}
    filled = {**limit, "default": default, "defaultRequest": request}
    return {name: filled[name] for name in sorted(filled) if filled[name]}


_CONTAINERS: Final = (dict, list, tuple)  # isinstance is faster with a tuple of types than with a union
_TEXT_MAPS: Final = frozenset({"labels", "annotations", "matchLabels", "nodeSelector"})
_FREE_MAPS: Final = _TEXT_MAPS | {"data"}
"""Maps whose keys the user chooses; a key in such a map has no meaning for Kubernetes."""
QUANTITY_MAPS: Final = frozenset({
    "limits", "requests", "hard", "overhead", "default", "defaultRequest", "max", "min",
})  # fmt: skip
"""Maps whose values are quantities."""
QUANTITY_FIELDS: Final = frozenset({"sizeLimit", "storage"})
"""Fields whose values are quantities in every map, except in the maps in `_FREE_MAPS`."""
_MEANINGFUL_EMPTY: Final = frozenset({"podSelector", "namespaceSelector", "emptyDir", "securityContext"})
_ZERO_IS_ABSENT: Final = frozenset({
    "hostPort", "nodePort", "minReadySeconds", "initialDelaySeconds", "readOnly", "hostNetwork",
    "stdin", "paused", "publishNotReadyAddresses",
})  # fmt: skip


def is_quantity(parent: str, field: str) -> bool:
    """Return True if a scalar `field` in the map `parent` is a quantity."""
    return parent in QUANTITY_MAPS or (field in QUANTITY_FIELDS and parent not in _FREE_MAPS)


def _clean(value: Any, field: str) -> Any:  # noqa: ANN401 -- any JSON value
    """Return the value in canonical form; `field` is its key, or the key of the list that contains it."""
    if isinstance(value, dict):
        if field in QUANTITY_MAPS and _holds_quantities(value):
            return {str(k): canonical_quantity(str(v)) for k, v in sorted(value.items())}
        return _clean_map(value, field)
    if isinstance(value, list | tuple):
        return [_clean(item, field) for item in value if item is not None]
    if field in QUANTITY_FIELDS:
        return canonical_quantity(str(value))
    return value


def _clean_map(value: Mapping[str, Any], field: str) -> Manifest:
    free = field in _FREE_MAPS
    result: Manifest = {}
    for key in sorted(value):
        item = value[key]
        if item is None:
            continue
        if isinstance(item, _CONTAINERS) or (key in QUANTITY_FIELDS and not free):
            item = _clean(item, key)
        if item or free or not _is_omitted(key, item):
            result[key] = item
    if field == "ports" and "protocol" not in result:
        return dict(sorted({**result, "protocol": "TCP"}.items()))
    return result


def _holds_quantities(value: Mapping[str, Any]) -> bool:
    return not any(isinstance(v, _CONTAINERS) for v in value.values())


def _is_omitted(key: str, item: object) -> bool:
    """Return True for an empty value that Go's JSON encoder omits."""
    if item in ({}, []):
        return key not in _MEANINGFUL_EMPTY
    if key in _ZERO_IS_ABSENT:
        return item in (0, False)
    return key == "value" and item == ""


_TEXTS: Final = frozenset({("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace")})
_MAPS: Final = frozenset({
    "metadata", "spec", "template", "data", "selector", "podSelector", "namespaceSelector", "securityContext",
    "resources", "capabilities",
})  # fmt: skip
_LISTS: Final = frozenset({
    "containers", "initContainers", "ephemeralContainers", "volumes", "volumeMounts", "env", "envFrom",
    "ports", "volumeClaimTemplates", "ingress", "egress",
})  # fmt: skip
_CHECKED: Final = frozenset(path[-1] for path in _TEXTS) | _MAPS | _LISTS | _TEXT_MAPS


def shape_fault(value: Any, path: tuple[str, ...] = ()) -> str | None:  # noqa: ANN401 -- any JSON
    """Return a message about the first field with an invalid type; None if all types are valid.

    The message contains the path and the required type. Other modules rely on the types that this function
    checks.
    """
    if isinstance(value, list):
        return next((fault for item in value if (fault := shape_fault(item, path))), None)
    if not isinstance(value, dict):
        return None
    for key, item in value.items():
        if key not in _CHECKED and not isinstance(item, _CONTAINERS):
            continue  # most fields of a manifest need no check
        item_path = (*path, key)
        required = _required_type(item_path, item)
        if required is not None:
            return f"{'.'.join(item_path)} must be {required}"
        if key not in _FREE_MAPS and (fault := shape_fault(item, item_path)):
            return fault
    return None


def _required_type(path: tuple[str, ...], item: object) -> str | None:
    """Return the type that a field must have; None if it already has this type or is null."""
    if item is None:
        return None
    if path in _TEXTS:
        return None if isinstance(item, str) else "text"
    if path[-1] in _TEXT_MAPS:
        fits = isinstance(item, dict) and all(isinstance(value, str) for value in item.values())
        return None if fits else "a map of texts"
    if path[-1] in _MAPS and path[0] != "rules":  # in a Role's `rules`, `resources` is a list
        return None if isinstance(item, dict) else "a map"
    if path[-1] in _LISTS:
        fits = isinstance(item, list) and all(isinstance(value, dict) for value in item)
        return None if fits else "a list of maps"
    return None
