"""Immutable fields: changes that the API server rejects, so that the object must be replaced.

In: manifests and live objects. Out: the paths of such changes, and whether a new object adopts the old peers.
Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from nimlab.objects.manifest import Manifest

_MUTABLE: Final[Mapping[str, frozenset[str]]] = {
    # source: kubernetes, pkg/apis/apps/validation; revisionHistoryLimit is mutable since 1.32
    "StatefulSet": frozenset({
        "replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy", "minReadySeconds",
    }),
}  # fmt: skip


_IMMUTABLE: Final[Mapping[str, frozenset[str]]] = {
    "Deployment": frozenset({"selector"}),
    "DaemonSet": frozenset({"selector"}),
    "Service": frozenset({"clusterIP"}),
}


def immutable_changes(desired: Manifest, live: Manifest) -> tuple[str, ...]:
    """Return the paths of changed fields that the server refuses to change in place; sorted.

    nimlab compares the fields itself, because the server's response (status 422) does not contain the name of
    the field, and this status has many other causes.
    """
    kind = desired["kind"]
    changed = [
        f"spec.{name}"
        for name, value in (desired.get("spec") or {}).items()
        if _is_immutable(kind, name) and not _covers(value, (live.get("spec") or {}).get(name))
    ]
    if kind == "RoleBinding" and desired.get("roleRef") != live.get("roleRef"):
        changed.append("roleRef")
    if live.get("immutable") and kind in ("ConfigMap", "Secret"):
        changed.extend(k for k in ("data", "binaryData") if desired.get(k) != live.get(k))
    return tuple(sorted(changed))


def replacement_trial(desired: Manifest) -> Manifest:
    """Return the object with another name, for a dry run of a replacement.

    With its own name, the server would reject the change of the immutable field, or report that the object
    already exists.
    """
    return {**desired, "metadata": {**desired["metadata"], "name": f"{desired['metadata']['name']}-new"}}


def adopts_peers(desired: Manifest, live: Manifest) -> bool:
    """Return True if the selector of a new StatefulSet would match the peers of the live StatefulSet."""
    if live["kind"] != "StatefulSet":
        return True
    selector = desired["spec"].get("selector") or {}
    labels = (live["spec"]["template"].get("metadata") or {}).get("labels") or {}
    live_selector = live["spec"].get("selector") or {}
    same_expressions = selector.get("matchExpressions") == live_selector.get("matchExpressions")
    return same_expressions and all(
        labels.get(name) == value for name, value in selector.get("matchLabels", {}).items()
    )


def _is_immutable(kind: str, name: str) -> bool:
    if kind in _MUTABLE:
        return name not in _MUTABLE[kind]
    return name in _IMMUTABLE.get(kind, frozenset())


def _covers(wanted: object, live: Any) -> bool:  # noqa: ANN401 -- any JSON value
    """Return True if `live` contains all values of `wanted`; additional map keys in `live` are ignored."""
    if isinstance(wanted, Mapping):
        return isinstance(live, Mapping) and all(_covers(v, live.get(k)) for k, v in wanted.items())
    if isinstance(wanted, list):
        return (
            isinstance(live, list)
            and len(live) == len(wanted)
            and all(_covers(a, b) for a, b in zip(wanted, live, strict=True))
        )
    return bool(wanted == live)
