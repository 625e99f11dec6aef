"""The port to a cluster, and looking through it: `observe` reads all there is to know, once.

In: a `Cluster` and what is desired. Out: a `Snapshot`. Only reads happen here, and server dry-runs, which
write nothing. A read that fails, is forbidden or is cut short is an error, never an empty answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol, Self, TypeVar

from nimlab.objects.manifest import Manifest, ObjectKey

_T = TypeVar("_T")
_R = TypeVar("_R")


class Propagation(Enum):
    """What happens to what a deleted object owns (its pods)."""

    BACKGROUND = "Background"
    FOREGROUND = "Foreground"
    ORPHAN = "Orphan"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A LIST, whole or one page of it, of one resourceVersion from which a watch can go on.

    `more` says that pages follow this one.
    """

    items: tuple[Manifest, ...]
    resource_version: str
    more: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchEvent:
    """One change seen by a watch; `type` is ADDED, MODIFIED, DELETED or BOOKMARK."""

    type: str
    object: Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """How many requests were sent; `writes` are those that could change something (no dry-runs)."""

    total: int
    writes: int


class Cluster(Protocol):
    """What nimlab asks of a Kubernetes API server. Every method raises ClusterError."""

    def get(self, key: ObjectKey) -> Manifest | None:
        """Return the object, None if there is none."""

    def list_objects(
        self, kind: str, *, namespace: str | None, labels: str = "", fields: str = ""
    ) -> Listing:
        """Return all objects of a kind that the selectors match; all namespaces if None."""

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
        """Yield the same page by page, for what may be too much to hold; Gone when the pages expire.

        `size` is how many objects a page has at most, where it isn't as usual.
        """

    def apply(self, manifest: Manifest, *, manager: str, force: bool, dry_run: bool) -> Manifest:
        """Server-side apply with strict field validation; return the object as the server has it."""

    def create(self, manifest: Manifest) -> Manifest:
        """Create the object; Moved if it exists."""

    def patch(self, key: ObjectKey, operations: Sequence[Mapping[str, Any]], *, dry_run: bool) -> Manifest:
        """Apply a JSON patch and return the object; Moved if its resourceVersion isn't the one demanded."""

    def replace(self, manifest: Manifest) -> Manifest:
        """Replace the object; Moved if its resourceVersion isn't the one given."""

    def delete(
        self,
        key: ObjectKey,
        *,
        uid: str,
        resource_version: str | None,
        propagation: Propagation,
    ) -> None:
        """Delete exactly this object; done if there is none, Moved if it isn't the one meant."""

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

    def survey(self, namespace: str) -> tuple[Manifest, ...]:
        """Return the metadata of every object of every kind in a namespace; Unseen when there may be more."""

    def requests(self) -> Requests:
        """Return the number of requests sent so far."""

    def fenced(self, check: Callable[[], None]) -> Self:
        """Return the same cluster, which calls `check` before each write; what that raises is raised."""
