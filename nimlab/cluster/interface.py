"""The interface `Cluster`: the operations that nimlab requires from a Kubernetes API server.

`kube.KubeCluster` implements it over HTTP. The other modules of the package `cluster` use only this
interface.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Protocol, Self

from nimlab.objects.manifest import Manifest, ObjectKey

RUN_AGAIN: Final = "run the command again; it starts from the current state"
MAX_SELECTED_EXPERIMENTS: Final = 50  # a label selector is part of the URL, whose length is limited


class Propagation(Enum):
    """The effect of a deletion on the dependents of the object, such as the pods of a StatefulSet."""

    BACKGROUND = "Background"
    FOREGROUND = "Foreground"
    ORPHAN = "Orphan"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A complete LIST or one page of a LIST, with the resourceVersion from which a watch can continue.

    `more` is True if further pages follow.
    """

    items: tuple[Manifest, ...]
    resource_version: str
    more: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchEvent:
    """One change reported by a watch; `type` is ADDED, MODIFIED, DELETED or BOOKMARK."""

    type: str
    object: Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """The number of requests sent; `writes` counts the requests that can change an object, not dry runs."""

    total: int
    writes: int


class Cluster(Protocol):
    """A Kubernetes API server. Every method can raise ClusterError."""

    def get(self, key: ObjectKey) -> Manifest | None:
        """Return the object, or None if it does not exist."""

    def list_objects(
        self, kind: str, *, namespace: str | None, labels: str = "", fields: str = ""
    ) -> Listing:
        """Return all objects of a kind that match the selectors. `namespace=None` means all namespaces."""

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
        """Yield the objects page by page, for lists that are too large to keep in memory.

        `size` is the maximum number of objects per page; None means the default. Raises Expired when the
        `continue` token expires between two pages.
        """

    def apply(self, manifest: Manifest, *, manager: str, force: bool, dry_run: bool) -> Manifest:
        """Apply the object server-side, with strict field validation; return the object in the response."""

    def create(self, manifest: Manifest) -> Manifest:
        """Create the object. Raises PreconditionFailed if it exists."""

    def patch(self, key: ObjectKey, operations: Sequence[Mapping[str, Any]], *, dry_run: bool) -> Manifest:
        """Apply a JSON patch and return the object.

        Raises PreconditionFailed if the object does not have the resourceVersion that the patch requires.
        """

    def replace(self, manifest: Manifest) -> Manifest:
        """Replace the object. Raises PreconditionFailed if it has another resourceVersion on the server."""

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

    def list_namespace_metadata(self, namespace: str) -> tuple[Manifest, ...]:
        """Return the metadata of every object of every kind in a namespace.

        Raises IncompleteDiscovery when the server cannot list all kinds.
        """

    def requests(self) -> Requests:
        """Return the number of requests sent so far."""

    def fenced(self, check: Callable[[], None]) -> Self:
        """Return a client for the same cluster that calls `check` before each write.

        If `check` raises an exception, the write is not sent.
        """
