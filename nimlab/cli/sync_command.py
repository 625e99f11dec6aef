"""`nimlab sync`: load, render, stamp, guard, observe, plan, execute, wait.

The dry run is the same path, stopped before it writes. Whatever happened is told at the end: what was
done, what failed, what was not attempted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
    SyncOptions,
    Timings,
)


def sync(
    ctx: typer.Context,
    names: Names = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and change nothing.")] = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Only with --dry-run: exit 3 if changes are pending.")
    ] = False,
    prune: Annotated[
        bool, typer.Option("--prune/--no-prune", help="Delete what no file asks for any more.")
    ] = True,
    max_prune: Annotated[
        str | None,
        typer.Option(metavar="N|P%", help="Refuse to delete more than N objects or P% of them."),
    ] = None,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Let an empty folder delete everything.")
    ] = False,
    allow_older: Annotated[
        bool, typer.Option("--allow-older", help="Let a commit older than the last sync go back.")
    ] = False,
    take_ownership: Annotated[
        bool, typer.Option("--take-ownership", help="Take fields and objects from other managers.")
    ] = False,
    remove_foreign: Annotated[
        bool, typer.Option("--remove-foreign", help="Remove what others have added to our objects.")
    ] = False,
    move: Annotated[
        bool, typer.Option("--move", help="Delete what the lab left in its former namespace.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit 3 while something that others have added stays.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait until all peers run, or can't.")
    ] = True,
    timeout: Annotated[
        str | None, typer.Option(metavar="TIME", help="How long to wait, such as 90s or 10m.")
    ] = None,
    lock_timeout: Annotated[
        str, typer.Option(metavar="TIME", help="How long to wait for another sync to end.")
    ] = "0s",
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show every object and every field.")
    ] = False,
    output: OutputFormat = Output.TEXT,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Only with --dry-run: save the plan.")
    ] = None,
    plan: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Carry out exactly this saved plan, or nothing.")
    ] = None,
    terraform: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write what is to change as GitLab's Terraform report."),
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a test case an experiment as JUnit XML.")
    ] = None,
    codequality: CodeQuality = None,
    timings: Timings = False,
    lab: LabFolder = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    in_cluster: InCluster = False,
) -> None:
    """Make the cluster equal to the files.

    An option that would have no effect is a usage error, such as --exit-code without --dry-run.

    Exit codes: 0 done or in sync; 1 an error, something was not applied; 2 usage; 3 changes are pending
    (--dry-run --exit-code; kubectl diff says 1 for that) or foreign additions stay (--strict); 4 synced, but
    not ready in time; 130 interrupted.
    """
    from nimlab.timing import START, stage  # keeps `--help` fast

    with stage(START):
        from nimlab.cli.terminal import print_timings
        from nimlab.cli.usage import SYNC_RULES, given_flags, reject_ignored
        from nimlab.objects.applyset import PLATFORM
        from nimlab.workflow.save_plan import reject_own_options
        from nimlab.workflow.sync import run_sync

    if plan is not None:
        reject_own_options(given_flags(ctx))
    reject_ignored(ctx, SYNC_RULES)
    if move and names and names != [PLATFORM]:
        raise typer.BadParameter("a lab moves as a whole; name no experiment", param_hint="--move")
    options = SyncOptions(
        names=frozenset(names) if names else None,
        dry_run=dry_run,
        prune=prune,
        max_prune=max_prune,
        allow_empty=allow_empty,
        allow_older=allow_older,
        take_ownership=take_ownership,
        remove_foreign=remove_foreign,
        move=move,
        strict=strict,
        wait=wait,
        timeout=timeout,
        lock_timeout=lock_timeout,
        exit_code=exit_code,
        verbose=verbose,
        output=output,
        out=out,
        plan=plan,
        terraform=terraform,
        junit=junit,
        codequality=codequality,
    )
    try:
        code = run_sync(options, lab=lab, kubeconfig=kubeconfig, context=context, in_cluster=in_cluster)
    finally:
        if timings:
            print_timings()
    raise typer.Exit(code)
