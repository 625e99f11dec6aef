"""What every command that meets a cluster works with: the files, the cluster, the commit, and one look.

`look_and_think` is the middle of the program's sentence: everything is read once, and planned from.
"""

from __future__ import annotations

import functools
import hashlib
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import typer

from nimlab import report
from nimlab.cli import signals
from nimlab.cli.lab_folder import find_root, start_folder
from nimlab.cli.shared_options import SyncOptions
from nimlab.cli.target import choose_target
from nimlab.cli.terminal import print_error, print_note, rows_of, wants_colour
from nimlab.cluster.kube import KubeCluster, Target, connect
from nimlab.cluster.observe import LabOrigin, observe
from nimlab.errors import Interrupted
from nimlab.files import git
from nimlab.files.spec import SyncSettings
from nimlab.objects.applyset_parent import Parent
from nimlab.objects.lab_identity import LabIdentity
from nimlab.objects.masking import redact, secrets_in
from nimlab.plan.make_plan import Plan, make_plan
from nimlab.plan.snapshot import Policy, PruneLimit, Snapshot
from nimlab.timing import stage
from nimlab.units import UnitError, parse_duration_ms
from nimlab.workflow.desired import DesiredLab, cache_of, read_desired_lab

_LONGEST_WAIT_S: Final = 24 * 3600  # as in lab.yaml; much longer waits overflow the clocks of the system
_APART: Final = (git.Relation.DIVERGED, git.Relation.UNKNOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Everything one command works with."""

    root: Path
    intent: DesiredLab
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
    root = find_root(start_folder(lab))
    target = choose_target(root, kubeconfig, context, in_cluster=in_cluster)
    commit = git.read_commit(root)
    print_note(report.format_header(target.name, target.why, commit))
    value_cache = cache_of(root)
    intent = read_desired_lab(root, options.names, value_cache, commit.hidden if commit else ())
    if value_cache is not None:
        value_cache.save(forget=options.names is None)
    for error in intent.errors:
        print_error(error)
    settings = intent.files.lab.sync
    stop = threading.Event()
    with signals.stopping(stop):
        with stage("connect"):
            clean = _cleaner(intent)
            cluster = connect(
                target,
                parallel=settings.parallel,
                stop=stop,
                tell=lambda name, text: print_note(report.format_note(name, clean(text), paint=False)),
            )
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


def warnings_of(run: Run) -> tuple[str, ...]:
    """Return what the server has warned of so far, without secret values."""
    clean = _cleaner(run.intent)
    return tuple(dict.fromkeys(clean(text) for text in run.cluster.warnings()))


def _cleaner(intent: DesiredLab) -> Callable[[str], str]:
    """Return a function that takes the secret values of what is synced out of a text of the server's.

    They are looked for with the first text only: most runs have none.
    """

    @cache
    def secrets() -> frozenset[str]:
        return secrets_in(*(manifest for one in intent.desired for manifest in one.manifests))

    return lambda text: redact(text, secrets())


def observe_and_plan(run: Run) -> tuple[Snapshot, Plan]:
    """Read the cluster once and plan from what was read. Raises Interrupted when a signal came meanwhile."""
    relation_of = functools.cache(lambda sha: git.relation_to(run.root, run.commit, sha))
    origin = LabOrigin(
        identity=_identity_of(run),
        relation_of=relation_of,
        former_namespaces=lambda: git.former_values(run.root, "lab.yaml", "namespace"),
    )
    with stage("look"):
        snapshot = observe(
            run.cluster,
            run.intent.desired,
            run.intent.apply_set,
            take_ownership=run.options.take_ownership,
            remove_foreign=run.options.remove_foreign,
            parallel=run.intent.files.lab.sync.parallel,
            origin=origin,
        )
    raise_if_stopped(run)
    relations: dict[str, git.Relation] = {}
    for parent in filter(None, (snapshot.parent, *(one.parent for one in snapshot.former))):
        relations |= _relations(parent, relation_of)
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
        relations=relations,
        remedies={
            sha: git.remedy_for(run.root, run.commit, sha) for sha, r in relations.items() if r in _APART
        },
        lab=origin.identity,
        move=run.options.move,
    )
    with stage("plan"):
        return snapshot, make_plan(run.intent.desired, snapshot, policy)


def _relations(parent: Parent, relation_of: Callable[[str], git.Relation]) -> dict[str, git.Relation]:
    """Return the relation of each commit that a parent records.

    The first commit counts only where no other one is known, so the usual sync starts no Git process for it.
    """
    found = {entry.sha: relation_of(entry.sha) for entry in parent.entries(None)}
    if parent.origin is not None and all(one is git.Relation.UNKNOWN for one in found.values()):
        found[parent.origin] = relation_of(parent.origin)
    return found


def _identity_of(run: Run) -> LabIdentity:
    """Return what distinguishes this lab from others, from its file, its repository and its folder."""
    host = f"{socket.gethostname()}:{run.root}"
    return LabIdentity(
        id=run.intent.files.lab.id,
        repository_folder=git.folder_in_repository(run.root) if run.commit else None,
        host_folder=hashlib.sha256(host.encode()).hexdigest()[:32],
    )


def raise_if_stopped(run: Run) -> None:
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
        rows=rows_of(sys.stdout),
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
    match = re.fullmatch(r"(?P<number>[0-9]{1,9}(?!%)|[0-9]{1,2}(?=%)|100(?=%))(?P<percent>%?)", text)
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
        duration_s = parse_duration_ms(text) / 1000
    except UnitError as error:
        raise typer.BadParameter(f"{error.what}; {error.hint}", param_hint=option) from error
    if duration_s > _LONGEST_WAIT_S:
        raise typer.BadParameter(f"`{text}` is more than `24h`", param_hint=option)
    return duration_s
