"""Watches that fill a board: one thread a kind and namespace, each from a LIST on, renewed as they end.

Threads only send messages; the board belongs to whoever drains them.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Final, Self

from nimlab.apply.board import Awaited, Board
from nimlab.cluster import Cluster, WatchEvent
from nimlab.errors import ClusterError, Forbidden, Gone, Unreachable
from nimlab.manifest import Manifest
from nimlab.owned import EXPERIMENT, PART_OF, ApplySet

_TICK_S: Final = 0.2
_WATCH_S: Final = 30  # short, so that a thread whose feed is closed ends soon
_FAILURES: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listed:
    """Everything there is of a kind; replaces what was known."""

    kind: str
    namespace: str | None
    items: tuple[Manifest, ...]


class Feed:
    """Running watches over the awaited workloads and all peers; a context manager."""

    def __init__(self, cluster: Cluster, awaited: Sequence[Awaited], apply_set: ApplySet) -> None:
        self._cluster = cluster
        self._messages: queue.SimpleQueue[_Listed | WatchEvent | ClusterError] = queue.SimpleQueue()
        self._done = threading.Event()
        keys = {key for one in awaited for key in one.workloads | one.leaving}
        self._namespaces = sorted({key.namespace for key in keys if key.namespace})
        self._selectors = {"StatefulSet": f"{PART_OF}={apply_set.id}", "Pod": EXPERIMENT}

    def __enter__(self) -> Self:
        for kind, labels in self._selectors.items():
            for namespace in self._reach(kind, labels):
                threading.Thread(target=self._follow, args=(kind, namespace, labels), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()

    def drain(self, board: Board, now: datetime) -> None:
        """Put all that has arrived on the board; wait a moment when there is nothing.

        Raises ClusterError when a watch has given up.
        """
        wait_s: float | None = _TICK_S
        while True:
            try:
                message = self._messages.get(timeout=wait_s) if wait_s else self._messages.get_nowait()
            except queue.Empty:
                return
            wait_s = None
            if isinstance(message, ClusterError):
                raise message
            _note(message, board, now)

    def _reach(self, kind: str, labels: str) -> Sequence[str | None]:
        """One watch over all namespaces where the rights allow it, one for each where they don't."""
        if len(self._namespaces) == 1:
            return self._namespaces
        try:
            self._cluster.list_objects(kind, namespace=None, labels=labels)
        except Forbidden:
            return self._namespaces
        return (None,)

    def _follow(self, kind: str, namespace: str | None, labels: str) -> None:
        """LIST, then watch from there, again and again; give up after some failures in a row."""
        failures = 0
        while not self._done.is_set():
            try:
                listing = self._cluster.list_objects(kind, namespace=namespace, labels=labels)
                self._messages.put(_Listed(kind=kind, namespace=namespace, items=listing.items))
                version = listing.resource_version
                while not self._done.is_set():
                    version = self._watch(kind, namespace, labels, version)
                    failures = 0
            except Gone:
                continue
            except ClusterError as error:
                failures += 1
                if failures == _FAILURES or not isinstance(error, Unreachable):
                    self._messages.put(error)
                    return
                self._done.wait(failures)

    def _watch(self, kind: str, namespace: str | None, labels: str, version: str) -> str:
        """Pass on what one watch tells; return the resourceVersion to go on from."""
        for event in self._cluster.watch(
            kind,
            namespace=namespace,
            labels=labels,
            resource_version=version,
            timeout_s=_WATCH_S,
        ):
            version = event.object["metadata"]["resourceVersion"]
            if self._done.is_set():
                break
            if event.type != "BOOKMARK":
                self._messages.put(event)
        return version


def _note(message: _Listed | WatchEvent, board: Board, now: datetime) -> None:
    if isinstance(message, _Listed):
        board.forget(message.kind, message.namespace)
        for item in message.items:
            board.put(item, now)
        board.listed.add(message.kind)
    elif message.type == "DELETED":
        board.drop(message.object)
    else:
        board.put(message.object, now)
