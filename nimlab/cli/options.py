"""The options that several commands share, declared once: their names, defaults and help."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer


class Output(Enum):
    """How a result is printed."""

    TEXT = "text"
    JSON = "json"


LabFolder: TypeAlias = Annotated[
    Path | None,
    typer.Option("--lab", metavar="DIR", help="The lab's folder (default: the nearest with a lab.yaml)."),
]
Kubeconfig: TypeAlias = Annotated[
    Path | None, typer.Option("--kubeconfig", metavar="FILE", help="Use this kubeconfig.")
]
Context: TypeAlias = Annotated[
    str | None,
    typer.Option("--context", metavar="NAME", help="Use this context of the kubeconfig."),
]
CodeQuality: TypeAlias = Annotated[
    Path | None, typer.Option("--codequality", metavar="FILE", help="Write GitLab's Code Quality report.")
]
Timings: TypeAlias = Annotated[bool, typer.Option("--timings", help="Print where the time went.")]
OutputFormat: TypeAlias = Annotated[
    Output, typer.Option("--output", "-o", help="Print text for people or JSON for programs.")
]
Names: TypeAlias = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME]...", help="Only these experiments.")
]
