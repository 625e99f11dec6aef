"""Requests to the API server: paths, bodies, retries, pages and watches.

Reads, server-side applies and deletes with preconditions may be sent twice without harm, so all of them
are retried when the server is busy or the connection breaks, with growing, jittered pauses.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlencode

import urllib3
from urllib3.exceptions import HTTPError

from nimlab.cluster import Listing, Propagation, Requests, WatchEvent
from nimlab.errors import ClusterError, Gone, Unreachable
from nimlab.kube.answers import error_of, is_retried
from nimlab.manifest import KINDS, Kind, Manifest, ObjectKey, key_of, to_json_bytes

_PAGE: Final = 500  # kubectl's page size; the server's cost estimate grows with larger ones
_ATTEMPTS: Final = 6
_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 10.0
_TIMEOUT: Final = urllib3.Timeout(connect=10, read=60)
_METADATA_ONLY: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_DISCOVERY: Final = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


class KubeCluster:
    """A connected API server; satisfies `cluster.Cluster`. Safe to use from several threads."""

    def __init__(
        self,
        *,
        pool: urllib3.PoolManager,
        host: str,
        credentials: Callable[[], Mapping[str, str]],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._pool = pool
        self._host = host.rstrip("/")
        self._credentials = credentials
        self._sleep = sleep
        self._lock = threading.Lock()
        self._total = 0
        self._writes = 0

    @property
    def host(self) -> str:
        """The server's URL."""
        return self._host

    def close(self) -> None:
        """Close all connections."""
        self._pool.clear()

    def requests(self) -> Requests:
        """Return the number of requests sent so far."""
        with self._lock:
            return Requests(total=self._total, writes=self._writes)

    def get(self, key: ObjectKey) -> Manifest | None:
        """Return the object, None if there is none."""
        try:
            return self._json("GET", _object_path(key), verb="get", where=str(key))
        except ClusterError as error:
            if error.status == 404:
                return None
            raise

    def list_objects(
        self, kind: str, *, namespace: str | None, labels: str = "", fields: str = ""
    ) -> Listing:
        """Return all objects of a kind that match; started anew when a page's token expires."""
        facts = KINDS[kind]
        query = {"limit": str(_PAGE), "labelSelector": labels, "fieldSelector": fields}
        for _ in range(3):
            try:
                items, version = self._pages(_collection(facts, namespace), query, kind)
            except Gone:
                continue
            for item in items:  # the items of a LIST don't say what they are
                item.setdefault("apiVersion", facts.api_version)
                item.setdefault("kind", facts.name)
            return Listing(items=tuple(items), resource_version=version)
        raise Unreachable(
            "list: the pages expire faster than they can be read", where=kind, hint="run it again"
        )

    def apply(self, manifest: Manifest, *, manager: str, force: bool, dry_run: bool) -> Manifest:
        """Server-side apply with strict field validation; return the object as the server has it."""
        query = {
            "fieldManager": manager,
            "fieldValidation": "Strict",
            "force": "true" if force else "false",
            "dryRun": "All" if dry_run else "",
        }
        key = key_of(manifest)
        return self._json(
            "PATCH",
            _with_query(_object_path(key), query),
            verb="patch",
            where=str(key),
            body=to_json_bytes(manifest),
            content_type="application/apply-patch+yaml",
            is_write=not dry_run,
        )

    def create(self, manifest: Manifest) -> Manifest:
        """Create the object; Moved if it exists."""
        key = key_of(manifest)
        path = _collection(KINDS[key.kind], key.namespace or None)
        return self._send_whole("POST", path, manifest, verb="create", where=str(key))

    def replace(self, manifest: Manifest) -> Manifest:
        """Replace the object; Moved if its resourceVersion isn't the one given."""
        key = key_of(manifest)
        return self._send_whole("PUT", _object_path(key), manifest, verb="update", where=str(key))

    def _send_whole(self, method: str, path: str, manifest: Manifest, *, verb: str, where: str) -> Manifest:
        return self._json(
            method,
            _with_query(path, {"fieldManager": "nimlab"}),
            verb=verb,
            where=where,
            body=json.dumps(manifest).encode(),
            content_type="application/json",
            is_write=True,
        )

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
                _object_path(key),
                verb="delete",
                where=str(key),
                body=json.dumps(body).encode(),
                content_type="application/json",
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
        path = _with_query(_collection(KINDS[kind], namespace), query)
        answer = self._request("GET", path, verb="watch", where=kind, stream=True)
        try:
            for line in _lines(answer):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise error_of(
                        int(event["object"].get("code", 410)),
                        event["object"],
                        verb="watch",
                        where=kind,
                        path=path,
                    )
                yield WatchEvent(type=event["type"], object=event["object"])
        except (HTTPError, ValueError, OSError) as error:
            raise Unreachable(f"watch: the connection broke: {error}", where=kind) from error
        finally:
            answer.close()

    def survey(self, namespace: str) -> tuple[Manifest, ...]:
        """Return the metadata of every object of every kind in a namespace.

        The kinds come from discovery, since what a namespace may hold isn't ours to know beforehand.
        """
        found: list[Manifest] = []
        for group, version, plural, kind in self._namespaced_resources():
            base = f"/apis/{group}/{version}" if group else f"/api/{version}"
            path = f"{base}/namespaces/{namespace}/{plural}"
            items, _ = self._pages(path, {"limit": str(_PAGE)}, kind, accept=_METADATA_ONLY)
            for item in items:
                item["kind"] = kind
            found.extend(items)
        return tuple(found)

    def log_lines(self, pod: ObjectKey, *, container: str, tail: int | None, follow: bool) -> Iterator[str]:
        """Yield the lines of a container's log; for ever when following."""
        query = {
            "container": container,
            "tailLines": "" if tail is None else str(tail),
            "follow": "true" if follow else "",
        }
        path = _with_query(_object_path(pod) + "/log", query)
        answer = self._request("GET", path, verb="logs", where=str(pod), stream=True, attempts=1)
        try:
            for line in _lines(answer):
                yield line.decode(errors="replace")
        except HTTPError as error:
            raise Unreachable(f"the log broke off: {error}", where=str(pod)) from error
        finally:
            answer.close()

    def _namespaced_resources(self) -> list[tuple[str, str, str, str]]:
        """(group, version, plural, kind) of every kind that can be listed in a namespace."""
        found = []
        for root in ("/api", "/apis"):
            answer = self._json("GET", root, verb="get", where=root, accept=_DISCOVERY)
            if answer.get("kind") != "APIGroupDiscoveryList":
                raise ClusterError(
                    "the server doesn't tell its kinds in one answer (aggregated discovery)",
                    where=root,
                    hint="nimlab removes namespaces only where it can see all that is in them",
                )
            for group in answer["items"]:
                version = group["versions"][0]
                for resource in version["resources"]:
                    if resource["scope"] == "Namespaced" and "list" in resource["verbs"]:
                        kind = resource["responseKind"]["kind"]
                        name = group["metadata"].get("name", "")
                        found.append((name, version["version"], resource["resource"], kind))
        return found

    def _pages(
        self, path: str, query: Mapping[str, str], where: str, accept: str = "application/json"
    ) -> tuple[list[Manifest], str]:
        items: list[Manifest] = []
        token = ""
        while True:
            url = _with_query(path, {**query, "continue": token})
            page = self._json("GET", url, verb="list", where=where, accept=accept)
            items.extend(page.get("items") or ())
            token = page["metadata"].get("continue") or ""
            if not token:
                return items, page["metadata"]["resourceVersion"]

    def _json(
        self,
        method: str,
        path: str,
        *,
        verb: str,
        where: str,
        body: bytes | None = None,
        content_type: str | None = None,
        accept: str = "application/json",
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
        return _decoded(answer.data, verb=verb, where=where)

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
            pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**attempt) * random.uniform(0.5, 1)  # noqa: S311 -- jitter, not a secret
            try:
                answer = self._send(method, path, body, headers or {}, is_write=is_write, stream=stream)
            except HTTPError as error:
                if attempt == attempts or _is_hopeless(error):
                    raise Unreachable(
                        f"{verb}: no answer from {self._host}: {_short(error)}",
                        where=where,
                        hint="is the cluster up, and is the address right?",
                    ) from error
            else:
                if answer.status < 300:
                    return answer
                status = _status_of(answer)
                if attempt == attempts or not is_retried(answer.status, str(status.get("message"))):
                    raise error_of(answer.status, status, verb=verb, where=where, path=path)
                pause_s = max(pause_s, _retry_after_s(answer))
            self._sleep(pause_s)
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
        with self._lock:
            self._total += 1
            self._writes += is_write
        return self._pool.request(
            method,
            self._host + path,
            body=body,
            headers={"Accept-Encoding": "gzip", **self._credentials(), **headers},
            timeout=_TIMEOUT,
            retries=False,
            redirect=False,
            preload_content=not stream,
        )


