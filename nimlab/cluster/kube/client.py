"""Requests to the API server: verbs, retries, pages and watches.

Reads, server-side applies and deletes with preconditions may be sent twice without harm, so all of them
are retried when the server is busy or the connection breaks, with growing, jittered pauses.
"""

from __future__ import annotations

import copy
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import urllib3
from urllib3 import HTTPHeaderDict
from urllib3.exceptions import HTTPError

from nimlab.cluster.kube.http_errors import error_of, is_retried
from nimlab.cluster.kube.requests import (
    ahead_s,
    collection_path,
    decode,
    is_hopeless,
    never_arrived,
    object_path,
    read_lines,
    read_status,
    retry_after_s,
    with_query,
)
from nimlab.cluster.kube.responses import event_of, kinds_of, object_of, page_of
from nimlab.cluster.kube.server_warnings import Notices
from nimlab.cluster.kube.transport_errors import explain
from nimlab.cluster.port import Listing, Propagation, Requests, WatchEvent
from nimlab.errors import ClusterError, Expired, Unreachable
from nimlab.objects.applyset import FIELD_MANAGER
from nimlab.objects.manifest import KINDS, Manifest, ObjectKey, key_of
from nimlab.text import to_json_bytes

PAGE: Final = 500  # kubectl's page size; the server's cost estimate grows with larger ones
_ATTEMPTS: Final = 6
_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 10.0
_TIMEOUT: Final = urllib3.Timeout(connect=10, read=60)
_JSON: Final = "application/json"
_METADATA_ONLY: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_DISCOVERY: Final = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


class _Sent:
    """How many requests were sent, counted by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._total = 0
        self._writes = 0

    def count(self, *, is_write: bool) -> None:
        with self._lock:
            self._total += 1
            self._writes += is_write

    def so_far(self) -> Requests:
        with self._lock:
            return Requests(total=self._total, writes=self._writes)


@dataclass(slots=True)
class _Clock:
    """What is known of the server's clock; the last answer counts, whichever thread it was for."""

    ahead_s: float = 0.0


