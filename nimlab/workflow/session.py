"""A session: the lab's files as they were read, and a connection to the cluster.

Every command that needs a cluster opens a session. In: the lab's folder and a target. Out: a `Session` for
`observe_and_plan` and `sync`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from nimlab.cluster.kube import KubeCluster, Target, connect
from nimlab.errors import Interrupted
from nimlab.files.git_history import Commit
from nimlab.objects.mask_secrets import redact, secrets_in
from nimlab.stopwatch import stage
from nimlab.workflow.desired_lab import DesiredLab, cache_of, read_desired_lab


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedLab:
    """The content of the lab's files, as read at one time.

    `commit` is the checked-out commit; None outside a Git repository. `names` are the requested experiments;
    None means all. `desired.errors` are the errors of the files.
    """

    root: Path
    commit: Commit | None
    names: frozenset[str] | None
    desired: DesiredLab


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterNotice:
    """A message about the connection; `topic` is `warning` (from the server) or `retry` (of a request)."""

    topic: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A lab and a connection to its cluster.

    `target` is the chosen cluster, with the reason for the choice. Once `stop` is set, no new work starts.
    """

    lab: LoadedLab
    target: Target
    cluster: KubeCluster
    stop: threading.Event

    def raise_if_stopped(self) -> None:
        """Raise Interrupted if `stop` is set. Call this before anything is changed."""
        if self.stop.is_set():
            raise Interrupted("interrupted before anything was changed")

    def warnings(self) -> tuple[str, ...]:
        """Return the server's warnings so far, without duplicates and secret values."""
        without_secrets = _secret_remover(self.lab.desired)
        return tuple(dict.fromkeys(without_secrets(text) for text in self.cluster.warnings()))


def read_lab(root: Path, names: frozenset[str] | None = None, *, commit: Commit | None) -> LoadedLab:
    """Read the lab's files and render the experiments in `names`; None means all experiments.

    `commit` is the result of `files.git_history.read_commit` for this folder. Errors of single experiments
    are in `desired.errors`. Raises NimlabError if `lab.yaml` or the templates cannot be used.
    """
    value_cache = cache_of(root)
    desired = read_desired_lab(root, names, value_cache, commit.hidden if commit else ())
    if value_cache is not None:
        value_cache.save(forget=names is None)
    return LoadedLab(root=root, commit=commit, names=names, desired=desired)


@contextmanager
def open_session(
    lab: LoadedLab,
    target: Target,
    *,
    stop: threading.Event | None = None,
    notify: Callable[[ClusterNotice], None] | None = None,
) -> Iterator[Session]:
    """Connect to the cluster until the context ends. Raises NimlabError if the credentials cannot be used.

    Once `stop` is set, waits and retries end early. `notify` may be called from any thread; its texts contain
    no secrets.
    """
    stop = threading.Event() if stop is None else stop
    with stage("connect"):
        without_secrets = _secret_remover(lab.desired)

        def pass_on(topic: str, text: str) -> None:
            if notify is not None:
                notify(ClusterNotice(topic=topic, text=without_secrets(text)))

        parallel = lab.desired.files.lab.sync.parallel
        cluster = connect(target, parallel=parallel, stop=stop, notify=pass_on)
    try:
        yield Session(lab=lab, target=target, cluster=cluster, stop=stop)
    finally:
        cluster.close()


def _secret_remover(desired: DesiredLab) -> Callable[[str], str]:
    """Return a function that removes the secret values of the desired objects from texts of the server.

    The secrets are collected when the first text arrives, because most sessions receive no text.
    """

    @cache
    def secrets() -> frozenset[str]:
        return secrets_in(*(manifest for group in desired.desired for manifest in group.manifests))

    return lambda text: redact(text, secrets())
