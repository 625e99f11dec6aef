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
from typing import Final, Self, TypeAlias

from nimlab.cluster.apply.readiness import Readiness, WaitTarget
from nimlab.cluster.port import Cluster, WatchEvent
from nimlab.errors import ClusterError, Expired, Forbidden, Interrupted, Unreachable
from nimlab.objects.applyset import PART_OF, ApplySet
from nimlab.objects.manifest import WORKLOADS, Manifest

_TICK_S: Final = 0.2
_WATCH_S: Final = 30  # short, so that a thread whose feed is closed ends soon
_FAILURES: Final = 5
_NAMED: Final = 50  # more experiments than that aren't named in a selector: it is part of an URL


@dataclass(frozen=True, slots=True)
class _Page:
    """A page of what there is of a kind; the first replaces what was known."""

    kind: str
    namespace: str | None
    items: tuple[Manifest, ...]
    is_first: bool


@dataclass(frozen=True, slots=True)
class _Listed:
    """All pages of a kind have been told."""

    kind: str
    namespace: str | None


_Message: TypeAlias = _Page | _Listed | WatchEvent


class Watcher:
    """Running watches over the awaited workloads and all peers; a context manager."""

    def __init__(self, cluster: Cluster, awaited: Sequence[WaitTarget], apply_set: ApplySet) -> None:
        self._cluster = cluster
        self._messages: queue.SimpleQueue[_Message | ClusterError] = queue.SimpleQueue()
        self._done = threading.Event()
        keys = {key for one in awaited for key in one.workloads | one.leaving}
        self._unlisted: set[tuple[str, str | None]] = set()
        self._namespaces = sorted({key.namespace for key in keys if key.kind in WORKLOADS})
        names = sorted(one.experiment for one in awaited if one.workloads and one.needs_pods)
        label = apply_set.group_label
        pods = f"{label} in ({','.join(names)})" if len(names) <= _NAMED else label
        members = dict.fromkeys({key.kind for key in keys} & WORKLOADS, f"{PART_OF}={apply_set.id}")
        self._selectors = {**members, "Pod": pods} if names else members

    def __enter__(self) -> Self:
        self._unlisted = {
            (kind, n) for kind, labels in self._selectors.items() for n in self._reach(kind, labels)
        }
        for kind, namespace in tuple(self._unlisted):
            labels = self._selectors[kind]
            threading.Thread(target=self._follow, args=(kind, namespace, labels), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()

    def drain(self, board: Readiness, now: datetime) -> None:
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
            self._note(message, board, now)

    def _note(self, message: _Message, board: Readiness, now: datetime) -> None:
        if isinstance(message, _Page):
            if message.is_first:
                board.forget(message.kind, message.namespace)
            for item in message.items:
                board.put(item, now)
        elif isinstance(message, _Listed):
            self._unlisted.discard((message.kind, message.namespace))
            if all(kind != message.kind for kind, _ in self._unlisted):
                board.listed.add(message.kind)
        elif message.type == "DELETED":
            board.drop(message.object)
        else:
            board.put(message.object, now)

    def _reach(self, kind: str, labels: str) -> Sequence[str | None]:
        """One watch over all namespaces where the rights allow it, one for each where they don't."""
        if len(self._namespaces) == 1:
            return self._namespaces
        try:
            next(iter(self._cluster.pages(kind, namespace=None, labels=labels)))
        except Forbidden:
            return self._namespaces
        return (None,)

    def _follow(self, kind: str, namespace: str | None, labels: str) -> None:
        """LIST, then watch from there, again and again; give up after some failures in a row."""
        failures = 0
        while not self._done.is_set():
            try:
                version = ""
                for page in self._cluster.pages(kind, namespace=namespace, labels=labels):
                    is_first, version = not version, page.resource_version
                    self._messages.put(_Page(kind, namespace, page.items, is_first))
                self._messages.put(_Listed(kind, namespace))
                while not self._done.is_set():
                    version = self._watch(kind, namespace, labels, version)
                    failures = 0
            except Expired:
                continue
            except Interrupted:  # a signal: whoever drains the feed knows of it
                return
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
