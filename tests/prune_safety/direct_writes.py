"""The torture's own hands on the server: direct API calls, as any manager, past everything nimlab checks."""

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
_READS: Final = 2000  # of a few milliseconds each
HOLD: Final = "example.org/hold"


@dataclass(frozen=True, slots=True)
class Admin:
    """All rights, and no manners."""

    cluster: KubeCluster

    def path(self, item: Object, tail: str = "") -> str:
        """The REST path of an object."""
        name = item["metadata"]["name"]
        return f"{self.collection(item['kind'], item['metadata'].get('namespace', ''))}/{name}{tail}"

    def collection(self, kind: str, namespace: str = "") -> str:
        """The REST path of a kind's objects, everywhere or in a namespace."""
        facts = FACTS[kind]
        base = f"/apis/{api_version(kind)}" if facts.group else "/api/v1"
        inside = f"/namespaces/{namespace}" if namespace and facts.namespaced else ""
        return f"{base}{inside}/{facts.plural}"

    def send(self, method: str, path: str, body: object = None, content: str = "json") -> Any:
        """Send a request and return the answer; ClusterError for a refusal."""
        return self.cluster.transport.json(
            method,
            path,
            verb=method.lower(),
            where=path,
            body=None if body is None else json.dumps(body).encode(),
            content_type=f"application/{content}",
        )

    def get(self, item: Object) -> Object | None:
        """Read the object of this place; None if there is none."""
        try:
            found: Object = self.send("GET", self.path(item))
        except ClusterError as error:
            if error.status == 404:
                return None
            raise
        return found

    def apply(self, item: Object, manager: str = MANAGER, tail: str = "") -> Object:
        """Server-side apply, by force."""
        query = f"?fieldManager={manager.replace(' ', '%20')}&force=true"
        made: Object = self.send("PATCH", self.path(item, tail) + query, item, "apply-patch+yaml")
        return made

    def create(self, item: Object, manager: str = "kubectl-create") -> Object:
        """Create it as this manager, who so owns it by Update."""
        namespace = item["metadata"].get("namespace", "")
        if item["kind"] == "Pod":
            self._await_account(namespace)
        where = self.collection(item["kind"], namespace)
        made: Object = self.send("POST", f"{where}?fieldManager={manager}", item)
        return made

    def _await_account(self, namespace: str) -> None:
        """Wait for the account that a controller gives each new namespace: no pod can be created without."""
        account = plain("ServiceAccount", namespace, "default")
        for _ in range(_READS):
            if self.get(account) is not None:
                return

    def merge(self, item: Object, metadata: Object, manager: str = "kubectl-edit") -> Object:
        """Change metadata as this manager."""
        path = f"{self.path(item)}?fieldManager={manager}"
        made: Object = self.send("PATCH", path, {"metadata": metadata}, "merge-patch+json")
        return made

    def wipe(self, item: Object) -> Object:
        """Make the server forget who wrote what."""
        wiped = [{"op": "replace", "path": "/metadata/managedFields", "value": [{}]}]
        made: Object = self.send("PATCH", self.path(item), wiped, "json-patch+json")
        return made

    def delete(self, item: Object) -> None:
        """Delete it, whoever it is."""
        try:
            self.send("DELETE", self.path(item), {"propagationPolicy": "Background"})
        except ClusterError as error:
            if error.status != 404:
                raise

    def items(self, kind: str, namespace: str = "") -> Sequence[Object]:
        """All objects of a kind, everywhere or in a namespace."""
        answer = self.send("GET", self.collection(kind, namespace))
        return [{**item, "kind": kind, "apiVersion": api_version(kind)} for item in answer["items"]]

    def each(self, work: Callable[[_T], _R], items: Iterable[_T]) -> list[_R]:
        """Do something for all of them, several at once."""
        with ThreadPoolExecutor(max_workers=_HANDS) as pool:
            return list(pool.map(work, items))

    def namespace(self, name: str) -> Object:
        """Make a namespace of nobody's."""
        return self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def reference(self, namespace: str) -> Object:
        """Refer to something foreign that lives in a namespace, as an owner; made if need be."""
        item = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "operator", "namespace": namespace},
        }
        live = self.get(item) or self.create(item)
        return {"apiVersion": "v1", "kind": "ConfigMap", "name": "operator", "uid": live["metadata"]["uid"]}
