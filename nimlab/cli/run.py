"""What every command that meets a cluster works with: the files, the cluster, the commit, and one look.

`look_and_think` is the middle of the program's sentence: everything is read once, and planned from.
"""

from __future__ import annotations

import hashlib
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import typer

from nimlab import git, report
from nimlab.cli.lab import Intent, read_intent
from nimlab.cli.options import SyncOptions
from nimlab.cli.root import find_root
from nimlab.cli.target import choose_target
from nimlab.cli.terminal import print_error, print_note, wants_colour
from nimlab.cluster import observe
from nimlab.errors import Interrupted
from nimlab.kube import KubeCluster, Target, connect
from nimlab.plan import Plan, make_plan
from nimlab.recall import Recall, code_stamp
from nimlab.sandbox import default_cache
from nimlab.snapshot import Policy, PruneLimit, Snapshot
from nimlab.spec import SyncSettings
from nimlab.timing import stage
from nimlab.units import UnitError, parse_duration_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Everything one command works with."""

    root: Path
    intent: Intent
    cluster: KubeCluster
    target: Target
    commit: git.Commit | None
    options: SyncOptions
    timeout_s: float
    lock_timeout_s: float
    limit: PruneLimit
    stop: threading.Event
    started_s: float


@contextmanager
def open_run(
    options: SyncOptions,
    *,
    lab: Path | None,
    kubeconfig: Path | None,
    context: str | None,
    in_cluster: bool = False,
) -> Iterator[Run]:
    """Read the files, say which cluster and why, and connect.

    Problems of the files are printed; what they concern is in `intent.broken`. Raises NimlabError when there
    is no lab, no cluster, or a `lab.yaml` that can't be used.
    """
    started_s = time.monotonic()
    root = find_root((lab or Path.cwd()).resolve())
    target = choose_target(root, kubeconfig, context, in_cluster=in_cluster)
    commit = git.read_commit(root)
    print_note(report.format_header(target.name, target.why, commit))
    recall = _recall_of(root)
    intent = read_intent(root, options.names, recall)
    if recall is not None:
        recall.save(forget=options.names is None)
    for error in intent.errors:
        print_error(error)
    settings = intent.files.lab.sync
    with _stop_on_signals() as stop:
        with stage("connect"):
            cluster = connect(target, parallel=settings.parallel, stop=stop)
        for text in cluster.cautions:
            print_note(f"warning  {text}")
        try:
            yield Run(
                root=root,
                intent=intent,
                cluster=cluster,
                target=target,
                commit=commit,
                options=options,
                timeout_s=_seconds(options.timeout, "--timeout", settings.timeout_s),
                lock_timeout_s=_seconds(options.lock_timeout, "--lock-timeout", 0),
                limit=parse_limit(options.max_prune, settings),
                stop=stop,
                started_s=started_s,
            )
        finally:
            cluster.close()


def _recall_of(root: Path) -> Recall | None:
    """What was rendered for this lab before; None where there is no place outside the lab to keep it."""
    try:
        folder = default_cache().resolve() / "rendered"
    except RuntimeError:  # nobody's home, as in some containers
        return None
    if folder.is_relative_to(root):  # a pipeline's cache: whoever writes the repository writes that, too
        return None
    return Recall(folder / hashlib.sha256(bytes(root)).hexdigest()[:32], code_stamp())


def look_and_think(run: Run) -> tuple[Snapshot, Plan]:
    """Read the cluster once and plan from what was read. Raises Interrupted when a signal came meanwhile."""
    with stage("look"):
        snapshot = observe(
            run.cluster,
            run.intent.desired,
            run.intent.apply_set,
            take_ownership=run.options.take_ownership,
            remove_foreign=run.options.remove_foreign,
            parallel=run.intent.files.lab.sync.parallel,
        )
    check_going(run)
    recorded = {entry.sha for entry in snapshot.parent.entries(run.intent.names)} if snapshot.parent else ()
    policy = Policy(
        names=run.intent.names,
        prune=run.options.prune,
        allow_empty=run.options.allow_empty,
        allow_older=run.options.allow_older,
        take_ownership=run.options.take_ownership,
        limit=run.limit,
        broken=run.intent.broken,
        file_errors=len(run.intent.errors),
        commit=run.commit,
        relations={sha: git.relation_to(run.root, run.commit, sha) for sha in recorded},
    )
    with stage("plan"):
        return snapshot, make_plan(run.intent.desired, snapshot, policy)


def check_going(run: Run) -> None:
    """Raise Interrupted once a signal has asked to stop: nothing may be begun after that."""
    if run.stop.is_set():
        raise Interrupted("interrupted before anything was changed")


def plan_text(run: Run, plan: Plan) -> str:
    """Return the plan as people read it, with what it cost to make."""
    sent = run.cluster.requests()
    return report.format_plan(
        plan,
        requests=sent.total,
        writes=sent.writes,
        elapsed_s=time.monotonic() - run.started_s,
        removed_in=commits_of_removal(run, plan),
        dry_run=run.options.dry_run,
        verbose=run.options.verbose,
        paint=wants_colour(sys.stdout),
    )


def commits_of_removal(run: Run, plan: Plan) -> dict[str, str]:
    """Return the commit that removed an experiment's file, for those whose file is gone."""
    gone = [one.name for one in plan.experiments if one.source is None]
    found = {name: git.removed_in(run.root, f"experiments/{name}.yaml") for name in gone}
    return {name: sha for name, sha in found.items() if sha is not None}


def parse_limit(text: str | None, settings: SyncSettings) -> PruneLimit:
    """Return the limit that `--max-prune` or `lab.yaml` sets. Raises NimlabError for other text."""
    if text is None:
        return PruneLimit(
            objects=settings.max_prune_objects,
            percent=settings.max_prune_percent,
            spare_single=True,
        )
    match = re.fullmatch(r"(?P<number>[0-9]{1,9})(?P<percent>%?)", text)
    if match is None:
        raise typer.BadParameter(
            f"`{text}` is neither a number of objects nor a percentage; write `20` or `30%`",
            param_hint="--max-prune",
        )
    number = int(match["number"])
    if match["percent"]:
        return PruneLimit(objects=None, percent=number, spare_single=False)
    return PruneLimit(objects=number, percent=None, spare_single=False)


def _seconds(text: str | None, option: str, default_s: float) -> float:
    if text is None:
        return default_s
    try:
        return parse_duration_ms(text) / 1000
    except UnitError as error:
        raise typer.BadParameter(f"{error.what}; {error.hint}", param_hint=option) from error


@contextmanager
def _stop_on_signals() -> Iterator[threading.Event]:
    """Turn the first SIGINT or SIGTERM into a wish to stop; a second one ends the program as usual."""
    stop = threading.Event()
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

    def on_signal(number: int, frame: FrameType | None) -> None:
        del frame
        print_note("stopping: what is under way is finished, nothing more is begun")
        stop.set()
        signal.signal(number, signal.default_int_handler)

    for number in before:
        signal.signal(number, on_signal)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
