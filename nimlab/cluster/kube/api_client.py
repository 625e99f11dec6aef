"""A client for an API server over HTTP: get, list, apply, create, patch, replace, delete, watch, logs.

In: keys, manifests, selectors. Out: objects whose structure has been checked. `Transport` sends the requests.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Self

from urllib3.exceptions import HTTPError

from nimlab.cluster.interface import RUN_AGAIN, Listing, Propagation, Requests, WatchEvent
from nimlab.cluster.kube.http_response import read_lines
from nimlab.cluster.kube.response_checks import parse_discovery, parse_event, parse_object, parse_page
from nimlab.cluster.kube.rest_paths import collection_path, object_path, with_query
from nimlab.cluster.kube.status_errors import error_of
from nimlab.cluster.kube.transport import JSON, Transport
from nimlab.errors import ClusterError, Expired, Unreachable
from nimlab.objects.applyset import FIELD_MANAGER
from nimlab.objects.kinds_and_order import KINDS
from nimlab.objects.manifest import Manifest, ObjectKey, key_of
from nimlab.yaml_and_json import to_json_bytes

PAGE_SIZE: Final = 500  # kubectl's page size; with larger pages, the server accepts fewer requests
_LIST_ATTEMPTS: Final = 3
_METADATA_ONLY: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_DISCOVERY: Final = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


class KubeCluster:
    """A client of an API server; implements `cluster.interface.Cluster`. Several threads can use it."""

    def __init__(self, transport: Transport, *, security_warnings: tuple[str, ...] = ()) -> None:
        self.transport = transport
        self.security_warnings = security_warnings

    @property
    def host(self) -> str:
        """The server's URL."""
        return self.transport.host

    def close(self) -> None:
        """Close all connections."""
        self.transport.close()

    def requests(self) -> Requests:
        """Return the number of requests sent so far."""
        return self.transport.requests()

    def warnings(self) -> tuple[str, ...]:
        """Return the texts of the server's `Warning` headers so far, without duplicates."""
        return self.transport.warnings()

    def ahead_s(self) -> float:
        """Return how far the server's clock is ahead of this machine's; 0 before the first response."""
        return self.transport.ahead_s()

    def fenced(self, check: Callable[[], None]) -> Self:
        """Return a client for the same cluster that calls `check` before each attempt of a write.

        Both clients share the connections and the numbers of requests.
        """
        fenced = copy.copy(self)
        fenced.transport = self.transport.fenced(check)
        return fenced

    def get(self, key: ObjectKey) -> Manifest | None:
        """Return the object, or None if it does not exist."""
        try:
            body = self.transport.json("GET", object_path(key), verb="get", where=str(key))
        except ClusterError as error:
            if error.status == 404:
                return None
            raise
        return parse_object(body, key, verb="get")

    def list_objects(
        self, kind: str, *, namespace: str | None, labels: str = "", fields: str = ""
    ) -> Listing:
        """Return all matching objects of a kind; start again if the `continue` token expires."""
        for _ in range(_LIST_ATTEMPTS):
            try:
                pages = tuple(self.pages(kind, namespace=namespace, labels=labels, fields=fields))
            except Expired:
                continue
            items = tuple(item for page in pages for item in page.items)
            return Listing(items=items, resource_version=pages[-1].resource_version)
        raise Unreachable("list: the pages expire before they can be read", where=kind, hint=RUN_AGAIN)

    def pages(
        self,
        kind: str,
        *,
        namespace: str | None,
        labels: str = "",
        fields: str = "",
        metadata_only: bool = False,
        size: int | None = None,
    ) -> Iterator[Listing]:
        """Yield all matching objects of a kind, page by page.

        Raises Expired when the `continue` token expires between two pages. Raises ClusterError if a request
        fails.
        """
        traits = KINDS[kind]
        query = {"labelSelector": labels, "fieldSelector": fields, "limit": str(size or PAGE_SIZE)}
        accept = _METADATA_ONLY if metadata_only else JSON
        for page in self._pages(collection_path(traits, namespace), query, kind, accept):
            for item in page.items:  # the items of a LIST lack apiVersion and kind
                item["apiVersion"], item["kind"] = traits.api_version, traits.name
            yield page

    def apply(self, manifest: Manifest, *, manager: str, force: bool, dry_run: bool) -> Manifest:
        """Apply the object server-side, with strict field validation; return the object in the response."""
        query = {
            "fieldManager": manager,
            "fieldValidation": "Strict",
            "force": "true" if force else "false",
            "dryRun": "All" if dry_run else "",
        }
        key = key_of(manifest)
        body = self.transport.json(
            "PATCH",
            with_query(object_path(key), query),
            verb="patch",
            where=str(key),
            body=to_json_bytes(manifest),
            content_type="application/apply-patch+yaml",
            is_write=not dry_run,
        )
        return parse_object(body, key, verb="patch")

    def create(self, manifest: Manifest) -> Manifest:
        """Create the object. Raises PreconditionFailed if it exists."""
        key = key_of(manifest)
        path = collection_path(KINDS[key.kind], key.namespace or None)
        return self._send_object("POST", path, manifest, verb="create")

    def patch(self, key: ObjectKey, operations: Sequence[Mapping[str, Any]], *, dry_run: bool) -> Manifest:
        """Apply a JSON patch and return the object.

        Raises PreconditionFailed if the object does not have the resourceVersion that the patch requires.
        """
        query = {"fieldManager": FIELD_MANAGER, "dryRun": "All" if dry_run else ""}
        body = self.transport.json(
            "PATCH",
            with_query(object_path(key), query),
            verb="patch",
            where=str(key),
            body=json.dumps(operations).encode(),
            content_type="application/json-patch+json",
            is_write=not dry_run,
        )
        return parse_object(body, key, verb="patch")

    def replace(self, manifest: Manifest) -> Manifest:
        """Replace the object. Raises PreconditionFailed if it has another resourceVersion on the server."""
        key = key_of(manifest)
        return self._send_object("PUT", object_path(key), manifest, verb="update")

    def _send_object(self, method: str, path: str, manifest: Manifest, *, verb: str) -> Manifest:
        key = key_of(manifest)
        body = self.transport.json(
            method,
            with_query(path, {"fieldManager": FIELD_MANAGER}),
            verb=verb,
            where=str(key),
            body=json.dumps(manifest).encode(),
            content_type=JSON,
            is_write=True,
        )
        return parse_object(body, key, verb=verb)

    def delete(
        self,
        key: ObjectKey,
        *,
        uid: str,
        resource_version: str | None,
        propagation: Propagation,
    ) -> None:
        """Delete the object with this uid; do nothing if no object has this key.

        If `resource_version` is None, only the uid is compared. Raises PreconditionFailed if the uid or the
        resourceVersion differs.
        """
        preconditions = {"uid": uid}
        if resource_version is not None:
            preconditions["resourceVersion"] = resource_version
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": preconditions,
            "propagationPolicy": propagation.value,
        }
        try:
            self.transport.json(
                "DELETE",
                object_path(key),
                verb="delete",
                where=str(key),
                body=json.dumps(options).encode(),
                content_type=JSON,
                is_write=True,
            )
        except ClusterError as error:
            if error.status != 404:
                raise

    def watch(
        self,
        kind: str,
        *,
        namespace: str | None,
        labels: str,
        resource_version: str,
        timeout_s: int,
    ) -> Iterator[WatchEvent]:
        """Yield the changes since a resourceVersion until the timeout.

        Raises Expired when the server no longer has the changes since that resourceVersion.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "labelSelector": labels,
            "resourceVersion": resource_version,
            "timeoutSeconds": str(timeout_s),
        }
        path = with_query(collection_path(KINDS[kind], namespace), query)
        response = self.transport.request("GET", path, verb="watch", where=kind, stream=True)
        try:
            for line in read_lines(response):
                event = parse_event(line, where=kind)
                if event.type == "ERROR":
                    code = event.object.get("code")
                    status = code if isinstance(code, int) else 410
                    raise error_of(status, event.object, verb="watch", where=kind, path=path)
                yield event
        except (HTTPError, OSError) as error:
            raise Unreachable(f"watch: the connection was lost: {error}", where=kind) from error
        finally:
            response.close()

    def list_namespace_metadata(self, namespace: str) -> tuple[Manifest, ...]:
        """Return the metadata of every object of every kind in a namespace.

        The kinds come from discovery, because a namespace can contain kinds that nimlab does not know. Raises
        IncompleteDiscovery when the server cannot list all kinds.
        """
        objects: list[Manifest] = []
        for group, version, plural, kind in self._namespaced_resources():
            base = f"/apis/{group}/{version}" if group else f"/api/{version}"
            path = f"{base}/namespaces/{namespace}/{plural}"
            for page in self._pages(path, {}, kind, _METADATA_ONLY):
                for item in page.items:
                    item["kind"] = kind
                    item["apiVersion"] = f"{group}/{version}" if group else version
                    item["metadata"].setdefault("uid", "")  # virtual objects of aggregated APIs have no uid
                objects.extend(page.items)
        return tuple(objects)

    def log_lines(self, pod: ObjectKey, *, container: str, tail: int | None, follow: bool) -> Iterator[str]:
        """Yield the lines of a container's log; with `follow`, wait for further lines without end."""
        query = {
            "container": container,
            "tailLines": "" if tail is None else str(tail),
            "follow": "true" if follow else "",
        }
        path = with_query(object_path(pod) + "/log", query)
        try:
            response = self.transport.request(
                "GET", path, verb="logs", where=str(pod), stream=True, attempts=1
            )
        except Unreachable as error:
            hint = "check the kubelet of the pod's node; simulated nodes have no logs"
            raise Unreachable(error.what, where=error.where, hint=hint, status=error.status) from error
        try:
            for line in read_lines(response):
                yield line.decode(errors="replace")
        except HTTPError as error:
            raise Unreachable(f"logs: the connection was lost: {error}", where=str(pod)) from error
        finally:
            response.close()

    def _namespaced_resources(self) -> Iterator[tuple[str, str, str, str]]:
        """Yield (group, version, plural, kind) of every kind that can be listed in a namespace."""
        for root in ("/api", "/apis"):
            body = self.transport.json("GET", root, verb="get", where=root, accept=_DISCOVERY)
            yield from parse_discovery(body, where=root)

    def _pages(self, path: str, query: Mapping[str, str], kind: str, accept: str) -> Iterator[Listing]:
        token = ""
        while True:
            url = with_query(path, {"limit": str(PAGE_SIZE), **query, "continue": token})
            body = self.transport.json("GET", url, verb="list", where=kind, accept=accept)
            page, token = parse_page(body, kind)
            yield page
            if not token:
                return
