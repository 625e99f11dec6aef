"""A plan that is saved now and carried out later: the file, its options, and whether it still holds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Final

import typer

from nimlab import __version__
from nimlab.binding import Binding, PlanOptions, binding_of, moved_since
from nimlab.cli.options import SyncOptions
from nimlab.edit import write_text
from nimlab.errors import PlanError
from nimlab.plan import Plan

_SHOWN: Final = 5
_FREE: Final = (
    "plan",
    "strict",
    "wait",
    "timeout",
    "lock_timeout",
    "verbose",
    "output",
    "terraform",
    "junit",
    "codequality",
)


def save_plan(path: Path, text: str) -> None:
    """Write a saved plan, whole or not at all. Raises NimlabError."""
    write_text(path, text + "\n")


def read_saved(path: Path) -> Binding:
    """Return what a saved plan is bound to. Raises PlanError when the file isn't one."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PlanError(
            f"the saved plan can't be read: {error}",
            where=path,
            hint="make one with `nimlab sync --dry-run --out FILE`",
        ) from error
    return Binding.from_json(document, str(path))


def options_of(saved: Binding, given: SyncOptions) -> SyncOptions:
    """Return the options of a saved plan, with what the command line may add: how to wait and to print.

    Raises typer.BadParameter for an option that would make it another plan.
    """
    default = SyncOptions(names=None)
    for field in dataclasses.fields(SyncOptions):
        if field.name not in _FREE and getattr(given, field.name) != getattr(default, field.name):
            raise typer.BadParameter(
                f"a saved plan has its own options; make another plan for `{field.name.replace('_', '-')}`",
                param_hint="--plan",
            )
    chosen = dataclasses.asdict(saved.options)
    chosen["names"] = None if saved.options.names is None else frozenset(saved.options.names)
    return dataclasses.replace(given, **chosen)


def bind(plan: Plan, options: SyncOptions) -> Binding:
    """Return what a plan made with these options is bound to."""
    return binding_of(
        plan,
        PlanOptions(
            names=None if options.names is None else tuple(sorted(options.names)),
            prune=options.prune,
            max_prune=options.max_prune,
            allow_empty=options.allow_empty,
            allow_older=options.allow_older,
            take_ownership=options.take_ownership,
            remove_foreign=options.remove_foreign,
        ),
        f"nimlab/{__version__}",
    )


def check_unmoved(saved: Binding, plan: Plan, options: SyncOptions) -> None:
    """Raise PlanError unless the plan is the very one that was saved."""
    moved = moved_since(saved, bind(plan, options))
    if moved:
        more = f", and {len(moved) - _SHOWN} more" if len(moved) > _SHOWN else ""
        raise PlanError(
            f"the saved plan no longer holds: {'; '.join(moved[:_SHOWN])}{more}",
            where=options.plan,
            hint="nothing was done; make a new one with `nimlab sync --dry-run --out FILE`",
        )
