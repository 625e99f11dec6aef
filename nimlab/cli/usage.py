"""Command line flags -> usage errors for combinations in which a flag would have no effect.

In: the flags that the user wrote. Out: nothing, or a usage error (exit 2) that names the flag and the remedy.
No flag is silently ignored.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Final

import typer


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """`flag` has no effect beside any of `beside`, or (if `needs` is set) without that flag."""

    flag: str
    beside: frozenset[str] = frozenset()
    needs: str | None = None
    remedy: str

    def is_broken_by(self, given: Set[str]) -> bool:
        """Return True if the user wrote the flag where it has no effect."""
        if self.flag not in given:
            return False
        return bool(self.beside & given) or (self.needs is not None and self.needs not in given)


_NO_WRITES: Final = frozenset({"dry_run"})
SYNC_RULES: Final = (
    Rule(
        flag="exit_code",
        needs="dry_run",
        remedy="a sync that applies the changes ignores it; use `--dry-run --exit-code` to exit with "
        "3 if changes are pending, or read `summary` of `--output json` after a sync",
    ),
    Rule(flag="out", needs="dry_run", remedy="only a dry run is saved; add `--dry-run`"),
    Rule(
        flag="wait",
        beside=_NO_WRITES,
        remedy="a dry run does not wait; leave out one of the two options",
    ),
    Rule(
        flag="timeout", beside=_NO_WRITES, remedy="a dry run does not wait; leave out one of the two options"
    ),
    Rule(
        flag="lock_timeout",
        beside=_NO_WRITES,
        remedy="a dry run takes no lock; leave out one of the two options",
    ),
    Rule(
        flag="max_prune",
        beside=frozenset({"no_prune"}),
        remedy="`--no-prune` deletes nothing; leave out one of the two options",
    ),
    Rule(
        flag="allow_empty",
        beside=frozenset({"no_prune"}),
        remedy="`--no-prune` deletes nothing; leave out one of the two options",
    ),
    Rule(
        flag="allow_empty",
        beside=frozenset({"names"}),
        remedy="it applies to a sync of all experiments; leave out the names or the option",
    ),
    Rule(
        flag="move",
        beside=frozenset({"no_prune"}),
        remedy="a move deletes what is left in the former namespace; leave out one of the two options",
    ),
)
RENDER_RULES: Final = (
    Rule(
        flag="output",
        beside=frozenset({"out"}),
        remedy="`--out` writes YAML files; leave out one of the two options",
    ),
)


def given_flags(context: typer.Context) -> frozenset[str]:
    """Return the parameters that the user wrote; a flag that was set to false is `no_…`."""
    written = {
        name: value
        for name, value in context.params.items()
        if (source := context.get_parameter_source(name)) is not None and source.name == "COMMANDLINE"
    }
    return frozenset(
        f"no_{name}" if name in ("prune", "wait") and value is False else name
        for name, value in written.items()
    )


def reject_ignored(context: typer.Context, rules: tuple[Rule, ...]) -> frozenset[str]:
    """Return the parameters that the user wrote. Raises typer.BadParameter if one of them has no effect."""
    given = given_flags(context)
    for rule in rules:
        if rule.is_broken_by(given):
            raise typer.BadParameter(rule.remedy, param_hint="--" + rule.flag.replace("_", "-"))
    return given