def _collection(kind: Kind, namespace: str | None) -> str:
    base = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    return f"{base}/namespaces/{namespace}/{kind.plural}" if namespace else f"{base}/{kind.plural}"


def _object_path(key: ObjectKey) -> str:
    return f"{_collection(KINDS[key.kind], key.namespace or None)}/{key.name}"


def _with_query(path: str, query: Mapping[str, str]) -> str:
    """Append the parameters that have a value."""
    text = urlencode({name: value for name, value in query.items() if value})
    return f"{path}?{text}" if text else path


def _decoded(data: bytes, *, verb: str, where: str) -> Manifest:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise Unreachable(
            f"{verb}: the answer is cut short or isn't JSON", where=where, hint="run it again"
        ) from error
    if not isinstance(value, dict):
        raise Unreachable(f"{verb}: the answer isn't an object", where=where)
    return value


def _status_of(answer: urllib3.BaseHTTPResponse) -> dict[str, Any]:
    """The server's Status; empty when the body is something else (a proxy's error page)."""
    try:
        value = json.loads(answer.data)
    except (ValueError, HTTPError):
        return {}
    return value if isinstance(value, dict) and value.get("kind") == "Status" else {}


def _retry_after_s(answer: urllib3.BaseHTTPResponse) -> float:
    text = answer.headers.get("Retry-After", "")
    return min(float(text), 30.0) if text.isdigit() else 0.0


def _is_hopeless(error: HTTPError) -> bool:
    """True for a server that isn't who it should be: asking again won't mend a certificate."""
    return isinstance(error, urllib3.exceptions.SSLError)


def _short(error: Exception) -> str:
    return str(error).rpartition(": ")[2][:200]


def _lines(answer: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """Lines as they arrive, without their ends; a last line without an end counts."""
    rest = b""
    for chunk in answer.stream(decode_content=True):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line for line in lines if line)
    if rest:
        yield rest
