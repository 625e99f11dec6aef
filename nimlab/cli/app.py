"""The list of commands, in the order of `nimlab --help`: the commands that a newcomer needs come first."""

from __future__ import annotations

from typing import Annotated

import typer

from nimlab import __version__
from nimlab.cli import file_commands as files
from nimlab.cli import inspect_commands as show
from nimlab.cli import sandbox_command as sandbox
from nimlab.cli import sync_command as sync

app = typer.Typer(
    name="nimlab",
    help="Keep a Kubernetes cluster in sync with a Git repository of NimP2P experiments.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 -- typer passes the flag's value
    if wanted:
        typer.echo(f"nimlab {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    del version


app.add_typer(sandbox.app, name="sandbox", help="Run a real control plane on this machine.")
app.command("validate")(files.validate)
app.command("render")(files.render)
app.command("sync")(sync.sync)
app.command("list")(show.list_experiments)
app.command("status")(show.status)
app.command("logs")(show.logs)
app.command("rbac")(files.rbac)
app.command("create")(files.create)
app.command("scale")(files.scale)
app.command("delete")(files.delete)
