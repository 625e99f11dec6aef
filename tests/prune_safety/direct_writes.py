"""Direct requests to the API server, as any field manager and without the checks of nimlab."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from nimlab.cluster.kube import KubeCluster
from nimlab.errors import ClusterError
from tests.prune_safety.oracle import FACTS, MANAGER, Object, api_version, plain

_T = TypeVar("_T")
_R = TypeVar("_R")
_HANDS: Final = 8
_READS: Final = 2000  # each request takes a few milliseconds
HOLD: Final = "example.org/hold"


@dataclass(frozen=True, slots=True)
class DirectAccess:
    """A connection to the API server as an administrator. Its writes bypass the checks of nimlab."""

    cluster: KubeCluster

    def path(self, item: Object, tail: str = "") -> str:
        """Return the REST path of an object."""
        name = item["metadata"]["name"]
        return f"{self.collection(item['kind'], item['metadata'].get('namespace', ''))}/{name}{tail}"

    def collection(self, kind: str, namespace: str = "") -> str:
        """Return the REST path of all objects of a kind, in one namespace or in all namespaces."""
        facts = FACTS[kind]
        base = f"/apis/{api_version(kind)}" if facts.group else "/api/v1"
        inside = f"/namespaces/{namespace}" if namespace and facts.namespaced else ""
        return f"{base}{inside}/{facts.plural}"

    def send(self, method: str, path: str, body: object = None, content: str = "json") -> Any:
        """Send a request and return the response. Raises ClusterError if the server refuses it."""
        return self.cluster.transport.json(
            method,
            path,
            verb=method.lower(),
            where=path,
            body=None if body is None else json.dumps(body).encode(),
            content_type=f"application/{content}",
        )

    def get(self, item: Object) -> Object | None:
        """Return the live object with the key of `item`; None if it does not exist."""
        try:
            live: Object = self.send("GET", self.path(item))
        except ClusterError as error:
            if error.status == 404:
                return None
            raise
        return live

    def apply(self, item: Object, manager: str = MANAGER, tail: str = "") -> Object:
        """Apply an object (server-side apply) as this field manager, with `force`."""
        query = f"?fieldManager={manager.replace(' ', '%20')}&force=true"
        result: Object = self.send("PATCH", self.path(item, tail) + query, item, "apply-patch+yaml")
        return result

    def create(self, item: Object, manager: str = "kubectl-create") -> Object:
        """Create an object. The server records the manager as the owner, with the operation `Update`."""
        namespace = item["metadata"].get("namespace", "")
        if item["kind"] == "Pod":
            self.wait_for_account(namespace)
        where = self.collection(item["kind"], namespace)
        result: Object = self.send("POST", f"{where}?fieldManager={manager}", item)
        return result

    def wait_for_account(self, namespace: str) -> None:
        """Wait for the default ServiceAccount of a new namespace, which every pod requires."""
        account = plain("ServiceAccount", namespace, "default")
        for _ in range(_READS):
            if self.get(account) is not None:
                return

    def merge(self, item: Object, metadata: Object, manager: str = "kubectl-edit") -> Object:
        """Merge `metadata` into the metadata of an object, as this field manager."""
        path = f"{self.path(item)}?fieldManager={manager}"
        result: Object = self.send("PATCH", path, {"metadata": metadata}, "merge-patch+json")
        return result

    def wipe(self, item: Object) -> Object:
        """Remove all entries of `managedFields` from an object; its other fields do not change."""
        wiped = [{"op": "replace", "path": "/metadata/managedFields", "value": [{}]}]
        result: Object = self.send("PATCH", self.path(item), wiped, "json-patch+json")
        return result

    def delete(self, item: Object) -> None:
        """Delete an object without preconditions."""
        try:
            self.send("DELETE", self.path(item), {"propagationPolicy": "Background"})
        except ClusterError as error:
            if error.status != 404:
                raise

    def items(self, kind: str, namespace: str = "") -> Sequence[Object]:
        """Return all objects of a kind, in one namespace or in all namespaces."""
        answer = self.send("GET", self.collection(kind, namespace))
        return [{**item, "kind": kind, "apiVersion": api_version(kind)} for item in answer["items"]]

    def each(self, work: Callable[[_T], _R], items: Iterable[_T]) -> list[_R]:
        """Call `work` for each item in several threads; return the results in the order of the items."""
        with ThreadPoolExecutor(max_workers=_HANDS) as pool:
            return list(pool.map(work, items))

    def namespace(self, name: str) -> Object:
        """Create a namespace that belongs to no lab."""
        return self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def reference(self, namespace: str) -> Object:
        """Return an owner reference to a foreign ConfigMap in the namespace; create it if it is missing."""
        item = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "operator", "namespace": namespace},
        }
        live = self.get(item) or self.create(item)
        return {"apiVersion": "v1", "kind": "ConfigMap", "name": "operator", "uid": live["metadata"]["uid"]}
