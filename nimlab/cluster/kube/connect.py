"""Which API server, and as whom: a target -> a connected `KubeCluster`.

The user's kubeconfig is read, never written.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nimlab.cluster.kube.client import KubeCluster
from nimlab.cluster.kube.server_access import Access, in_cluster_access, read_access
from nimlab.errors import Interrupted


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The cluster of this run; None is kubectl's default. `why` is shown to the user."""

    kubeconfig: Path | None
    context: str | None
    name: str
    why: str
    in_cluster: bool = False


def connect(
    target: Target,
    *,
    parallel: int,
    stop: threading.Event | None = None,
    tell: Callable[[str, str], None] | None = None,
) -> KubeCluster:
    """Read the credentials and return a client; no request is sent. Raises NimlabError.

    `parallel` is how many requests may be under way at once. Once `stop` is set, a request that would have to
    be sent again raises Interrupted. `tell` is called with a word and a text for each warning of the server
    and each reason to try again, from any thread.
    """
    connections = parallel + 4  # the watches' beside the workers'
    access = in_cluster_access() if target.in_cluster else read_access(target.kubeconfig, target.context)
    return KubeCluster(
        pool=access.pool(connections),
        host=access.server,
        credentials=access.credentials,
        sleep=time.sleep if stop is None else partial(_sleep_unless, stop),
        tell=tell,
        proxy=None if access.proxy is None else str(access.proxy),
        cautions=_cautions(access),
    )


def _cautions(access: Access) -> tuple[str, ...]:
    if not access.is_insecure:
        return ()
    return (
        f"insecure-skip-tls-verify is set: whoever answers at {access.server} is taken for the cluster, "
        "and gets your credentials",
    )


def _sleep_unless(stop: threading.Event, pause_s: float) -> None:
    if stop.wait(pause_s):
        raise Interrupted("interrupted while the server was too busy to answer")
