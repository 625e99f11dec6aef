"""Usage errors: options with a wrong value, and options that would have no effect with the other options.

In: the options that the user wrote. Out: values, or a usage error (exit code 2) that names the option and the
remedy. No option is silently ignored.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import Final

import typer

from nimlab.units import UnitError, parse_duration_ms

_LONGEST_WAIT_S: Final = 24 * 3600  # the maximum in lab.yaml; much longer waits overflow the system's timers


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule for a flag that has no effect in some combinations.

    The flag has no effect if the user also writes one of the flags in `beside`, or if the user does not write
    the flag `needs`. If `needs` is None, no other flag is needed.
    """

    flag: str
    beside: frozenset[str] = frozenset()
    needs: str | None = None
    remedy: str

    def is_broken_by(self, given: Set[str]) -> bool:
        """Return True if the user wrote the flag and it has no effect."""
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
        remedy="a move deletes the objects in the former namespace; leave out one of the two options",
    ),
)
RENDER_RULES: Final = (
    Rule(
        flag="output",
        beside=frozenset({"out"}),
        remedy="`--out` writes YAML files; leave out one of the two options",
    ),
)


_BESIDE_SAVED_PLAN: Final = frozenset(
    {
        "plan", "strict", "wait", "no_wait", "timeout", "lock_timeout", "verbose", "output", "terraform",
        "junit", "codequality", "lab", "kubeconfig", "context", "timings",
    }
)  # fmt: skip


def given_flags(context: typer.Context) -> frozenset[str]:
    """Return the names of the parameters that the user wrote, such as `no_wait` for `--no-wait`.

    Older versions of typer report the command line as the source of a list without any value.
    """
    written = {
        name: value
        for name, value in context.params.items()
        if (source := context.get_parameter_source(name)) is not None
        and source.name == "COMMANDLINE"
        and value not in (None, [], ())
    }
    return frozenset(
        f"no_{name}" if name in ("prune", "wait") and value is False else name
        for name, value in written.items()
    )


def reject_ignored(context: typer.Context, rules: tuple[Rule, ...]) -> frozenset[str]:
    """Return the names of the parameters that the user wrote. Raises BadParameter if one has no effect."""
    given = given_flags(context)
    for rule in rules:
        if rule.is_broken_by(given):
            raise typer.BadParameter(rule.remedy, param_hint="--" + rule.flag.replace("_", "-"))
    return given


def reject_beside_saved_plan(given: frozenset[str]) -> None:
    """Raise typer.BadParameter if the user wrote an option that cannot be combined with `--plan`."""
    for name in sorted(given - _BESIDE_SAVED_PLAN):
        raise typer.BadParameter(
            f"a saved plan contains its own options; make another plan for `{name.replace('_', '-')}`",
            param_hint="--plan",
        )


def parse_wait_s(text: str, option: str) -> float:
    """Return the seconds of a time such as `90s` or `10m`. Raises typer.BadParameter."""
    try:
        duration_s = parse_duration_ms(text) / 1000
    except UnitError as error:
        raise typer.BadParameter(f"{error.what}; {error.hint}", param_hint=option) from error
    if duration_s > _LONGEST_WAIT_S:
        raise typer.BadParameter(f"`{text}` is more than `24h`", param_hint=option)
    return duration_s
