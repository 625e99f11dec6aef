"""Options that several commands share, each declared once, and parsers for numbers."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import typer

_WHOLE: Final = re.compile(r"0|-?[1-9][0-9]{0,17}")
_DECIMAL: Final = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")


def whole_number(text: str | int) -> int:
    """Return the whole number in the text, which must consist of plain digits. Raises BadParameter.

    The lab's files have the same rule. Python's `int` would also accept `1_0` and non-ASCII digits. A default
    value is already a number.
    """
    if not _WHOLE.fullmatch(str(text)):
        raise typer.BadParameter(f"`{str(text)[:40]}` is not a whole number in plain digits, such as `5`")
    return int(text)


def decimal_number(text: str | float) -> float:
    """Return the number in the text: plain digits, with or without a decimal point. Raises BadParameter."""
    if not _DECIMAL.fullmatch(str(text)):
        raise typer.BadParameter(f"`{str(text)[:40]}` is not a number in plain digits, such as `2` or `0.05`")
    return float(text)


class Output(Enum):
    """The format of a printed result."""

    TEXT = "text"
    JSON = "json"


LabFolder: TypeAlias = Annotated[
    Path | None,
    typer.Option("--lab", metavar="DIR", help="The lab's folder (default: the nearest one with a lab.yaml)."),
]
Kubeconfig: TypeAlias = Annotated[
    Path | None, typer.Option("--kubeconfig", metavar="FILE", help="Use this kubeconfig.")
]
Context: TypeAlias = Annotated[
    str | None,
    typer.Option("--context", metavar="NAME", help="Use this context of the kubeconfig."),
]
InCluster: TypeAlias = Annotated[
    bool, typer.Option("--in-cluster", help="Use the ServiceAccount of the pod in which nimlab runs.")
]
CodeQuality: TypeAlias = Annotated[
    Path | None, typer.Option("--codequality", metavar="FILE", help="Write a Code Quality report for GitLab.")
]
Timings: TypeAlias = Annotated[bool, typer.Option("--timings", help="Print how long each stage took.")]
OutputFormat: TypeAlias = Annotated[
    Output, typer.Option("--output", "-o", help="Print text for people or JSON for programs.")
]
Names: TypeAlias = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME]...", help="Only these experiments.")
]
