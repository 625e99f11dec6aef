"""Commands that only read the cluster: list, status, logs."""

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
)

if TYPE_CHECKING:
    from datetime import datetime

    from nimlab.files.spec import Experiment
    from nimlab.objects.manifest import Manifest, ObjectKey
    from nimlab.plan.make_plan import Plan
    from nimlab.plan.pod_trouble import Trouble
    from nimlab.report.experiment_detail import Detail
    from nimlab.workflow.session import Session

_Name = Annotated[str, typer.Argument(metavar="NAME", help="The experiment's name.")]
_ExitCode = Annotated[
    bool,
    typer.Option(
        "--exit-code", help="Exit with 4 if some pods do not run, with 3 if Git and the cluster differ."
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
    """List all experiments and their state.

    The list shows the number of peers, how many are running, and whether the cluster differs from Git.
    """
    from nimlab import report  # keeps `--help` fast
    from nimlab.cli.open_session import ClusterFlags, open_lab_session
    from nimlab.cli.terminal import columns_of, print_error, print_result
    from nimlab.cluster.apply import system_clock
    from nimlab.report.list_rows import rows_of
    from nimlab.workflow.observe_and_plan import plan

    flags = ClusterFlags(lab=lab, kubeconfig=kubeconfig, context=context, in_cluster=in_cluster)
    with open_lab_session(flags, None) as session:
        planned = plan(session)
        now = system_clock().now()
        experiments = session.lab.desired.files.experiments
        rows = rows_of(planned, experiments, now, _find_troubles(session, planned, now))
    as_json = output is Output.JSON
    print_result(
        report.rows_json(rows) if as_json else report.format_rows(rows, columns=columns_of(sys.stdout))
    )
    if planned.refusal is not None:
        print_error(planned.refusal)
    if exit_code:
        raise typer.Exit(planned.refusal.exit_code if planned.refusal else report.exit_code_of_rows(rows))


def _find_troubles(session: Session, plan: Plan, now: datetime) -> dict[str, tuple[Trouble, ...]]:
    """Return, for each experiment, why its pods do not run; read only a few pages of pods and events."""
    from nimlab.cluster.pod_reader import find_troubled_pods, read_warnings
    from nimlab.plan.pod_trouble import is_due, pod_trouble
    from nimlab.report.experiment_troubles import short_experiments, troubles_of
    from nimlab.report.list_rows import live_workloads

    def is_troubled(pod: Manifest) -> bool:
        trouble = pod_trouble(pod, now)
        return trouble is not None and is_due(trouble, now)

    incomplete = short_experiments(plan)
    namespaces = {e.name: live_workloads(e)[0]["metadata"]["namespace"] for e in incomplete}
    pods = find_troubled_pods(session.cluster, plan.apply_set.group_label, namespaces, is_troubled)
    by_name: dict[str, list[Manifest]] = {}
    for pod in pods:
        by_name.setdefault(plan.apply_set.group_of(pod), []).append(pod)
    unexplained = sorted({namespaces[name] for name in namespaces if name not in by_name})
    events = read_warnings(session.cluster, unexplained)
    return {e.name: troubles_of(e, by_name.get(e.name, ()), events, now) for e in incomplete}


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
    """Show the state of one experiment.

    The output shows its pods and their problems, recent events, and the differences from its file.
    """
    from nimlab import report  # keeps `--help` fast
    from nimlab.cli.open_session import ClusterFlags, open_lab_session
    from nimlab.cli.terminal import columns_of, print_result, wants_colour
    from nimlab.objects.applyset import PLATFORM
    from nimlab.workflow.observe_and_plan import plan

    flags = ClusterFlags(lab=lab, kubeconfig=kubeconfig, context=context, in_cluster=in_cluster)
    with open_lab_session(flags, frozenset({name})) as session:
        planned = plan(session)
        if planned.refusal is not None and not planned.changes:
            raise planned.refusal
        details = _read_details(session, planned, name)
        session.raise_if_stopped()
    if output is Output.JSON:
        as_json = report.platform_json(details) if name == PLATFORM else report.detail_json(details[0])
        print_result(as_json)
    else:
        paint, columns = wants_colour(sys.stdout), columns_of(sys.stdout)
        pages = (report.format_status(detail, paint=paint, columns=columns) for detail in details)
        print_result("\n\n".join(pages))
    if exit_code:
        raise typer.Exit(report.exit_code_of_rows([detail.row for detail in details]))


def _read_details(session: Session, plan: Plan, name: str) -> list[Detail]:
    """Read pods and events; return the details of one experiment, or of each component of the platform."""
    from concurrent.futures import ThreadPoolExecutor

    from nimlab.cluster.apply import system_clock
    from nimlab.cluster.pod_reader import read_events, read_pods
    from nimlab.objects.applyset import PLATFORM
    from nimlab.objects.kinds_and_order import WORKLOADS
    from nimlab.report.experiment_detail import experiment_detail

    apply_set = plan.apply_set
    labels = apply_set.group_label if name == PLATFORM else f"{apply_set.group_label}={name}"
    namespaces = sorted({c.key.namespace for c in plan.changes if c.key.kind in WORKLOADS})
    with ThreadPoolExecutor(max_workers=2) as pool:  # events and pods are read at the same time
        event_lists = pool.map(lambda namespace: read_events(session.cluster, namespace), namespaces)
        pod_lists = [read_pods(session.cluster, namespace, labels) for namespace in namespaces]
        events = [event for event_list in event_lists for event in event_list.items]
    return [
        experiment_detail(
            group,
            plan,
            session.lab.desired.files.experiments,
            pods=[pod for pods in pod_lists for pod in pods.items if apply_set.group_of(pod) == group],
            all_pods=all(pods.is_complete for pods in pod_lists),
            events=events,
            now=system_clock().now(),
        )
        for group in ([component.name for component in plan.experiments] if name == PLATFORM else [name])
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
        bool, typer.Option("--follow", "-f", help="Keep printing new lines; needs --peer.")
    ] = False,
    lab: LabFolder = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    in_cluster: InCluster = False,
) -> None:
    """Print the logs of an experiment's peers.

    Each line starts with the name of its peer.
    """
    from nimlab.cli.open_session import ClusterFlags, open_lab_session
    from nimlab.cli.signals import raising
    from nimlab.cli.streams import STREAMS
    from nimlab.cli.terminal import print_result
    from nimlab.errors import NimlabError  # keeps `--help` fast

    if follow and peer is None:
        raise typer.BadParameter("name the peer to follow with --peer N", param_hint="--follow")
    flags = ClusterFlags(lab=lab, kubeconfig=kubeconfig, context=context, in_cluster=in_cluster)
    with open_lab_session(flags, frozenset({name})) as session:
        experiment = next((e for e in session.lab.desired.files.experiments if e.name == name), None)
        if experiment is None:
            raise NimlabError(
                f"no file describes an experiment called `{name}`",
                hint="`nimlab list` lists all experiments",
            )
        pods = _pods_of(experiment, role, peer)
        with raising():  # following a log never ends, so a signal must end it at once
            for pod in pods:
                for line in session.cluster.log_lines(
                    pod, container=experiment.contract.container, tail=tail, follow=follow
                ):
                    print_result(f"{pod.name}  {line}")
                    if STREAMS.is_stdout_lost:
                        return


def _pods_of(experiment: Experiment, role: str | None, peer: int | None) -> list[ObjectKey]:
    """Return the keys of the chosen pods, ordered by role and number. Raises NimlabError."""
    from nimlab.errors import NimlabError
    from nimlab.objects.manifest import ObjectKey

    name = experiment.name
    groups = [group for group in experiment.groups if role is None or group.role == role]
    if not groups or (peer is not None and len(groups) > 1):
        roles = ", ".join(group.role for group in experiment.groups if group.role is not None)
        what = f"`{name}` has no role `{role}`" if role is not None else f"`{name}` has several roles"
        hint = f"choose a role with `--role`: {roles}" if roles else "remove `--role`"
        raise NimlabError(what, where=experiment.source, hint=hint)
    return [
        ObjectKey("Pod", experiment.namespace, f"{experiment.workload_of(group)}-{number}")
        for group in groups
        for number in (range(group.peers) if peer is None else (peer,))
    ]