class KubeCluster:
    """A connected API server; satisfies `cluster.Cluster`. Safe to use from several threads."""

    def __init__(
        self,
        *,
        pool: urllib3.PoolManager,
        host: str,
        credentials: Callable[[], Mapping[str, str]],
        sleep: Callable[[float], None] = time.sleep,
        tell: Callable[[str, str], None] | None = None,
        proxy: str | None = None,
        cautions: tuple[str, ...] = (),
    ) -> None:
        self._pool = pool
        self._host = host.rstrip("/")
        self._credentials = credentials
        self._sleep = sleep
        self._proxy = proxy
        self.cautions = cautions
        self._sent = _Sent()
        self._notices = Notices(tell)
        self._clock = _Clock()
        self._check_write: Callable[[], None] | None = None

    @property
    def host(self) -> str:
        """The server's URL."""
        return self._host

    def close(self) -> None:
        """Close all connections."""
        self._pool.clear()

    def requests(self) -> Requests:
        """Return the number of requests sent so far."""
        return self._sent.so_far()

    def warnings(self) -> tuple[str, ...]:
        """Return the texts of the server's `Warning` headers so far, each once."""
        return self._notices.warnings

    def ahead_s(self) -> float:
        """Return how far the server's clock is ahead of this machine's; 0 before the first answer."""
        return self._clock.ahead_s

    def fenced(self, check: Callable[[], None]) -> Self:
        """Return the same cluster, which calls `check` before each write that it sends, also a repeated one.

        Requests are counted together.
        """
        fenced = copy.copy(self)
        fenced._check_write = check
        return fenced

    def get(self, key: ObjectKey) -> Manifest | None:
        """Return the object, None if there is none."""
        try:
            found = self._json("GET", object_path(key), verb="get", where=str(key))
        except ClusterError as error:
            if error.status == 404:
                return None
            raise
        return object_of(found, key, verb="get")

    def list_objects(
        self, kind: str, *, namespace: str | None, labels: str = "", fields: str = ""
    ) -> Listing:
        """Return all objects of a kind that match; started anew when a page's token expires."""
        for _ in range(3):
            try:
                pages = tuple(self.pages(kind, namespace=namespace, labels=labels, fields=fields))
            except Expired:
                continue
            items = tuple(item for page in pages for item in page.items)
            return Listing(items=items, resource_version=pages[-1].resource_version)
        raise Unreachable(
            "list: the pages expire faster than they can be read", where=kind, hint="run it again"
        )

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
        """Yield all objects of a kind that match page by page; Gone when the pages expire meanwhile."""
        facts = KINDS[kind]
        query = {"labelSelector": labels, "fieldSelector": fields, "limit": str(size or PAGE)}
        accept = _METADATA_ONLY if metadata_only else _JSON
        for page in self._pages(collection_path(facts, namespace), query, kind, accept):
            for item in page.items:  # the items of a LIST don't say what they are
                item["apiVersion"], item["kind"] = facts.api_version, facts.name
            yield page

    def apply(self, manifest: Manifest, *, manager: str, force: bool, dry_run: bool) -> Manifest:
        """Server-side apply with strict field validation; return the object as the server has it."""
        query = {
            "fieldManager": manager,
            "fieldValidation": "Strict",
            "force": "true" if force else "false",
            "dryRun": "All" if dry_run else "",
        }
        key = key_of(manifest)
        made = self._json(
            "PATCH",
            with_query(object_path(key), query),
            verb="patch",
            where=str(key),
            body=to_json_bytes(manifest),
            content_type="application/apply-patch+yaml",
            is_write=not dry_run,
        )
        return object_of(made, key, verb="patch")

    def create(self, manifest: Manifest) -> Manifest:
        """Create the object; Moved if it exists."""
        key = key_of(manifest)
        path = collection_path(KINDS[key.kind], key.namespace or None)
        return self._send_whole("POST", path, manifest, verb="create")

    def patch(self, key: ObjectKey, operations: Sequence[Mapping[str, Any]], *, dry_run: bool) -> Manifest:
        """Apply a JSON patch and return the object; Moved if its resourceVersion isn't the one demanded."""
        query = {"fieldManager": FIELD_MANAGER, "dryRun": "All" if dry_run else ""}
        made = self._json(
            "PATCH",
            with_query(object_path(key), query),
            verb="patch",
            where=str(key),
            body=json.dumps(operations).encode(),
            content_type="application/json-patch+json",
            is_write=not dry_run,
        )
        return object_of(made, key, verb="patch")

    def replace(self, manifest: Manifest) -> Manifest:
        """Replace the object; Moved if its resourceVersion isn't the one given."""
        key = key_of(manifest)
        return self._send_whole("PUT", object_path(key), manifest, verb="update")

    def _send_whole(self, method: str, path: str, manifest: Manifest, *, verb: str) -> Manifest:
        key = key_of(manifest)
        made = self._json(
            method,
            with_query(path, {"fieldManager": FIELD_MANAGER}),
            verb=verb,
            where=str(key),
            body=json.dumps(manifest).encode(),
            content_type=_JSON,
            is_write=True,
        )
        return object_of(made, key, verb=verb)

    def delete(
        self,
        key: ObjectKey,
        *,
        uid: str,
        resource_version: str | None,
        propagation: Propagation,
    ) -> None:
        """Delete exactly this object; done if there is none, Moved if it isn't the one meant."""
        preconditions = {"uid": uid}
        if resource_version is not None:
            preconditions["resourceVersion"] = resource_version
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": preconditions,
            "propagationPolicy": propagation.value,
        }
        try:
            self._json(
                "DELETE",
                object_path(key),
                verb="delete",
                where=str(key),
                body=json.dumps(body).encode(),
                content_type=_JSON,
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
        """Yield changes since a resourceVersion until the timeout; Gone when it is too old."""
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "labelSelector": labels,
            "resourceVersion": resource_version,
            "timeoutSeconds": str(timeout_s),
        }
        path = with_query(collection_path(KINDS[kind], namespace), query)
        answer = self._request("GET", path, verb="watch", where=kind, stream=True)
        try:
            for line in read_lines(answer):
                event = event_of(line, where=kind)
                if event.type == "ERROR":
                    code = event.object.get("code")
                    status = code if isinstance(code, int) else 410
                    raise error_of(status, event.object, verb="watch", where=kind, path=path)
                yield event
        except (HTTPError, OSError) as error:
            raise Unreachable(f"watch: the connection broke: {error}", where=kind) from error
        finally:
            answer.close()

    def survey(self, namespace: str) -> tuple[Manifest, ...]:
        """Return the metadata of every object of every kind in a namespace; Unseen when there may be more.

        The kinds come from discovery, since what a namespace may hold isn't ours to know beforehand.
        """
        found: list[Manifest] = []
        for group, version, plural, kind in self._namespaced_resources():
            base = f"/apis/{group}/{version}" if group else f"/api/{version}"
            path = f"{base}/namespaces/{namespace}/{plural}"
            for page in self._pages(path, {}, kind, _METADATA_ONLY):
                for item in page.items:
                    item["kind"] = kind
                    item["apiVersion"] = f"{group}/{version}" if group else version
                    item["metadata"].setdefault("uid", "")  # what an aggregated server makes up has none
                found.extend(page.items)
        return tuple(found)

    def log_lines(self, pod: ObjectKey, *, container: str, tail: int | None, follow: bool) -> Iterator[str]:
        """Yield the lines of a container's log; for ever when following."""
        query = {
            "container": container,
            "tailLines": "" if tail is None else str(tail),
            "follow": "true" if follow else "",
        }
        path = with_query(object_path(pod) + "/log", query)
        try:
            answer = self._request("GET", path, verb="logs", where=str(pod), stream=True, attempts=1)
        except Unreachable as error:
            hint = "its node's kubelet doesn't answer; simulated nodes have no logs"
            raise Unreachable(error.what, where=error.where, hint=hint, status=error.status) from error
        try:
            for line in read_lines(answer):
                yield line.decode(errors="replace")
        except HTTPError as error:
            raise Unreachable(f"the log broke off: {error}", where=str(pod)) from error
        finally:
            answer.close()

    def _namespaced_resources(self) -> Iterator[tuple[str, str, str, str]]:
        """(group, version, plural, kind) of every kind that can be listed in a namespace."""
        for root in ("/api", "/apis"):
            answer = self._json("GET", root, verb="get", where=root, accept=_DISCOVERY)
            yield from kinds_of(answer, where=root)

    def _pages(self, path: str, query: Mapping[str, str], kind: str, accept: str) -> Iterator[Listing]:
        token = ""
        while True:
            url = with_query(path, {"limit": str(PAGE), **query, "continue": token})
            answer = self._json("GET", url, verb="list", where=kind, accept=accept)
            page, token = page_of(answer, kind)
            yield page
            if not token:
                return

    def _json(
        self,
        method: str,
        path: str,
        *,
        verb: str,
        where: str,
        body: bytes | None = None,
        content_type: str | None = None,
        accept: str = _JSON,
        is_write: bool = False,
    ) -> Manifest:
        answer = self._request(
            method,
            path,
            verb=verb,
            where=where,
            body=body,
            headers={"Accept": accept, **({"Content-Type": content_type} if content_type else {})},
            is_write=is_write,
        )
        return decode(answer.data, verb=verb, where=where)

    def _request(
        self,
        method: str,
        path: str,
        *,
        verb: str,
        where: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        is_write: bool = False,
        stream: bool = False,
        attempts: int = _ATTEMPTS,
    ) -> urllib3.BaseHTTPResponse:
        """Send until there is a final answer; raise what a refusal means."""
        for attempt in range(1, attempts + 1):
            pause_s = _longest_pause_s(attempt) * random.uniform(0.5, 1)  # noqa: S311 -- jitter, not a secret
            least_s = 0.0
            try:
                answer = self._send(method, path, body, headers or {}, is_write=is_write, stream=stream)
            except HTTPError as error:
                what, hint = explain(error, self._proxy)
                reason = f"no answer from {self._host}: {what}"
                if attempt == attempts or is_hopeless(error):
                    raise Unreachable(f"{verb}: {reason}", where=where, hint=hint) from error
                is_told = attempt > 1 or never_arrived(error)
            else:
                if answer.status < 300:
                    return answer
                status = read_status(answer)
                if attempt == attempts or not is_retried(answer.status, str(status.get("message"))):
                    raise error_of(answer.status, status, verb=verb, where=where, path=path)
                least_s = retry_after_s(answer)
                reason, is_told = f"the server answers {answer.status}", attempt > 1 or least_s >= 1
            if is_told:
                self._notices.add_retry(reason, _left_s(attempt, attempts, least_s))
            self._sleep(max(pause_s, least_s))
        raise AssertionError("the last attempt returns or raises")

    def _send(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        *,
        is_write: bool,
        stream: bool,
    ) -> urllib3.BaseHTTPResponse:
        if is_write and self._check_write is not None:
            self._check_write()
        self._sent.count(is_write=is_write)
        answer = self._pool.request(
            method,
            self._host + path,
            body=body,
            headers=self._headers(headers),
            timeout=_TIMEOUT,
            retries=False,
            redirect=False,
            preload_content=not stream,
        )
        self._clock.ahead_s = ahead_s(answer.headers.get("Date", ""), _now_s())
        self._notices.add_warnings(answer.headers.getlist("Warning"))
        return answer

    def _headers(self, own: Mapping[str, str]) -> HTTPHeaderDict:
        """The request's headers beside those that authenticate it, which may occur several times."""
        sent = HTTPHeaderDict(self._credentials())
        sent.setdefault("Accept-Encoding", "gzip")
        for name, value in own.items():
            sent[name] = value
        return sent


def _now_s() -> float:
    return time.time()


def _longest_pause_s(attempt: int) -> float:
    return min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0**attempt)


def _left_s(attempt: int, attempts: int, least_s: float) -> float:
    """How long a request is tried again at most, counted from a failed attempt; connecting not counted."""
    return sum(max(least_s, _longest_pause_s(later)) for later in range(attempt, attempts))
