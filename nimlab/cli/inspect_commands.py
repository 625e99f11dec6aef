"""Commands that only look: list, status, logs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from nimlab.cli.shared_options import (
    Context,
    InCluster,
    Kubeconfig,
    LabFolder,
    Output,
    OutputFormat,
    SyncOptions,
)

if TYPE_CHECKING:
    from datetime import datetime

    from nimlab.files.spec import Experiment
    from nimlab.objects.manifest import Manifest, ObjectKey
    from nimlab.plan.make_plan import Plan
    from nimlab.plan.pod_trouble import Trouble
    from nimlab.report.experiment_detail import Detail
    from nimlab.workflow.session import Run

_Name = Annotated[str, typer.Argument(metavar="NAME", help="The experiment's name.")]
_ExitCode = Annotated[
    bool,
    typer.Option(
        "--exit-code", help="Exit with 4 when not all pods run as asked, with 3 when Git and cluster differ."
    ),
]
_NameOrPlatform = Annotated[
    str, typer.Argument(metavar="NAME", help="The experiment's name, or `platform` for the monitoring stack.")
]


def list_experiments(
    *,
    output: OutputFormat = Output.TEXT,
    exit_code: _ExitCode = False,
    lab: LabFolder = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    in_cluster: InCluster = False,
) -> None:
    """List all experiments: their size, how they stand to Git, and how their peers are."""
    from nimlab import report  # keeps `--help` fast
    from nimlab.cli.terminal import columns_of, print_error, print_result
    from nimlab.cluster.apply import system_clock
    from nimlab.report.list_rows import overview_rows
    from nimlab.workflow.session import observe_and_plan, open_run

    options = SyncOptions(names=None)
    with open_run(options, lab=lab, kubeconfig=kubeconfig, context=context, in_cluster=in_cluster) as run:
        _, plan = observe_and_plan(run)
        now = system_clock().now()
        rows = overview_rows(plan, run.intent.files.experiments, now, _find_troubles(run, plan, now))
    as_json = output is Output.JSON
    print_result(
        report.rows_json(rows) if as_json else report.format_rows(rows, columns=columns_of(sys.stdout))
    )
    if plan.refusal is not None:
        print_error(plan.refusal)
    if exit_code:
        raise typer.Exit(plan.refusal.exit_code if plan.refusal else report.exit_code_of_rows(rows))


def _find_troubles(run: Run, plan: Plan, now: datetime) -> dict[str, tuple[Trouble, ...]]:
    """Read a few pages of pods and warnings, and only for experiments whose pods don't all run."""
    from nimlab.cluster.pod_reader import find_troubled, read_warnings
    from nimlab.plan.pod_trouble import is_due, pod_trouble
    from nimlab.report.experiment_troubles import short_experiments, troubles_of
    from nimlab.report.list_rows import live_workloads

    def is_troubled(pod: Manifest) -> bool:
        trouble = pod_trouble(pod, now)
        return trouble is not None and is_due(trouble, now)

    short = short_experiments(plan)
    homes = {one.name: live_workloads(one)[0]["metadata"]["namespace"] for one in short}
    pods = find_troubled(run.cluster, plan.apply_set.group_label, homes, is_troubled)
    by_name: dict[str, list[Manifest]] = {}
    for pod in pods:
        by_name.setdefault(plan.apply_set.group_of(pod), []).append(pod)
    silent = sorted({homes[name] for name in homes if name not in by_name})
    events = read_warnings(run.cluster, silent)
    return {one.name: troubles_of(one, by_name.get(one.name, ()), events, now) for one in short}


def status(
    name: _NameOrPlatform,
    *,
    output: OutputFormat = Output.TEXT,
    exit_code: _ExitCode = False,
    lab: LabFolder = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    in_cluster: InCluster = False,
) -> None:
    """Show one experiment: its pods, what troubles them, recent events, and how it differs from its file."""
    from nimlab import report  # keeps `--help` fast
    from nimlab.cli.terminal import columns_of, print_result, wants_colour
    from nimlab.objects.applyset import PLATFORM
    from nimlab.workflow.session import observe_and_plan, open_run, raise_if_stopped

    options = SyncOptions(names=frozenset({name}))
    with open_run(options, lab=lab, kubeconfig=kubeconfig, context=context, in_cluster=in_cluster) as run:
        _, plan = observe_and_plan(run)
        if plan.refusal is not None and not plan.changes:
            raise plan.refusal
        details = _read_details(run, plan, name)
        raise_if_stopped(run)
    if output is Output.JSON:
        as_json = report.platform_json(details) if name == PLATFORM else report.detail_json(details[0])
        print_result(as_json)
    else:
        paint, columns = wants_colour(sys.stdout), columns_of(sys.stdout)
        pages = (report.format_status(detail, paint=paint, columns=columns) for detail in details)
        print_result("\n\n".join(pages))
    if exit_code:
        raise typer.Exit(report.exit_code_of_rows([detail.row for detail in details]))


def _read_details(run: Run, plan: Plan, name: str) -> list[Detail]:
    """Read pods and events, and tell all of an experiment, or of each component of the platform."""
    from concurrent.futures import ThreadPoolExecutor

    from nimlab.cluster.apply import system_clock
    from nimlab.cluster.pod_reader import read_events, read_pods
    from nimlab.objects.applyset import PLATFORM
    from nimlab.objects.manifest import WORKLOADS
    from nimlab.report.experiment_detail import experiment_detail

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
    role: Annotated[str | None, typer.Option(metavar="ROLE", help="Only the peers of this role.")] = None,
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
    from nimlab.cli.signals import raising
    from nimlab.cli.streams import STREAMS
    from nimlab.cli.terminal import print_result
    from nimlab.errors import NimlabError
    from nimlab.workflow.session import open_run  # keeps `--help` fast

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
        pods = _pods_of(one, role, peer)
        with raising():  # a log that is followed has no end to wait for
            for pod in pods:
                for line in run.cluster.log_lines(
                    pod, container=one.contract.container, tail=tail, follow=follow
                ):
                    print_result(f"{pod.name}  {line}")
                    if STREAMS.is_stdout_lost:
                        return


def _pods_of(one: Experiment, role: str | None, peer: int | None) -> list[ObjectKey]:
    """The peers that were asked for, in the order of roles and numbers. Raises NimlabError."""
    from nimlab.errors import NimlabError
    from nimlab.objects.manifest import ObjectKey

    groups = [group for group in one.groups if role is None or group.role == role]
    if not groups or (peer is not None and len(groups) > 1):
        known = ", ".join(group.role for group in one.groups if group.role is not None)
        what = f"`{one.name}` has no role `{role}`" if role is not None else f"`{one.name}` has roles"
        hint = f"name one with `--role`: {known}" if known else "leave out `--role`"
        raise NimlabError(what, where=one.source, hint=hint)
    return [
        ObjectKey("Pod", one.namespace, f"{one.workload_of(group)}-{number}")
        for group in groups
        for number in (range(group.peers) if peer is None else (peer,))
    ]
