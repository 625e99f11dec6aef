"""The options that several commands share, declared once; and what the command line says of a sync."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import typer

_WHOLE: Final = re.compile(r"0|-?[1-9][0-9]{0,17}")
_DECIMAL: Final = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")


def whole_number(text: str | int) -> int:
    """Return the number in plain digits, as in files; Python also takes `1_0` and the digits of every script.

    A default comes as a number. Raises BadParameter.
    """
    if not _WHOLE.fullmatch(str(text)):
        raise typer.BadParameter(f"`{str(text)[:40]}` is not a whole number in plain digits, such as `5`")
    return int(text)


def decimal_number(text: str | float) -> float:
    """Return the number in plain digits, with a point or without. Raises BadParameter."""
    if not _DECIMAL.fullmatch(str(text)):
        raise typer.BadParameter(f"`{str(text)[:40]}` is not a number in plain digits, such as `2` or `0.05`")
    return float(text)


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
InCluster: TypeAlias = Annotated[
    bool, typer.Option("--in-cluster", help="Use the ServiceAccount of the pod that nimlab runs in.")
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


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncOptions:
    """What the command line says; None where it says nothing and `lab.yaml` decides."""

    names: frozenset[str] | None
    dry_run: bool = False
    prune: bool = True
    max_prune: str | None = None
    allow_empty: bool = False
    allow_older: bool = False
    take_ownership: bool = False
    remove_foreign: bool = False
    move: bool = False
    strict: bool = False
    wait: bool = True
    timeout: str | None = None
    lock_timeout: str = "0s"
    exit_code: bool = False
    verbose: bool = False
    output: Output = Output.TEXT
    out: Path | None = None
    plan: Path | None = None
    terraform: Path | None = None
    junit: Path | None = None
    codequality: Path | None = None
