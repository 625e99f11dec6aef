"""Open a session for one command: find the lab, choose the cluster, print the header and the errors of files.

In: the options of all commands that use a cluster. Out: a `workflow.session.Session`. After the files have
been read, a signal sets the session's `stop` event.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nimlab import report
from nimlab.cli import signals
from nimlab.cli.choose_cluster import choose_target
from nimlab.cli.find_lab_folder import find_root, start_folder
from nimlab.cli.terminal import print_error, print_note
from nimlab.files.git_history import read_commit
from nimlab.workflow.session import ClusterNotice, Session, open_session, read_lab


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFlags:
    """The options `--lab`, `--kubeconfig`, `--context` and `--in-cluster` of a command."""

    lab: Path | None
    kubeconfig: Path | None
    context: str | None
    in_cluster: bool


@contextmanager
def open_lab_session(flags: ClusterFlags, names: frozenset[str] | None) -> Iterator[Session]:
    """Read the lab for these experiments (None: all experiments), and connect to the cluster.

    Raises NimlabError if there is no lab or no cluster, or if `lab.yaml` cannot be used.
    """
    root = find_root(start_folder(flags.lab))
    target = choose_target(root, flags.kubeconfig, flags.context, in_cluster=flags.in_cluster)
    commit = read_commit(root)
    print_note(report.format_header(target.name, target.why, commit))
    lab = read_lab(root, names, commit=commit)
    for error in lab.desired.errors:
        print_error(error)
    stop = threading.Event()
    with signals.stopping(stop), open_session(lab, target, stop=stop, notify=_print_notice) as session:
        for text in session.cluster.security_warnings:
            print_note(f"warning  {text}")
        yield session


def _print_notice(notice: ClusterNotice) -> None:
    print_note(report.format_note(notice.topic, notice.text, paint=False))
