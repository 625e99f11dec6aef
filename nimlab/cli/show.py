"""Commands that only look: list, status, logs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from nimlab.cli.options import Context, Kubeconfig, LabFolder, Output, OutputFormat

_Name = Annotated[str, typer.Argument(metavar="NAME", help="The experiment's name.")]


def list_experiments(
    *,
    output: OutputFormat = Output.TEXT,
    lab: LabFolder = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """List all experiments: their size, how many peers run, and whether they are as in the files."""
    from nimlab import report  # keeps `--help` fast
    from nimlab.apply import system_clock
    from nimlab.cli.run import look_and_think, open_run
    from nimlab.cli.sync import SyncOptions
    from nimlab.cli.terminal import print_result
    from nimlab.overview import overview_rows

    options = SyncOptions(names=None)
    with open_run(options, lab=lab, kubeconfig=kubeconfig, context=context) as run:
        _, plan = look_and_think(run)
        rows = overview_rows(plan, run.intent.files.experiments, system_clock().now())
    as_json = output is Output.JSON
    print_result(report.rows_json(rows) if as_json else report.format_rows(rows))


def status(
    name: _Name,
    *,
    output: OutputFormat = Output.TEXT,
    lab: LabFolder = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Show one experiment: its pods, what troubles them, recent events, and how it differs from its file."""
    from concurrent.futures import ThreadPoolExecutor  # keeps `--help` fast

    from nimlab import report
    from nimlab.apply import system_clock
    from nimlab.cli.run import look_and_think, open_run
    from nimlab.cli.sync import SyncOptions
    from nimlab.cli.terminal import print_result, wants_colour
    from nimlab.overview import experiment_detail
    from nimlab.peers import read_events, read_pods

    options = SyncOptions(names=frozenset({name}))
    with open_run(options, lab=lab, kubeconfig=kubeconfig, context=context) as run:
        _, plan = look_and_think(run)
        if plan.refusal is not None and not plan.changes:
            raise plan.refusal
        namespaces = {c.key.namespace for c in plan.changes if c.key.kind == "StatefulSet"}
        with ThreadPoolExecutor(max_workers=2) as pool:  # each waits for the server, not for the other
            told = pool.map(lambda namespace: read_events(run.cluster, namespace), sorted(namespaces))
            pods = [read_pods(run.cluster, namespace, name) for namespace in sorted(namespaces)]
            events = list(told)
        detail = experiment_detail(
            name,
            plan,
            run.intent.files.experiments,
            pods=[pod for sight in pods for pod in sight.items],
            all_pods=all(sight.whole for sight in pods),
            events=[event for sight in events for event in sight.items],
            now=system_clock().now(),
        )
    if output is Output.JSON:
        print_result(report.detail_json(detail))
    else:
        print_result(report.format_status(detail, paint=wants_colour(sys.stdout)))


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
) -> None:
    """Print what an experiment's peers have logged, each line after its peer's name."""
    from nimlab.cli.run import open_run  # keeps `--help` fast
    from nimlab.cli.sync import SyncOptions
    from nimlab.cli.terminal import print_result
    from nimlab.errors import NimlabError
    from nimlab.manifest import ObjectKey

    if follow and peer is None:
        raise typer.BadParameter("name the peer to follow with --peer N", param_hint="--follow")
    options = SyncOptions(names=frozenset({name}))
    with open_run(options, lab=lab, kubeconfig=kubeconfig, context=context) as run:
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
