"""Watches that update a `Readiness`: one thread per kind and namespace.

Each thread starts with a LIST, watches from the LIST's resourceVersion, and starts a new watch when the watch
ends. These threads only send messages. Only the thread that receives the messages writes to the `Readiness`.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Final, Self, TypeAlias

from nimlab.cluster.apply.readiness import Readiness, WaitTarget
from nimlab.cluster.interface import MAX_SELECTED_EXPERIMENTS, Cluster, WatchEvent
from nimlab.errors import ClusterError, Expired, Forbidden, Interrupted, Unreachable
from nimlab.objects.applyset import PART_OF, ApplySet
from nimlab.objects.kinds_and_order import WORKLOADS
from nimlab.objects.manifest import Manifest

_DRAIN_TIMEOUT_S: Final = 0.2
_WATCH_TIMEOUT_S: Final = 30  # short, so that a thread ends soon after the watcher is closed
_MAX_FAILURES: Final = 5


@dataclass(frozen=True, slots=True)
class _Page:
    """A page of a LIST; the first page replaces all known objects of the kind in this namespace."""

    kind: str
    namespace: str | None
    items: tuple[Manifest, ...]
    is_first: bool


@dataclass(frozen=True, slots=True)
class _Listed:
    """The message that all pages of a LIST have been sent."""

    kind: str
    namespace: str | None


_Message: TypeAlias = _Page | _Listed | WatchEvent


class Watcher:
    """Watches for the awaited workloads and all their peers; a context manager."""

    def __init__(self, cluster: Cluster, targets: Sequence[WaitTarget], apply_set: ApplySet) -> None:
        self._cluster = cluster
        self._messages: queue.SimpleQueue[_Message | ClusterError] = queue.SimpleQueue()
        self._closed = threading.Event()
        keys = {key for target in targets for key in target.workloads | target.terminating}
        self._unlisted: set[tuple[str, str | None]] = set()
        self._namespaces = sorted({key.namespace for key in keys if key.kind in WORKLOADS})
        names = sorted(target.experiment for target in targets if target.workloads and target.needs_pods)
        label = apply_set.group_label
        pods = f"{label} in ({','.join(names)})" if len(names) <= MAX_SELECTED_EXPERIMENTS else label
        members = dict.fromkeys({key.kind for key in keys} & WORKLOADS, f"{PART_OF}={apply_set.id}")
        self._selectors = {**members, "Pod": pods} if names else members

    def __enter__(self) -> Self:
        self._unlisted = {
            (kind, namespace)
            for kind, labels in self._selectors.items()
            for namespace in self._namespaces_to_watch(kind, labels)
        }
        for kind, namespace in tuple(self._unlisted):
            labels = self._selectors[kind]
            threading.Thread(target=self._list_and_watch, args=(kind, namespace, labels), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed.set()

    def drain(self, readiness: Readiness, now: datetime) -> None:
        """Apply all queued messages to `readiness`; if there are none, wait up to 0.2 s for the first.

        Raises ClusterError if a watch has failed permanently.
        """
        timeout_s: float | None = _DRAIN_TIMEOUT_S
        while True:
            try:
                message = self._messages.get(timeout=timeout_s) if timeout_s else self._messages.get_nowait()
            except queue.Empty:
                return
            timeout_s = None
            if isinstance(message, ClusterError):
                raise message
            self._handle(message, readiness, now)

    def _handle(self, message: _Message, readiness: Readiness, now: datetime) -> None:
        if isinstance(message, _Page):
            if message.is_first:
                readiness.clear(message.kind, message.namespace)
            for item in message.items:
                readiness.update(item, now)
        elif isinstance(message, _Listed):
            self._unlisted.discard((message.kind, message.namespace))
            if all(kind != message.kind for kind, _ in self._unlisted):
                readiness.listed.add(message.kind)
        elif message.type == "DELETED":
            readiness.remove(message.object)
        else:
            readiness.update(message.object, now)

    def _namespaces_to_watch(self, kind: str, labels: str) -> Sequence[str | None]:
        """Return the namespaces for which watches are needed.

        The result is `(None,)`, which means all namespaces, if several namespaces must be watched and the
        credentials allow a LIST over all namespaces.
        """
        if len(self._namespaces) == 1:
            return self._namespaces
        try:
            next(iter(self._cluster.pages(kind, namespace=None, labels=labels)))
        except Forbidden:
            return self._namespaces
        return (None,)

    def _list_and_watch(self, kind: str, namespace: str | None, labels: str) -> None:
        """LIST, then watch from the LIST's version; LIST again if it expires. Give up after some failures."""
        failures = 0
        while not self._closed.is_set():
            try:
                version = self._send_list(kind, namespace, labels)
                while not self._closed.is_set():
                    version = self._send_changes(kind, namespace, labels, version)
                    failures = 0
            except Expired:
                continue
            except Interrupted:  # the receiving thread handles the signal
                return
            except ClusterError as error:
                failures += 1
                if failures == _MAX_FAILURES or not isinstance(error, Unreachable):
                    self._messages.put(error)
                    return
                self._closed.wait(failures)

    def _send_list(self, kind: str, namespace: str | None, labels: str) -> str:
        """LIST the objects and queue each page as a message; return the resourceVersion to watch from."""
        version = ""
        for page in self._cluster.pages(kind, namespace=namespace, labels=labels):
            is_first, version = not version, page.resource_version
            self._messages.put(_Page(kind, namespace, page.items, is_first))
        self._messages.put(_Listed(kind, namespace))
        return version

    def _send_changes(self, kind: str, namespace: str | None, labels: str, version: str) -> str:
        """Queue the changes that one watch reports; return the resourceVersion to continue from."""
        for event in self._cluster.watch(
            kind,
            namespace=namespace,
            labels=labels,
            resource_version=version,
            timeout_s=_WATCH_TIMEOUT_S,
        ):
            version = event.object["metadata"]["resourceVersion"]
            if self._closed.is_set():
                break
            if event.type != "BOOKMARK":
                self._messages.put(event)
        return version
