"""A plan that is saved now and carried out later: the file, its options, and whether it still holds."""

from __future__ import annotations

import dataclasses
import json
import secrets
from pathlib import Path
from typing import Final

import typer

from nimlab import __version__
from nimlab.cli.shared_options import SyncOptions
from nimlab.cluster.kube import KubeCluster
from nimlab.errors import Forbidden, PlanError
from nimlab.files.safe_write import write_text
from nimlab.objects.manifest import ObjectKey
from nimlab.plan.make_plan import Plan
from nimlab.plan.saved_plan import ClusterIdentity, PlanOptions, SavedPlan, differences_since, saved_plan_of

_SHOWN: Final = 5
_FREE: Final = (
    "plan",
    "strict",
    "wait",
    "timeout",
    "lock_timeout",
    "verbose",
    "output",
    "terraform",
    "junit",
    "codequality",
)
_WHERE: Final = ("lab", "kubeconfig", "context", "timings")


def reject_own_options(given: frozenset[str]) -> None:
    """Raise typer.BadParameter if the user wrote an option that a saved plan already contains."""
    for name in sorted(given - {*_FREE, *_WHERE, "no_wait"}):
        raise typer.BadParameter(
            f"a saved plan contains its own options; make another plan for `{name.replace('_', '-')}`",
            param_hint="--plan",
        )


def save_plan(path: Path, text: str) -> None:
    """Write a saved plan, whole or not at all. Raises NimlabError."""
    write_text(path, text + "\n")


def read_saved(path: Path) -> SavedPlan:
    """Return what a saved plan is bound to. Raises PlanError when the file isn't one."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PlanError(
            f"the saved plan can't be read: {error}",
            where=path,
            hint="make one with `nimlab sync --dry-run --out FILE`",
        ) from error
    return SavedPlan.from_json(document, str(path))


def options_of(saved: SavedPlan, given: SyncOptions) -> SyncOptions:
    """Return the options of a saved plan, with the given ones on waiting and printing."""
    chosen = dataclasses.asdict(saved.options)
    chosen["names"] = None if saved.options.names is None else frozenset(saved.options.names)
    return dataclasses.replace(given, **chosen)


def identity_of(
    cluster: KubeCluster, namespace: str, *, like: ClusterIdentity | None = None
) -> ClusterIdentity:
    """Return what tells this cluster from others; with `like`, of the same sort as that.

    Both of a pipeline's accounts can read the ConfigMap that every namespace has by itself. Where the lab's
    namespace isn't there yet, only who may do more can plan. An address alone says little: one cluster may
    have several.
    """
    marks = (ObjectKey("ConfigMap", namespace, "kube-root-ca.crt"), ObjectKey("Namespace", "", "kube-system"))
    for key in (one for one in marks if like is None or like.object == str(one)):
        try:
            live = cluster.get(key)
        except Forbidden:
            continue
        if live is not None:
            return ClusterIdentity(object=str(key), id=live["metadata"]["uid"])
    return ClusterIdentity(object=None, id=cluster.host)


def make_saved_plan(
    plan: Plan, options: SyncOptions, cluster: KubeCluster, saved: SavedPlan | None = None
) -> SavedPlan:
    """Return what a plan made with these options is bound to, to be held against a saved one if there is one.

    Raises ClusterError.
    """
    like = saved.cluster if saved else None
    return saved_plan_of(
        plan,
        PlanOptions(
            names=None if options.names is None else tuple(sorted(options.names)),
            prune=options.prune,
            max_prune=options.max_prune,
            allow_empty=options.allow_empty,
            allow_older=options.allow_older,
            take_ownership=options.take_ownership,
            remove_foreign=options.remove_foreign,
            move=options.move,
        ),
        f"nimlab/{__version__}",
        cluster=identity_of(cluster, plan.apply_set.namespace, like=like),
        salt=saved.salt if saved else secrets.token_hex(16),
    )


def refuse_changed_plan(saved: SavedPlan, plan: Plan, options: SyncOptions, cluster: KubeCluster) -> None:
    """Raise PlanError unless the plan is the very one that was saved; ClusterError."""
    moved = differences_since(saved, make_saved_plan(plan, options, cluster, saved))
    if moved:
        more = f", and {len(moved) - _SHOWN} more" if len(moved) > _SHOWN else ""
        raise PlanError(
            f"the saved plan no longer holds: {'; '.join(moved[:_SHOWN])}{more}",
            where=options.plan,
            hint="nothing was done; make a new one with `nimlab sync --dry-run --out FILE`",
        )
