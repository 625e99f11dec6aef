"""Commands that only look: list, status, logs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from nimlab.cli.options import Context, InCluster, Kubeconfig, LabFolder, Output, OutputFormat, SyncOptions

if TYPE_CHECKING:
    from nimlab.cli.run import Run
    from nimlab.overview import Detail
    from nimlab.plan import Plan

_Name = Annotated[str, typer.Argument(metavar="NAME", help="The experiment's name.")]
_NameOrPlatform = Annotated[
    str, typer.Argument(metavar="NAME", help="The experiment's name, or `platform` for the monitoring stack.")
]


def list_experiments(
    *,
    output: OutputFormat = Output.TEXT,
    lab: LabFolder = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    in_cluster: InCluster = False,
) -> None:
    """List all experiments: their size, how many peers run, and whether they are as in the files."""
    from nimlab import report  # keeps `--help` fast
    from nimlab.apply import system_clock
    from nimlab.cli.run import look_and_think, open_run
    from nimlab.cli.terminal import print_result
    from nimlab.overview import overview_rows

    options = SyncOptions(names=None)
    with open_run(options, lab=lab, kubeconfig=kubeconfig, context=context, in_cluster=in_cluster) as run:
        _, plan = look_and_think(run)
        rows = overview_rows(plan, run.intent.files.experiments, system_clock().now())
    as_json = output is Output.JSON
    print_result(report.rows_json(rows) if as_json else report.format_rows(rows))


def status(
    name: _NameOrPlatform,
    *,
    output: OutputFormat = Output.TEXT,
    lab: LabFolder = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    in_cluster: InCluster = False,
) -> None:
    """Show one experiment: its pods, what troubles them, recent events, and how it differs from its file."""
    from nimlab import report  # keeps `--help` fast
    from nimlab.cli.run import look_and_think, open_run
    from nimlab.cli.terminal import print_result, wants_colour
    from nimlab.owned import PLATFORM

    options = SyncOptions(names=frozenset({name}))
    with open_run(options, lab=lab, kubeconfig=kubeconfig, context=context, in_cluster=in_cluster) as run:
        _, plan = look_and_think(run)
        if plan.refusal is not None and not plan.changes:
            raise plan.refusal
        details = _read_details(run, plan, name)
    if output is Output.JSON:
        as_json = report.platform_json(details) if name == PLATFORM else report.detail_json(details[0])
        print_result(as_json)
    else:
        paint = wants_colour(sys.stdout)
        print_result("\n\n".join(report.format_status(detail, paint=paint) for detail in details))


def _read_details(run: Run, plan: Plan, name: str) -> list[Detail]:
    """Read pods and events, and tell all of an experiment, or of each component of the platform."""
    from concurrent.futures import ThreadPoolExecutor

    from nimlab.apply import system_clock
    from nimlab.manifest import WORKLOADS
    from nimlab.overview import experiment_detail
    from nimlab.owned import PLATFORM
    from nimlab.peers import read_events, read_pods

    apply_set = plan.apply_set
    labels = apply_set.group_label if name == PLATFORM else f"{apply_set.group_label}={name}"
    namespaces = sorted({c.key.namespace for c in plan.changes if c.key.kind in WORKLOADS})
    with ThreadPoolExecutor(max_workers=2) as pool:  # each waits for the server, not for the other
        told = pool.map(lambda namespace: read_events(run.cluster, namespace), namespaces)
        pods = [read_pods(run.cluster, namespace, labels) for namespace in namespaces]
        events = [event for sight in told for event in sight.items]
    return [
        experiment_detail(
            group,
            plan,
            run.intent.files.experiments,
            pods=[pod for sight in pods for pod in sight.items if apply_set.group_of(pod) == group],
            all_pods=all(sight.whole for sight in pods),
            events=events,
            now=system_clock().now(),
        )
        for group in ([one.name for one in plan.experiments] if name == PLATFORM else [name])
    ]


def logs(
    name: _Name,
    *,
    peer: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Only the peer with this number.")
    ] = None,
    tail: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Only the last N lines of each peer.")
    ] = 20,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on as lines come; needs --peer.")
    ] = False,
    lab: LabFolder = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    in_cluster: InCluster = False,
) -> None:
    """Print what an experiment's peers have logged, each line after its peer's name."""
    from nimlab.cli.run import open_run  # keeps `--help` fast
    from nimlab.cli.terminal import print_result
    from nimlab.errors import NimlabError
    from nimlab.manifest import ObjectKey

    if follow and peer is None:
        raise typer.BadParameter("name the peer to follow with --peer N", param_hint="--follow")
    options = SyncOptions(names=frozenset({name}))
    with open_run(options, lab=lab, kubeconfig=kubeconfig, context=context, in_cluster=in_cluster) as run:
        one = next((e for e in run.intent.files.experiments if e.name == name), None)
        if one is None:
            raise NimlabError(
                f"no file has an experiment called `{name}`",
                hint="`nimlab list` shows what there is",
            )
        for number in range(one.peers) if peer is None else (peer,):
            pod = ObjectKey("Pod", one.namespace, f"{one.workload}-{number}")
            for line in run.cluster.log_lines(
                pod, container=one.contract.container, tail=tail, follow=follow
            ):
                print_result(f"{pod.name}  {line}")
