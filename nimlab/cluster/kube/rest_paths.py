"""REST paths of Kubernetes objects and collections.

In: kinds, keys, query parameters. Out: URL paths. No discovery is needed, because `KINDS` contains the paths
of all kinds.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, urlencode

from nimlab.objects.kinds_and_order import KINDS, Kind
from nimlab.objects.manifest import ObjectKey


def collection_path(kind: Kind, namespace: str | None) -> str:
    """Return the path of a kind's objects, in one namespace or, for None, in all namespaces."""
    base = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    return f"{base}/namespaces/{_segment(namespace)}/{kind.plural}" if namespace else f"{base}/{kind.plural}"


def object_path(key: ObjectKey) -> str:
    """Return the path of one object."""
    return f"{collection_path(KINDS[key.kind], key.namespace or None)}/{_segment(key.name)}"


def _segment(name: str) -> str:
    """Escape a name as one path segment, so that `/` and `?` cannot change the path.

    Dots need no escape, because a Kubernetes name never consists of dots only.
    """
    return quote(name, safe="")


def with_query(path: str, query: Mapping[str, str]) -> str:
    """Return the path with the query parameters that have a value."""
    text = urlencode({name: value for name, value in query.items() if value})
    return f"{path}?{text}" if text else path
