"""A plan as people read it: per experiment what is made, changed, deleted, and why; then the sum."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from nimlab.change import Action, Change
from nimlab.diff import ABSENT, FieldChange
from nimlab.git import Commit
from nimlab.plan import ExperimentPlan, Plan
from nimlab.report.ink import ink, plural, resources_text, visible
from nimlab.report.problems import format_error, visible_lines

_SIGNS: Final = {
    Action.CREATE: ("+", "green"),
    Action.UPDATE: ("~", "yellow"),
    Action.REPLACE: ("-/+", "red"),
    Action.PRUNE: ("-", "red"),
    Action.KEEP: ("=", "dim"),
}
_FIELDS_SHOWN: Final = 12
_VALUE_WIDTH: Final = 48


def format_header(name: str, why: str, commit: Commit | None) -> str:
    """Return a run's first line: which cluster, why, and from which commit."""
    if commit is None:
        from_what = "no Git commit"
    else:
        branch = f" on {commit.branch}" if commit.branch else ""
        state = "with uncommitted changes" if commit.dirty else "clean"
        from_what = f"commit {commit.sha[:7]}{branch}, {state}"
    return f"cluster  {name} ({why})   {from_what}"


def format_plan(
    plan: Plan,
    *,
    requests: int,
    writes: int,
    elapsed_s: float,
    removed_in: Mapping[str, str],
    dry_run: bool,
    verbose: bool,
    paint: bool,
) -> str:
    """Return the whole plan. `removed_in` names the commits that removed files, by experiment."""
    width = max([8, *(len(one.name) for one in plan.experiments)])
    lines: list[str] = []
    for one in plan.experiments:
        lines += _experiment(one, width, removed_in.get(one.name), verbose=verbose, paint=paint)
    if plan.create_namespace and not plan.is_empty:
        lines.append(f"{'lab':<{width}} + create  Namespace/{plan.apply_set.namespace}")
    for broken in plan.broken:
        mark = ink("!", "red", paint=paint)
        lines.append(f"{broken.name:<{width}} {mark} left out: {broken.source} can't be used")
    lines += _withheld(plan, paint=paint)
    cost = f"{plural(requests, 'request')}, {plural(writes, 'write') if writes else 'no writes'}"
    lines.append(f"{_summary(plan, dry_run=dry_run)} ({cost}, {elapsed_s:.1f} s)")
    return "\n".join(lines)


def _experiment(
    one: ExperimentPlan, width: int, removed: str | None, *, verbose: bool, paint: bool
) -> Iterator[str]:
    label = f"{one.name or '(none)':<{width}}"
    indent = " " * (width + 5)
    created = [c for c in one.changes if c.action is Action.CREATE and c.error is None and not c.reason]
    pruned = [c for c in one.changes if c.action is Action.PRUNE]
    others = [c for c in one.changes if c not in created and c not in pruned]
    added = resources_text(one.added)
    if created:
        yield _headline(label, Action.CREATE, plural(len(created), "object"), added, paint=paint)
        added = ""
        if verbose or len(created) < len(one.changes):
            yield from (f"{indent}{c.key}" for c in created)
    if pruned:
        since = f" since {removed}" if removed else ""
        why = f": experiments/{one.name}.yaml is gone{since}" if one.source is None else ""
        text = plural(len(pruned), "object") + why
        yield _headline(label, Action.PRUNE, text, added, paint=paint)
        added = ""
        yield from (f"{indent}{c.key}" for c in pruned)
    for change in others:
        if change.action is Action.KEEP and not (verbose or change.reason or change.foreign):
            continue
        yield from _change(label, change, added, indent, verbose=verbose, paint=paint)
        added = ""


def _headline(label: str, action: Action, text: str, added: str, *, paint: bool) -> str:
    sign, colour = _SIGNS[action]
    said = f"{sign} {action.value:<7} {text}"
    return f"{label} {ink(said, colour, paint=paint)}" + (f"   {added}" if added else "")


def _change(
    label: str, change: Change, added: str, indent: str, *, verbose: bool, paint: bool
) -> Iterator[str]:
    """One object: what is done with it, its fields, and all that a reader has to know beside."""
    if change.action is not Action.KEEP or verbose or change.reason:
        yield _headline(label, change.action, str(change.key), added, paint=paint)
    if change.reason:
        yield f"{indent}{visible(change.reason)}"
    yield from _fields(change.fields, indent, verbose=verbose)
    mark = ink("!", "red", paint=paint)
    if change.taken:
        what = ", ".join(f"{c.field.lstrip('.')} (by `{c.manager}`)" for c in change.taken[:4])
        yield f"{indent}changed by hand, put back: {visible(what)}"
    if change.restarts:
        why = "the pod template changes" if change.fields else "they are of an older revision"
        yield f"{indent[:-2]}{mark} restarts all {change.restarts} running peers: {why}"
    if change.unverified:
        yield f"{indent[:-2]}{mark} unverified: compared here, the credentials don't allow a server dry-run"
    if change.error is not None:
        error = format_error(change.error, paint=paint).replace("\n", "\n" + indent)
        yield f"{indent[:-2]}{mark} {error}"
    for one in change.foreign:
        yield (
            f"{label} {mark} foreign {change.key}: {visible(one.text)} added by `{visible(one.manager)}`; "
            "this run is not the one in Git"
        )


def _fields(fields: tuple[FieldChange, ...], indent: str, *, verbose: bool) -> Iterator[str]:
    shown = fields if verbose else fields[:_FIELDS_SHOWN]
    width = max((len(change.path) for change in shown), default=0)
    for change in shown:
        old, new = _pair(change.old, change.new)
        yield f"{indent}{visible(change.path):<{width}}  {old} → {new}"
    if len(shown) < len(fields):
        yield f"{indent}… and {len(fields) - len(shown)} more fields (`--verbose` shows them)"


def _pair(old: Any, new: Any) -> tuple[str, str]:  # noqa: ANN401 -- any JSON value
    """Both values; of texts with many lines, the first that differs."""
    if isinstance(old, str) and isinstance(new, str) and "\n" in old + new:
        for number, (a, b) in enumerate(zip(old.split("\n"), new.split("\n"), strict=False), 1):
            if a != b:
                return _value(f"line {number}: {a}"), _value(b)
    return _value(old), _value(new)


def _value(value: Any) -> str:  # noqa: ANN401 -- any JSON value
    if value is ABSENT:
        return "(none)"
    text = visible(json.dumps(value, ensure_ascii=False))
    if len(text) <= _VALUE_WIDTH:
        return text
    half = _VALUE_WIDTH // 2 - 1
    return f"{text[:half]} … {text[-half:]}"


def _withheld(plan: Plan, *, paint: bool) -> Iterator[str]:
    for stop in plan.stops:
        yield ink(f"Nothing is pruned: {visible(stop.what)}", "red", paint=paint)
        yield f"  hint: {stop.hint}"
    if plan.refusal is not None:
        yield f"Nothing is done: {visible_lines(format_error(plan.refusal, paint=False))}"


def _summary(plan: Plan, *, dry_run: bool) -> str:
    counts = [
        (plan.count(Action.PRUNE), "to prune"),
        (plan.count(Action.REPLACE), "to replace"),
        (plan.count(Action.UPDATE), "to update"),
        (plan.count(Action.CREATE), "to create"),
    ]
    kept = plan.count(Action.KEEP)
    said = ", ".join(f"{count} {word}" for count, word in counts if count)
    if not said:
        return f"Nothing to do: {kept} unchanged"
    return f"{'Plan' if dry_run else 'Doing'}: {said}, {kept} unchanged"
