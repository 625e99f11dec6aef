"""Which API server, and as whom: a kubeconfig and a context -> a connected `KubeCluster`.

The user's kubeconfig is read, never written.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nimlab.errors import Interrupted, NimlabError
from nimlab.kube.client import KubeCluster
from nimlab.kube.plain import read_access


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The cluster of this run; None is the kubeconfig library's default. `why` is shown to the user."""

    kubeconfig: Path | None
    context: str | None
    name: str
    why: str


def connect(
    target: Target,
    *,
    parallel: int,
    stop: threading.Event | None = None,
    tell: Callable[[str, str], None] | None = None,
) -> KubeCluster:
    """Read the kubeconfig and return a client; no request is sent. Raises NimlabError.

    `parallel` is how many requests may be under way at once. Once `stop` is set, a request that would have to
    be sent again raises Interrupted. `tell` is called with a word and a text for each warning of the server
    and each reason to try again, from any thread.
    """
    connections = parallel + 4  # the watches' beside the workers'
    sleep = time.sleep if stop is None else partial(_sleep_unless, stop)
    access = read_access(target.kubeconfig, target.context)
    if access is None:
        return _connect_by_library(target, connections, sleep, tell)
    try:
        pool = access.pool(connections)
    except OSError as error:
        raise _error(error, target) from error
    return KubeCluster(pool=pool, host=access.server, credentials=access.headers, sleep=sleep, tell=tell)


def _connect_by_library(
    target: Target,
    connections: int,
    sleep: Callable[[float], None],
    tell: Callable[[str, str], None] | None = None,
) -> KubeCluster:
    """Connect as whatever a kubeconfig can say, at the price of importing the library."""
    from kubernetes import client, config
    from kubernetes.client.rest import RESTClientObject

    settings: Any = client.Configuration()
    try:
        config.load_kube_config(  # type: ignore[no-untyped-call] # the library has no types here
            config_file=None if target.kubeconfig is None else str(target.kubeconfig),
            context=target.context,
            client_configuration=settings,
        )
    except _unusable() as error:
        raise _error(error, target) from error
    settings.connection_pool_maxsize = connections
    return KubeCluster(
        pool=RESTClientObject(settings).pool_manager,
        host=settings.host,
        credentials=lambda: _auth_headers(settings),
        sleep=sleep,
        tell=tell,
    )


def _error(error: Exception, target: Target) -> NimlabError:
    return NimlabError(
        f"the kubeconfig can't be used: {error}",
        where=target.kubeconfig or "kubeconfig",
        hint="name another with `--kubeconfig FILE` or `--context NAME`",
    )


def _sleep_unless(stop: threading.Event, pause_s: float) -> None:
    if stop.wait(pause_s):
        raise Interrupted("interrupted while the server was too busy to answer")


def _unusable() -> tuple[type[Exception], ...]:
    """What the library lets through for a kubeconfig that it can't use."""
    import yaml
    from kubernetes.config import ConfigException

    return (ConfigException, yaml.YAMLError, OSError, ValueError, KeyError, TypeError, AttributeError)


def _auth_headers(settings: Any) -> dict[str, str]:  # noqa: ANN401 -- the library has no type for it
    """Headers that authenticate a request; asked anew each time, since a token may be renewed."""
    if settings.refresh_api_key_hook is not None:
        settings.refresh_api_key_hook(settings)
    return {
        auth["key"]: auth["value"]
        for auth in settings.auth_settings().values()
        if auth["in"] == "header" and auth["value"]
    }


def list_contexts(kubeconfig: Path | None = None) -> tuple[str, ...]:
    """Return the names of the contexts in the kubeconfig, sorted; empty if there is none to read."""
    from kubernetes import config  # slow, and only for an error's hint

    try:
        contexts, _ = config.list_kube_config_contexts(  # type: ignore[no-untyped-call] # as above
            None if kubeconfig is None else str(kubeconfig)
        )
    except _unusable():
        return ()
    return tuple(sorted(context["name"] for context in contexts))
