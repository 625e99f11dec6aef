"""Check the bodies of successful responses: objects, pages of lists, watch events, discovery.

In: the JSON of a response with status 200. Out: the checked value, or Unreachable. A proxy, a gateway or an
aggregated server can respond with status 200 and any body. If a list were incomplete, nimlab would regard the
missing objects as deleted. Only the fields that all objects have are checked. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from nimlab.cluster.interface import Listing, WatchEvent
from nimlab.errors import IncompleteDiscovery, Unreachable
from nimlab.objects.kinds_and_order import KINDS
from nimlab.objects.manifest import Manifest, ObjectKey

_STRING_FIELDS: Final = ("name", "namespace", "uid", "resourceVersion", "deletionTimestamp")
_MAP_FIELDS: Final = ("labels", "annotations")
_LIST_FIELDS: Final = {"finalizers": str, "managedFields": dict, "ownerReferences": dict}
_SECTIONS: Final = ("data", "spec", "status")
_METADATA_LIST: Final = "PartialObjectMetadataList"


def parse_object(value: Manifest, key: ObjectKey, *, verb: str) -> Manifest:
    """Return the body if it is the object with this key. Raises Unreachable."""
    kind = KINDS[key.kind]
    _require(value.get("kind") == kind.name and value.get("apiVersion") == kind.api_version, verb, key)
    _require(_is_object(value) and bool(value["metadata"].get("uid")), verb, key)
    _require(value["metadata"]["name"] == key.name, verb, key)
    _require((value["metadata"].get("namespace") or "") == key.namespace, verb, key)
    return value


def parse_page(value: Manifest, kind: str) -> tuple[Listing, str]:
    """Return a page of a list and the `continue` token; the last page's token is empty. Raises Unreachable.

    A list of metadata may come from an aggregated server. Its virtual objects may have no uid and no version,
    and its empty list may be `null`.
    """
    metadata, items = value.get("metadata"), value.get("items")
    is_metadata = value.get("kind") == _METADATA_LIST
    _require(is_metadata or value.get("kind") in (f"{kind}List", "List"), "list", kind)
    if is_metadata and "items" in value and items is None:
        items = []
    if not isinstance(metadata, dict) or not isinstance(items, list):
        raise _mismatch("list", kind)
    version, token = metadata.get("resourceVersion") or "", metadata.get("continue") or ""
    if not isinstance(version, str) or not isinstance(token, str):
        raise _mismatch("list", kind)
    _require(bool(token) or not metadata.get("remainingItemCount"), "list", kind)
    _require(all(_is_object(item) for item in items), "list", kind)
    _require(is_metadata or all((version, *(item["metadata"].get("uid") for item in items))), "list", kind)
    return Listing(items=tuple(items), resource_version=version, more=bool(token)), token


def parse_event(line: bytes, *, where: str) -> WatchEvent:
    """Return the watch event in a line. Raises Unreachable."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _mismatch("watch", where) from error
    if not isinstance(event, dict) or not isinstance(event.get("object"), dict):
        raise _mismatch("watch", where)
    is_complete = event.get("type") in ("ERROR", "BOOKMARK") or _is_object(event["object"])
    _require(isinstance(event.get("type"), str) and is_complete, "watch", where)
    return WatchEvent(type=event["type"], object=event["object"])


def parse_discovery(value: Manifest, *, where: str) -> list[tuple[str, str, str, str]]:
    """Return (group, version, plural, kind) of every kind that can be listed in a namespace.

    Each kind is returned once, with the newest version that contains it: an older version of a group can
    contain kinds that are missing from the newest version. Raises IncompleteDiscovery if the server cannot
    list all kinds. Raises Unreachable if the body is malformed.
    """
    if value.get("kind") != "APIGroupDiscoveryList":
        raise IncompleteDiscovery(
            "the server does not support aggregated discovery",
            where=where,
            hint="nimlab deletes a namespace only if it can list all objects in it",
        )
    kinds: dict[tuple[str, str], tuple[str, str, str, str]] = {}
    try:
        for group in value["items"]:
            name = group["metadata"].get("name", "")
            for version in group["versions"]:
                for resource in _resources(version, name):
                    if resource["scope"] == "Namespaced" and "list" in resource["verbs"]:
                        plural, kind = resource["resource"], resource["responseKind"]["kind"]
                        kinds.setdefault((name, plural), (name, version["version"], plural, kind))
    except (AttributeError, KeyError, TypeError) as error:
        raise _mismatch("get", where) from error
    are_strings = all(isinstance(part, str) for parts in kinds.values() for part in parts)
    _require(bool(kinds) and are_strings, "get", where)
    return list(kinds.values())


def _resources(version: Mapping[str, Any], group: str) -> list[Mapping[str, Any]]:
    """Return the resources of a version. Raises IncompleteDiscovery if they are stale.

    If an aggregated server does not respond, its resources are stale: they are missing or outdated.
    """
    if version.get("freshness", "Current") != "Current":
        raise IncompleteDiscovery(
            f"the API service {group}/{version['version']} does not respond, so its objects cannot be listed",
            where="/apis",
            hint="run `kubectl get apiservices` to see its status",
        )
    resources: list[Mapping[str, Any]] = version["resources"]
    return resources


def _is_object(value: object) -> bool:
    """Return True if the fields that all objects have are present and have the right types."""
    if not isinstance(value, dict) or not isinstance(value.get("metadata"), dict):
        return False
    metadata = value["metadata"]
    return (
        bool(metadata.get("name"))
        and all(isinstance(metadata.get(field) or "", str) for field in _STRING_FIELDS)
        and all(_is_string_map(metadata.get(field) or {}) for field in _MAP_FIELDS)
        and all(_is_list_of(metadata.get(field) or [], kind) for field, kind in _LIST_FIELDS.items())
        and all(isinstance(value.get(field) or {}, dict) for field in _SECTIONS)
    )


def _is_string_map(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def _is_list_of(value: object, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def _require(condition: bool, verb: str, where: object) -> None:  # noqa: FBT001 -- the call reads like an assertion
    if not condition:
        raise _mismatch(verb, where)


def _mismatch(verb: str, where: object) -> Unreachable:
    hint = (
        "check whether a proxy or gateway answers instead of the API server; otherwise run the command again"
    )
    return Unreachable(f"{verb}: the response does not match the request", where=where, hint=hint)
