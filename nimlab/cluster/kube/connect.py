"""Connect to a cluster: a `Target` -> a `KubeCluster`.

This module reads the user's kubeconfig and never writes to it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nimlab.cluster.kube.api_client import KubeCluster
from nimlab.cluster.kube.resolve_connection import Access, in_cluster_access, read_access
from nimlab.cluster.kube.transport import Transport
from nimlab.errors import Interrupted

_WATCH_CONNECTIONS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The cluster to connect to; None in a field means the same default as in kubectl.

    `name` and `why` (the reason for the choice) are shown to the user. If `in_cluster` is True, the cluster
    of the pod in which nimlab runs is used.
    """

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
    notify: Callable[[str, str], None] | None = None,
) -> KubeCluster:
    """Read the credentials and return a client; no request is sent. Raises NimlabError.

    `parallel` is the number of concurrent requests. Once `stop` is set, a request that would be
    repeated raises Interrupted. `notify` is called from any thread, with a label and a text, for each warning
    from the server and each reason for a retry.
    """
    access = in_cluster_access() if target.in_cluster else read_access(target.kubeconfig, target.context)
    transport = Transport(
        pool=access.pool(parallel + _WATCH_CONNECTIONS),
        host=access.server,
        credentials=access.credentials,
        sleep=time.sleep if stop is None else partial(_sleep_unless, stop),
        notify=notify,
        proxy=None if access.proxy is None else str(access.proxy),
    )
    return KubeCluster(transport, security_warnings=_cautions(access))


def _cautions(access: Access) -> tuple[str, ...]:
    if not access.is_insecure:
        return ()
    return (
        f"insecure-skip-tls-verify is set: the identity of {access.server} is not verified, "
        "and any server at this address receives your credentials",
    )


def _sleep_unless(stop: threading.Event, pause_s: float) -> None:
    if stop.wait(pause_s):
        raise Interrupted("interrupted while waiting to repeat a request")
