"""Commands on files: validate, render, rbac, create, scale, delete. Only `--sync` needs a cluster."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from nimlab.cli.options import (
    CodeQuality,
    Context,
    InCluster,
    Kubeconfig,
    LabFolder,
    Names,
    Output,
    OutputFormat,
    SyncOptions,
    Timings,
)

_Sync = Annotated[bool, typer.Option("--sync", help="Sync this experiment right away.")]
_Name = Annotated[str, typer.Argument(metavar="NAME", help="The experiment's name.")]


def validate(
    *,
    output: OutputFormat = Output.TEXT,
    codequality: CodeQuality = None,
    timings: Timings = False,
    lab: LabFolder = None,
) -> None:
    """Check all files and print every problem with its place."""
    from nimlab import report  # keeps `--help` fast
    from nimlab.cli.root import find_root
    from nimlab.cli.terminal import print_result, print_timings, wants_colour
    from nimlab.edit import write_text
    from nimlab.errors import SpecError
    from nimlab.git import folder_in_repository
    from nimlab.load import load_lab
    from nimlab.timing import stage

    try:
        root = find_root(_start(lab))
        with stage("load"):
            files = load_lab(root)
        problems, count = files.problems, len(files.experiments) + len(files.broken)
    except SpecError as error:
        problems, count = error.problems, len({p.location.path for p in error.problems})
    if codequality is not None:
        marks = report.codequality_json(problems=problems, folder=folder_in_repository(root))
        write_text(codequality, marks + "\n")
    if output is Output.JSON:
        print_result(report.problems_json(problems))
    elif problems:
        print_result(report.format_problems(problems, files=count, paint=wants_colour(sys.stdout)))
    else:
        print_result(f"{count} experiments, no problems")
    if timings:
        print_timings()
    raise typer.Exit(1 if problems else 0)


def render(
    names: Names = None,
    *,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write one file an experiment.")
    ] = None,
    output: OutputFormat = Output.TEXT,
    timings: Timings = False,
    lab: LabFolder = None,
) -> None:
    """Print the manifests of all experiments, or of those named, as a sync would apply them."""
    from nimlab.cli.lab import read_intent
    from nimlab.cli.root import find_root  # keeps `--help` fast
    from nimlab.cli.terminal import print_error, print_note, print_result, print_timings
    from nimlab.edit import write_text
    from nimlab.manifest import to_json_text, to_yaml
    from nimlab.owned import PLATFORM

    wanted = frozenset(names) if names else None
    intent = read_intent(find_root(_start(lab)), wanted)
    known = {one.name for one in intent.files.experiments} | {one.name for one in intent.broken}
    _check_known(wanted, known | {PLATFORM})
    failing = [b for b in intent.broken if wanted is None or b.name in wanted]
    if failing:
        for error in intent.errors:
            print_error(error)
    for one in intent.desired if out else ():
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            write_text(out / f"{one.name}.yaml", to_yaml(one.manifests))
            print_note(f"{out / one.name}.yaml: {len(one.manifests)} objects")
    if out is None:
        manifests = [manifest for one in intent.desired for manifest in one.manifests]
        as_json = output is Output.JSON
        print_result(to_json_text(manifests) if as_json else to_yaml(manifests))
    if timings:
        print_timings()
    raise typer.Exit(1 if failing else 0)


def rbac(
    *,
    namespaces: Annotated[
        bool,
        typer.Option(
            "--namespaces", help="Also for experiments with a namespace of their own: cluster-wide."
        ),
    ] = False,
    platform: Annotated[
        bool, typer.Option("--platform", help="For the monitoring stack, instead of experiments.")
    ] = False,
    lab: LabFolder = None,
) -> None:
    """Print the accounts and rights that a pipeline needs: nimlab-plan looks, nimlab-sync also writes."""
    from nimlab.cli.terminal import print_result  # keeps `--help` fast
    from nimlab.load import load_lab
    from nimlab.manifest import to_yaml
    from nimlab.owned import EXPERIMENTS, PLATFORM, ApplySet
    from nimlab.rbac import access_manifests

    settings = load_lab(_root(lab)).lab
    apply_set = ApplySet(name=PLATFORM if platform else EXPERIMENTS, namespace=settings.namespace)
    manifests = access_manifests(apply_set, prefix=settings.prefix, own_namespaces=namespaces)
    print_result(to_yaml(manifests))


def create(
    *,
    name: Annotated[str, typer.Option(help="The new experiment's name.")],
    peers: Annotated[int, typer.Option(metavar="N", help="Number of peers.")] = 2,
    connections: Annotated[int, typer.Option(metavar="N", help="Peers that each peer connects to.")] = 2,
    msg_size: Annotated[int, typer.Option(metavar="BYTES", help="Size of a message.")] = 1440,
    msg_rate: Annotated[int, typer.Option(metavar="MS", help="Milliseconds between two messages.")] = 2000,
    cpu: Annotated[float, typer.Option(metavar="CORES", help="CPU of a peer.")] = 0.05,
    ram: Annotated[int, typer.Option(metavar="MIB", help="Memory of a peer.")] = 16,
    downlink_bw: Annotated[
        int, typer.Option(metavar="MBIT", help="Megabits per second towards a peer.")
    ] = 16,
    uplink_bw: Annotated[int, typer.Option(metavar="MBIT", help="Megabits per second from a peer.")] = 16,
    contract: Annotated[str, typer.Option(help="What the node image understands.")] = "nimp2p",
    owner: Annotated[str, typer.Option(help="Who answers for it.")] = "",
    description: Annotated[str, typer.Option(help="What is tried.")] = "",
    sync: _Sync = False,
    lab: LabFolder = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    in_cluster: InCluster = False,
) -> None:
    """Write experiments/NAME.yaml, checked, with units; the flags are those of nimp2p-lab."""
    from nimlab import edit  # keeps `--help` fast

    text = edit.experiment_text(
        edit.NewExperiment(
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
    )
    root = _root(lab)
    path = edit.new_experiment_path(root, name)
    _write_checked(root, path, text, f"{_shown(root, path)} written: {peers} peers")
    _sync_one(name, root=root, kubeconfig=kubeconfig, context=context, in_cluster=in_cluster, wanted=sync)


def scale(
    name: _Name,
    *,
    peers: Annotated[int, typer.Option("--peers", metavar="N", help="The new number of peers.")],
    sync: _Sync = False,
    lab: LabFolder = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    in_cluster: InCluster = False,
) -> None:
    """Change the number of peers in the experiment's file; nothing else in it moves."""
    from nimlab import edit  # keeps `--help` fast

    root = _root(lab)
    path = edit.find_experiment_file(root, name)
    text = edit.set_peers(edit.read_text(path), peers)
    _write_checked(root, path, text, f"{_shown(root, path)}: {peers} peers")
    _sync_one(name, root=root, kubeconfig=kubeconfig, context=context, in_cluster=in_cluster, wanted=sync)


