"""`nimlab sync`: load the files, render, check, observe, plan, execute, wait.

A dry run takes the same steps, but stops before the execution. At the end, every sync reports the changes
that were made, the changes that failed, and the changes that were not attempted.
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
        bool, typer.Option("--prune/--no-prune", help="Delete objects that no file describes any more.")
    ] = True,
    max_prune: Annotated[
        str | None,
        typer.Option(metavar="N|P%", help="Delete nothing if more than N objects or P% would be deleted."),
    ] = None,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Delete all experiments if the folder is empty.")
    ] = False,
    allow_older: Annotated[
        bool, typer.Option("--allow-older", help="Allow a sync of a commit older than the last synced one.")
    ] = False,
    take_ownership: Annotated[
        bool, typer.Option("--take-ownership", help="Take over fields and objects from other managers.")
    ] = False,
    remove_foreign: Annotated[
        bool, typer.Option("--remove-foreign", help="Remove fields that others added to the lab's objects.")
    ] = False,
    move: Annotated[
        bool, typer.Option("--move", help="Delete the lab's objects in its former namespace.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit 3 if fields that others added remain.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait until all peers run, or cannot run.")
    ] = True,
    timeout: Annotated[
        str | None, typer.Option(metavar="TIME", help="The longest wait for peers, such as 90s or 10m.")
    ] = None,
    lock_timeout: Annotated[
        str, typer.Option(metavar="TIME", help="The longest wait for another sync to end.")
    ] = "0s",
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show every object and every field.")
    ] = False,
    output: OutputFormat = Output.TEXT,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Only with --dry-run: save the plan.")
    ] = None,
    plan: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Execute exactly this saved plan, or nothing.")
    ] = None,
    terraform: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the planned changes as a Terraform report for GitLab."),
    ] = None,
    junit: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a JUnit XML report with one test case per experiment."),
    ] = None,
    codequality: CodeQuality = None,
    timings: Timings = False,
    lab: LabFolder = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    in_cluster: InCluster = False,
) -> None:
    """Make the cluster equal to the files.

    It is a usage error to give an option that would have no effect, such as --exit-code without --dry-run.

    Exit codes: 0 done or in sync; 1 an error, not everything was applied; 2 usage error; 3 changes are
    pending (--dry-run --exit-code; kubectl diff returns 1 for this) or foreign additions remain (--strict); 4
    synced, but not ready in time; 130 interrupted.
    """
    from nimlab.stopwatch import START, stage  # keeps `--help` fast

    with stage(START):
        from nimlab.cli.open_session import ClusterFlags
        from nimlab.cli.print_sync import OutputOptions, run_sync
        from nimlab.cli.report_files import ReportFiles
        from nimlab.cli.terminal import print_timings
        from nimlab.cli.usage import (
            SYNC_RULES,
            given_flags,
            parse_wait_s,
            reject_beside_saved_plan,
            reject_ignored,
        )
        from nimlab.objects.applyset import PLATFORM
        from nimlab.plan.sync_policy import SyncPolicy
        from nimlab.workflow.sync_options import SyncOptions

    if plan is not None:
        reject_beside_saved_plan(given_flags(ctx))
    reject_ignored(ctx, SYNC_RULES)
    if move and names and names != [PLATFORM]:
        raise typer.BadParameter(
            "a lab can only move as a whole; leave out the names of experiments", param_hint="--move"
        )
    try:
        policy = SyncPolicy(
            names=frozenset(names) if names else None,
            prune=prune,
            max_prune=max_prune,
            allow_empty=allow_empty,
            allow_older=allow_older,
            take_ownership=take_ownership,
            remove_foreign=remove_foreign,
            move=move,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--max-prune") from error
    options = SyncOptions(
        policy=policy,
        wait=wait,
        timeout_s=None if timeout is None else parse_wait_s(timeout, "--timeout"),
        lock_timeout_s=parse_wait_s(lock_timeout, "--lock-timeout"),
    )
    shown = OutputOptions(
        dry_run=dry_run,
        output=output,
        verbose=verbose,
        exit_code=exit_code,
        strict=strict,
        out=out,
        saved_plan=plan,
        reports=ReportFiles(terraform=terraform, junit=junit, codequality=codequality),
    )
    flags = ClusterFlags(lab=lab, kubeconfig=kubeconfig, context=context, in_cluster=in_cluster)
    try:
        code = run_sync(options, shown, flags)
    finally:
        if timings:
            print_timings()
    raise typer.Exit(code)
