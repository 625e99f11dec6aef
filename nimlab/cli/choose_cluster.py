"""Choose the cluster that an option names; without such an option, choose the running sandbox.

It is an error if no option names a cluster and the sandbox is not running. The user's own kubeconfig and a
pod's ServiceAccount are used only if an option names them. An environment variable or a current context must
never send a sync to the wrong cluster.
"""

from __future__ import annotations

from pathlib import Path

import typer

from nimlab import sandbox
from nimlab.cluster.kube import Target, list_contexts
from nimlab.errors import NimlabError


def sandbox_home(root: Path) -> Path:
    """Return the folder of the lab's sandbox."""
    return root / ".nimlab" / "sandbox"


def choose_target(
    root: Path, kubeconfig: Path | None, context: str | None, *, in_cluster: bool = False
) -> Target:
    """Return the cluster to use.

    Raises NimlabError if there is none. Raises BadParameter if the options name several clusters.
    """
    if in_cluster:
        return _own_cluster(kubeconfig, context)
    if context == "":
        raise typer.BadParameter("the name is empty", param_hint="--context")
    home = sandbox_home(root)
    if kubeconfig is not None:
        why = f"kubeconfig {kubeconfig}, from --kubeconfig"
        return Target(kubeconfig=kubeconfig, context=context, name=context or "cluster", why=why)
    if context is not None:
        why = f"context `{context}`, from --context"
        return Target(kubeconfig=None, context=context, name=context, why=why)
    if sandbox.is_up(home):
        why = "running, and no --context given"
        return Target(kubeconfig=home / "kubeconfig", context=None, name="sandbox", why=why)
    known = list_contexts()
    contexts = f" (your contexts: {', '.join(known[:8])})" if known else ""
    raise NimlabError(
        "no cluster was named, and the sandbox is not running",
        hint=f"start the sandbox with `nimlab sandbox up`, or name a cluster with `--context NAME`{contexts}",
    )


def _own_cluster(kubeconfig: Path | None, context: str | None) -> Target:
    """Return the cluster of the pod in which nimlab runs. Raises BadParameter if another cluster is named."""
    other = "--kubeconfig" if kubeconfig is not None else "--context" if context is not None else None
    if other is not None:
        raise typer.BadParameter(
            f"cannot be combined with {other}: name one cluster", param_hint="--in-cluster"
        )
    why = "the ServiceAccount of this pod, from --in-cluster"
    return Target(kubeconfig=None, context=None, name="in-cluster", why=why, in_cluster=True)
