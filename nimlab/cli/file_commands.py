"""Commands for files: validate, render, rbac, create, scale, delete. Only `--sync` requires a cluster."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nimlab.cli.shared_options import (
    CodeQuality,
    Context,
    InCluster,
    Kubeconfig,
    LabFolder,
    Names,
    Output,
    OutputFormat,
    Timings,
    decimal_number,
    whole_number,
)

if TYPE_CHECKING:
    from nimlab.files.spec import LabFiles

_Sync = Annotated[bool, typer.Option("--sync", help="Also sync this experiment.")]
_Name = Annotated[str, typer.Argument(metavar="NAME", help="The experiment's name.")]


def validate(
    *,
    output: OutputFormat = Output.TEXT,
    codequality: CodeQuality = None,
    timings: Timings = False,
    lab: LabFolder = None,
) -> None:
    """Check all files and manifests.

    Every problem is printed with its file and line.
    """
    from nimlab import report  # keeps `--help` fast
    from nimlab.cli.find_lab_folder import find_root
    from nimlab.cli.terminal import print_note, print_result, print_timings, wants_colour
    from nimlab.files.git_history import folder_in_repository
    from nimlab.files.safe_write import write_text
    from nimlab.stopwatch import START, stage

    with stage(START):
        from nimlab.workflow.validate_lab import check_lab

    root = find_root(_start(lab))
    validated = check_lab(root)
    problems, warnings = validated.problems, validated.warnings
    if warnings and output is Output.TEXT:
        print_note(report.format_warnings(warnings, paint=wants_colour(sys.stderr)))
    if output is Output.JSON:
        print_result(report.problems_json(problems, warnings))
    elif problems:
        files = max(validated.experiments, len({problem.location.path for problem in problems}))
        print_result(report.format_problems(problems, files=files, paint=wants_colour(sys.stdout)))
    else:
        print_result(f"{validated.experiments} experiments, no problems")
    if codequality is not None:
        text = report.codequality_json(problems=(*problems, *warnings), folder=folder_in_repository(root))
        write_text(codequality, text + "\n")
    if timings:
        print_timings()
    raise typer.Exit(1 if problems else 0)


def render(
    ctx: typer.Context,
    names: Names = None,
    *,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write one file per experiment.")
    ] = None,
    output: OutputFormat = Output.TEXT,
    timings: Timings = False,
    lab: LabFolder = None,
) -> None:
    """Print the manifests that a sync would apply.

    Without a name, the manifests of all experiments are printed.
    """
    from nimlab.cli.find_lab_folder import find_root  # keeps `--help` fast
    from nimlab.cli.terminal import print_document, print_error, print_note, print_timings
    from nimlab.cli.usage import RENDER_RULES, reject_ignored
    from nimlab.files.safe_write import make_folder, write_text
    from nimlab.objects.applyset import PLATFORM
    from nimlab.workflow.desired_lab import read_desired_lab
    from nimlab.yaml_and_json import to_json_text, to_yaml

    reject_ignored(ctx, RENDER_RULES)
    wanted = frozenset(names) if names else None
    desired_lab = read_desired_lab(find_root(_start(lab)), wanted)
    known = {e.name for e in desired_lab.files.experiments} | {b.name for b in desired_lab.broken}
    _check_known(wanted, known | {PLATFORM})
    failing = [broken for broken in desired_lab.broken if wanted is None or broken.name in wanted]
    if failing:
        for error in desired_lab.errors:
            print_error(error)
    for group in desired_lab.desired if out else ():
        if out is not None:
            make_folder(out)
            write_text(out / f"{group.name}.yaml", to_yaml(group.manifests))
            print_note(f"{out / group.name}.yaml: {len(group.manifests)} objects")
    if out is None:
        manifests = [manifest for group in desired_lab.desired for manifest in group.manifests]
        as_json = output is Output.JSON
        print_document(to_json_text(manifests) if as_json else to_yaml(manifests))
    if timings:
        print_timings()
    raise typer.Exit(1 if failing else 0)


def rbac(
    *,
    namespaces: Annotated[
        bool,
        typer.Option("--namespaces", help="Also allow experiments with their own namespace (cluster-wide)."),
    ] = False,
    platform: Annotated[
        bool, typer.Option("--platform", help="For the monitoring stack instead of experiments.")
    ] = False,
    lab: LabFolder = None,
) -> None:
    """Print the accounts and roles for a pipeline.

    The account `nimlab-plan` only reads; `nimlab-sync` also writes.
    """
    from nimlab.access.pipeline_roles import access_manifests
    from nimlab.cli.terminal import print_document  # keeps `--help` fast
    from nimlab.files.load import load_lab
    from nimlab.objects.applyset import EXPERIMENTS, PLATFORM, ApplySet
    from nimlab.yaml_and_json import to_yaml

    settings = load_lab(_root(lab)).lab
    apply_set = ApplySet(name=PLATFORM if platform else EXPERIMENTS, namespace=settings.namespace)
    manifests = access_manifests(apply_set, prefix=settings.prefix, own_namespaces=namespaces)
    print_document(to_yaml(manifests))


def create(
    *,
    name: Annotated[str, typer.Option(help="The new experiment's name.")],
    peers: Annotated[int, typer.Option(parser=whole_number, metavar="N", help="Number of peers.")] = 2,
    connections: Annotated[
        int | None,
        typer.Option(
            parser=whole_number, metavar="N", help="Peers that each peer connects to.  [default: 2]"
        ),
    ] = None,
    msg_size: Annotated[
        int | None,
        typer.Option(parser=whole_number, metavar="BYTES", help="Size of a message.  [default: 1440]"),
    ] = None,
    msg_rate: Annotated[
        int | None,
        typer.Option(
            parser=whole_number, metavar="MS", help="Milliseconds between two messages.  [default: 2000]"
        ),
    ] = None,
    cpu: Annotated[float, typer.Option(parser=decimal_number, metavar="CORES", help="CPU of a peer.")] = 0.05,
    ram: Annotated[int, typer.Option(parser=whole_number, metavar="MIB", help="Memory of a peer.")] = 16,
    downlink_bw: Annotated[
        int, typer.Option(parser=whole_number, metavar="MBIT", help="Megabits per second to a peer.")
    ] = 16,
    uplink_bw: Annotated[
        int, typer.Option(parser=whole_number, metavar="MBIT", help="Megabits per second from a peer.")
    ] = 16,
    contract: Annotated[str, typer.Option(help="The contract of the node image.")] = "nimp2p",
    owner: Annotated[str, typer.Option(help="The person or team responsible.")] = "",
    description: Annotated[str, typer.Option(help="The purpose of the experiment.")] = "",
    sync: _Sync = False,
    lab: LabFolder = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    in_cluster: InCluster = False,
) -> None:
    """Write the file of a new experiment: experiments/NAME.yaml.

    The options are the same as in nimp2p-lab; their numbers have no units. The command writes the units to
    the file. It writes only fields that the contract's image reads.
    """
    from nimlab.files import edit_experiment_file as edit  # keeps `--help` fast
    from nimlab.files.load import load_lab

    root = _root(lab)
    files = load_lab(root)
    new = edit.NewExperiment(
        name=name,
        peers=peers,
        connections=connections,
        msg_size=msg_size,
        msg_rate=msg_rate,
        cpu=cpu,
        ram=ram,
        downlink_bw=downlink_bw,
        uplink_bw=uplink_bw,
        contract=contract,
        owner=owner,
        description=description,
    )
    text = edit.experiment_text(new, files.contracts.get(contract), files.lab.defaults)
    path = edit.new_experiment_path(root, name)
    _write_checked(root, path, text, f"{_shown(root, path)} written: {peers} peers", files)
    _sync_one(name, root=root, kubeconfig=kubeconfig, context=context, in_cluster=in_cluster, wanted=sync)


def scale(
    name: _Name,
    *,
    peers: Annotated[
        int, typer.Option("--peers", parser=whole_number, metavar="N", help="The new number of peers.")
    ],
    role: Annotated[str | None, typer.Option("--role", metavar="ROLE", help="The role to scale.")] = None,
    sync: _Sync = False,
    lab: LabFolder = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    in_cluster: InCluster = False,
) -> None:
    """Change the number of peers in an experiment's file.

    The rest of the file is not changed.
    """
    from nimlab.files import edit_experiment_file as edit  # keeps `--help` fast
    from nimlab.files.load import load_lab

    root = _root(lab)
    path = edit.find_experiment_file(root, name)
    text = edit.set_peers(edit.read_text(path), peers, role)
    of_role = f" of the role {role}" if role else ""
    _write_checked(root, path, text, f"{_shown(root, path)}: {peers} peers{of_role}", load_lab(root))
    _sync_one(name, root=root, kubeconfig=kubeconfig, context=context, in_cluster=in_cluster, wanted=sync)


def delete(
    name: _Name,
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Also remove a file that Git cannot restore.")
    ] = False,
    sync: _Sync = False,
    lab: LabFolder = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    in_cluster: InCluster = False,
) -> None:
    """Remove an experiment's file.

    The next sync deletes the experiment's objects from the cluster. Git cannot restore a file that differs
    from the last commit. Such a file is removed only with --force.
    """
    from nimlab.cli.terminal import print_result
    from nimlab.errors import EditError
    from nimlab.files import edit_experiment_file as edit  # keeps `--help` fast
    from nimlab.files.git_history import unrestorable
    from nimlab.files.safe_write import remove_file

    root = _root(lab)
    path = edit.find_experiment_file(root, name)
    reason = None if force else unrestorable(root, _shown(root, path))
    if reason is not None:
        raise EditError(
            f"the file was not removed: {reason}, so Git cannot restore it",
            where=_shown(root, path),
            hint="commit it first, or remove it permanently with `--force`",
        )
    remove_file(path)
    print_result(f"{_shown(root, path)} removed")
    _sync_one(name, root=root, kubeconfig=kubeconfig, context=context, in_cluster=in_cluster, wanted=sync)


def _write_checked(root: Path, path: Path, text: str, message: str, files: LabFiles) -> None:
    """Write the file and print the message, unless the change causes a new problem in the lab.

    `files` is the lab before the change. Raises SpecError with the new problems.
    """
    from nimlab.cli.terminal import print_result  # keeps `--help` fast
    from nimlab.errors import SpecError
    from nimlab.files.load import load_lab
    from nimlab.files.safe_write import write_text

    shown = _shown(root, path)
    before = {(p.code, p.what) for p in files.problems}
    after = load_lab(root, {shown: text}).problems
    new = tuple(p for p in after if p.location.path == shown or (p.code, p.what) not in before)
    if new:
        raise SpecError(new)
    path.parent.mkdir(exist_ok=True)  # Git does not keep empty folders
    write_text(path, text)
    print_result(message)


def _sync_one(
    name: str, *, root: Path, kubeconfig: Path | None, context: str | None, in_cluster: bool, wanted: bool
) -> None:
    """Sync only this experiment if `wanted`; otherwise, print the command that shows the changes."""
    from nimlab.cli.terminal import print_note  # keeps `--help` fast

    if not wanted:
        chosen = {"--kubeconfig": kubeconfig, "--context": context}
        target = "".join(f" {flag} {shlex.quote(str(value))}" for flag, value in chosen.items() if value)
        print_note(f"next: `nimlab sync {name} --dry-run{target}` shows the changes")
        return
    from nimlab.cli.open_session import ClusterFlags
    from nimlab.cli.print_sync import OutputOptions, run_sync
    from nimlab.plan.sync_policy import SyncPolicy
    from nimlab.workflow.sync_options import SyncOptions

    options = SyncOptions(policy=SyncPolicy(names=frozenset({name})))
    flags = ClusterFlags(lab=root, kubeconfig=kubeconfig, context=context, in_cluster=in_cluster)
    raise typer.Exit(run_sync(options, OutputOptions(), flags))


def _check_known(wanted: frozenset[str] | None, known: set[str]) -> None:
    """Raise NimlabError for the first wanted experiment that no file describes."""
    from nimlab.did_you_mean import did_you_mean
    from nimlab.errors import NimlabError  # keeps `--help` fast

    for name in sorted((wanted or frozenset()) - known):
        hint = did_you_mean(name, known, "`nimlab list` lists all experiments")
        raise NimlabError(f"no file describes an experiment called `{name}`", hint=hint)


def _start(lab: Path | None) -> Path:
    from nimlab.cli.find_lab_folder import start_folder  # keeps `--help` fast

    return start_folder(lab)


def _root(lab: Path | None) -> Path:
    from nimlab.cli.find_lab_folder import find_root  # keeps `--help` fast

    return find_root(_start(lab))


def _shown(root: Path, path: Path) -> str:
    return path.resolve().relative_to(root.resolve()).as_posix()