def delete(
    name: _Name,
    *,
    sync: _Sync = False,
    lab: LabFolder = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    in_cluster: InCluster = False,
) -> None:
    """Remove the experiment's file; the next sync removes it from the cluster."""
    from nimlab import edit  # keeps `--help` fast
    from nimlab.cli.terminal import print_result

    root = _root(lab)
    path = edit.find_experiment_file(root, name)
    path.unlink()
    print_result(f"{_shown(root, path)} removed")
    _sync_one(name, root=root, kubeconfig=kubeconfig, context=context, in_cluster=in_cluster, wanted=sync)


def _write_checked(root: Path, path: Path, text: str, said: str) -> None:
    """Write the file if, with it, the lab has no problem in it that it didn't have before."""
    from nimlab.cli.terminal import print_result  # keeps `--help` fast
    from nimlab.edit import write_text
    from nimlab.errors import SpecError
    from nimlab.load import load_lab

    shown = _shown(root, path)
    before = {(p.code, p.what) for p in load_lab(root).problems}
    after = load_lab(root, {shown: text}).problems
    new = tuple(p for p in after if p.location.path == shown or (p.code, p.what) not in before)
    if new:
        raise SpecError(new)
    write_text(path, text)
    print_result(said)


def _sync_one(
    name: str, *, root: Path, kubeconfig: Path | None, context: str | None, in_cluster: bool, wanted: bool
) -> None:
    """Sync just this experiment, or say how."""
    from nimlab.cli.terminal import print_note  # keeps `--help` fast

    if not wanted:
        print_note(f"next: `nimlab sync {name} --dry-run` shows what it changes")
        return
    from nimlab.cli.act import run_sync

    options = SyncOptions(names=frozenset({name}))
    raise typer.Exit(
        run_sync(options, lab=root, kubeconfig=kubeconfig, context=context, in_cluster=in_cluster)
    )


def _check_known(wanted: frozenset[str] | None, known: set[str]) -> None:
    """Raise for a name that no file has."""
    from difflib import get_close_matches  # only for a wrong name

    from nimlab.errors import NimlabError  # keeps `--help` fast

    for name in sorted((wanted or frozenset()) - known):
        near = get_close_matches(name, sorted(known), n=1)
        hint = f"did you mean `{near[0]}`?" if near else "`nimlab list` shows what there is"
        raise NimlabError(f"no file has an experiment called `{name}`", hint=hint)


def _start(lab: Path | None) -> Path:
    return (lab or Path.cwd()).resolve()


def _root(lab: Path | None) -> Path:
    from nimlab.cli.root import find_root  # keeps `--help` fast

    return find_root(_start(lab))


def _shown(root: Path, path: Path) -> str:
    return path.resolve().relative_to(root.resolve()).as_posix()
