"""Defaults: an experiment's spec overrides `defaults` of lab.yaml, which override built-in values.

In: nested maps, as files contain them. Out: nested or flat maps. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from nimlab.files.spec import Lab

BUILT_IN: Final[Mapping[str, Any]] = {
    "peers": 2,
    "resources": {"cpu": "50m", "memory": "16Mi"},
    "network": {"method": "tc"},
    "rtt": {"enabled": True, "interval": "5s", "fanout": 8, "methods": ["tcp"]},
    "rollout": "together",
    "onImmutableChange": "fail",
}
POD_FIELDS: Final = frozenset({
    "roles", "env", "args", "nodeSelector", "tolerations", "priorityClassName", "imagePullSecrets",
    "imagePullPolicy", "topologySpread", "start",
})  # fmt: skip
"""Fields that configure the peers' pods."""
NIMLAB_FIELDS: Final = frozenset({
    "contract", "image", "peers", "resources", "network", "rtt", "rollout", "onImmutableChange",
}) | POD_FIELDS  # fmt: skip
"""Fields that nimlab itself uses. A contract can pass on all other fields, and `peers`, to the image."""


def with_defaults(spec: Mapping[str, Any], lab: Lab) -> dict[str, Any]:
    """Return an experiment's spec with the lab's defaults and the built-in values filled in."""
    return merged(merged(BUILT_IN, lab.defaults), spec)


def merged(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Return both maps merged recursively; a value of `upper` that is not a map replaces that of `lower`."""
    result = dict(lower)
    for key, value in upper.items():
        old = result.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            result[key] = merged(old, value)
        else:
            result[key] = value
    return result


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested maps as one flat map, whose keys are dotted names such as `message.size`."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            result.update({f"{key}.{name}": inner for name, inner in flat(value).items()})
        else:
            result[key] = value
    return result


def contract_fields_in(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a flat map with the fields that are meant for the image, by dotted name.

    `spec` may violate the schema, so its maps are flattened by one level only.
    """
    result: dict[str, Any] = {}
    for key, value in spec.items():
        if key in NIMLAB_FIELDS:
            continue
        if isinstance(value, Mapping):
            result.update({f"{key}.{name}": inner for name, inner in value.items()})
        else:
            result[key] = value
    return result
