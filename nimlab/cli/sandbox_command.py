"""`nimlab sandbox`: a real control plane on this machine, for newcomers and tests."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from nimlab.cli.shared_options import LabFolder, Output, OutputFormat
from nimlab.value_cache import default_cache

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.command("up")
def up(
    *,
    nodes: Annotated[int, typer.Option(min=1, max=500, help="Number of simulated nodes.")] = 3,
    lab: LabFolder = None,
) -> None:
    """Start the control plane, or repair it. The first start builds its programs."""
    from nimlab import sandbox  # keeps `--help` fast
    from nimlab.cli.terminal import show_steps

    with show_steps() as show:
        sandbox.up(_home(lab), nodes=nodes, cache=default_cache(), report=show)


@app.command("build")
def build(*, lab: LabFolder = None) -> None:
    """Build the missing programs without starting them."""
    from nimlab import sandbox  # keeps `--help` fast
    from nimlab.cli.terminal import show_steps

    with show_steps() as show:
        sandbox.provide_programs(_home(lab), cache=default_cache(), report=show)


@app.command("down")
def down(*, lab: LabFolder = None) -> None:
    """Stop the control plane and remove its data. The built programs are kept."""
    from nimlab import sandbox  # keeps `--help` fast
    from nimlab.cli.terminal import print_note, show_steps

    with show_steps() as show:
        if not sandbox.down(_home(lab), report=show):
            print_note("sandbox  nothing to stop")


@app.command("status")
def status(*, output: OutputFormat = Output.TEXT, lab: LabFolder = None) -> None:
    """Show the parts of the control plane; exit 1 if it is not running."""
    from nimlab import report, sandbox  # keeps `--help` fast
    from nimlab.cli.terminal import columns_of, print_result

    state = sandbox.read_state(_home(lab))
    parts = () if state is None else state.parts
    rows = [(p.name, p.pid, p.alive, str(p.log)) for p in parts]
    running = state is not None and state.running
    server = state.server if state else None
    nodes = state.nodes if state else 0
    if output is Output.JSON:
        print_result(report.sandbox_json(running=running, server=server, nodes=nodes, parts=rows))
    else:
        columns = columns_of(sys.stdout)
        text = report.format_sandbox(running=running, server=server, nodes=nodes, parts=rows, columns=columns)
        print_result(text)
    raise typer.Exit(0 if running else 1)


def _home(lab: Path | None) -> Path:
    from nimlab.cli.choose_cluster import sandbox_home
    from nimlab.cli.find_lab_folder import find_root, start_folder  # keeps `--help` fast

    return sandbox_home(find_root(start_folder(lab)))
