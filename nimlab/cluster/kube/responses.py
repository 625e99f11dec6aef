"""What a body has to hold to be the answer to what was asked: objects, pages, events and kinds.

In: the JSON of an answer that says it went well. Out: the same, or Unreachable: a proxy, a gateway or an
aggregated server may say 200 to anything, and what is missing from half a list would be taken as gone. Only
the parts that all objects have are looked at. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from nimlab.cluster.port import Listing, WatchEvent
from nimlab.errors import IncompleteDiscovery, Unreachable
from nimlab.objects.manifest import KINDS, Manifest, ObjectKey

_TEXTS: Final = ("name", "namespace", "uid", "resourceVersion", "deletionTimestamp")
_MAPS: Final = ("labels", "annotations")
_LISTS: Final = {"finalizers": str, "managedFields": dict, "ownerReferences": dict}
_PARTS: Final = ("data", "spec", "status")
_METADATA_LIST: Final = "PartialObjectMetadataList"


def object_of(value: Manifest, key: ObjectKey, *, verb: str) -> Manifest:
    """Return the answer if it is the object of this key. Raises Unreachable."""
    kind = KINDS[key.kind]
    _demand(value.get("kind") == kind.name and value.get("apiVersion") == kind.api_version, verb, key)
    _demand(_is_object(value) and bool(value["metadata"].get("uid")), verb, key)
    _demand(value["metadata"]["name"] == key.name, verb, key)
    _demand((value["metadata"].get("namespace") or "") == key.namespace, verb, key)
    return value


def page_of(value: Manifest, kind: str) -> tuple[Listing, str]:
    """Return a page of a list and the token of the next one, empty when this is the last. Raises Unreachable.

    Metadata alone may be of what an aggregated server makes up: that has neither uid nor version, and none of
    it may be `null`.
    """
    about, items = value.get("metadata"), value.get("items")
    is_metadata = value.get("kind") == _METADATA_LIST
    _demand(is_metadata or value.get("kind") in (f"{kind}List", "List"), "list", kind)
    if is_metadata and "items" in value and items is None:
        items = []
    if not isinstance(about, dict) or not isinstance(items, list):
        raise _another("list", kind)
    version, token = about.get("resourceVersion") or "", about.get("continue") or ""
    if not isinstance(version, str) or not isinstance(token, str):
        raise _another("list", kind)
    _demand(bool(token) or not about.get("remainingItemCount"), "list", kind)
    _demand(all(_is_object(item) for item in items), "list", kind)
    _demand(is_metadata or all((version, *(item["metadata"].get("uid") for item in items))), "list", kind)
    return Listing(items=tuple(items), resource_version=version, more=bool(token)), token


def event_of(line: bytes, *, where: str) -> WatchEvent:
    """Return an event of a watch. Raises Unreachable."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _another("watch", where) from error
    if not isinstance(event, dict) or not isinstance(event.get("object"), dict):
        raise _another("watch", where)
    is_whole = event.get("type") in ("ERROR", "BOOKMARK") or _is_object(event["object"])
    _demand(isinstance(event.get("type"), str) and is_whole, "watch", where)
    return WatchEvent(type=event["type"], object=event["object"])


def kinds_of(value: Manifest, *, where: str) -> list[tuple[str, str, str, str]]:
    """Return (group, version, plural, kind) of every kind that can be listed in a namespace.

    The newest version that has it: an older one may have kinds that the newest hasn't. Raises Unseen when
    the server can't tell all of them now, Unreachable.
    """
    if value.get("kind") != "APIGroupDiscoveryList":
        raise IncompleteDiscovery(
            "the server doesn't tell its kinds in one answer (aggregated discovery)",
            where=where,
            hint="nimlab removes namespaces only where it can see all that is in them",
        )
    found: dict[tuple[str, str], tuple[str, str, str, str]] = {}
    try:
        for group in value["items"]:
            name = group["metadata"].get("name", "")
            for version in group["versions"]:
                for one in _resources(version, name):
                    if one["scope"] == "Namespaced" and "list" in one["verbs"]:
                        plural, kind = one["resource"], one["responseKind"]["kind"]
                        found.setdefault((name, plural), (name, version["version"], plural, kind))
    except (AttributeError, KeyError, TypeError) as error:
        raise _another("get", where) from error
    _demand(bool(found) and all(isinstance(x, str) for one in found.values() for x in one), "get", where)
    return list(found.values())


def _resources(version: Mapping[str, Any], group: str) -> list[Mapping[str, Any]]:
    """The kinds of a version. One of a server that doesn't answer is stale, and has none or those of old."""
    if version.get("freshness", "Current") != "Current":
        raise IncompleteDiscovery(
            f"the server of {group}/{version['version']} doesn't answer: its objects can't be seen",
            where="/apis",
            hint="`kubectl get apiservices` shows what is wrong with it",
        )
    resources: list[Mapping[str, Any]] = version["resources"]
    return resources


def _is_object(value: object) -> bool:
    """Whether it has what all objects have, in the form that they have it."""
    if not isinstance(value, dict) or not isinstance(value.get("metadata"), dict):
        return False
    about = value["metadata"]
    return (
        bool(about.get("name"))
        and all(isinstance(about.get(field) or "", str) for field in _TEXTS)
        and all(_is_text_map(about.get(field) or {}) for field in _MAPS)
        and all(_is_list_of(about.get(field) or [], kind) for field, kind in _LISTS.items())
        and all(isinstance(value.get(field) or {}, dict) for field in _PARTS)
    )


def _is_text_map(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(one, str) for one in value.values())


def _is_list_of(value: object, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(one, kind) for one in value)


def _demand(is_so: bool, verb: str, where: object) -> None:  # noqa: FBT001 -- what has to be so
    if not is_so:
        raise _another(verb, where)


def _another(verb: str, where: object) -> Unreachable:
    hint = "does something between here and the API server answer in its place? else run it again"
    return Unreachable(f"{verb}: the answer is not what was asked for", where=where, hint=hint)
