"""Manifests of Kubernetes objects: keys, sort order, labels and annotations.

In: parsed manifests and live objects, as dicts. Out: object keys, sort keys, labels and annotations. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from nimlab.objects.kinds_and_order import KINDS

Manifest: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True, order=True)
class ObjectKey:
    """Kind, namespace and name of an object; the namespace of a cluster-scoped object is empty.

    The text form is `Kind/namespace/name`, or `Kind/name` for a cluster-scoped object.
    """

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        parts = (self.kind, self.namespace, self.name) if self.namespace else (self.kind, self.name)
        return "/".join(parts)

    @property
    def stage(self) -> int:
        """The stage of the kind; objects of unknown kinds are applied after all other objects."""
        kind = KINDS.get(self.kind)
        return kind.stage if kind else 9


def key_of(manifest: Mapping[str, Any]) -> ObjectKey:
    """Return the key of a manifest or live object. Raises KeyError if the kind or the name is missing."""
    metadata = manifest["metadata"]
    return ObjectKey(manifest["kind"], metadata.get("namespace") or "", metadata["name"])


def apply_order(key: ObjectKey) -> tuple[int, str, str, str]:
    """Return the sort key for applying: stage, namespace, kind, name. Deletion uses the reverse order."""
    return (key.stage, key.namespace, key.kind, key.name)


def labels_of(manifest: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the object's labels; empty if it has none."""
    return manifest["metadata"].get("labels") or {}


def annotations_of(manifest: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the object's annotations; empty if it has none."""
    return manifest["metadata"].get("annotations") or {}
