"""Lists: all experiments, one experiment, the sandbox's parts."""

from __future__ import annotations

from collections.abc import Sequence

from nimlab.change import Action
from nimlab.overview import Detail, Row
from nimlab.report.ink import age_text, ink, table, visible

_COLUMNS = ("EXPERIMENT", "FULLNAME", "SCALE", "RUNNING", "STARTED AT", "AGE", "STATE")


def format_rows(rows: Sequence[Row]) -> str:
    """Return the table of `list`: the seed's columns, and the state."""
    if not rows:
        return "no experiments, in the files or in the cluster"
    return table([_COLUMNS, *(_cells(row) for row in rows)])


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.experiment,
        row.full_name or "-",
        str(row.scale),
        str(row.running),
        row.started_at or "-",
        age_text(row.age_s),
        row.state.value,
    )


def format_status(detail: Detail, *, paint: bool) -> str:
    """Return the page of `status`: the row, drift, trouble, peers, events."""
    source = detail.source or "no file"
    blocks = [f"{table([_COLUMNS, _cells(detail.row)])}\nfile: {source}"]
    drift = [
        f"  {change.action.value} {change.key}" + (f": {change.reason}" if change.reason else "")
        for change in detail.changes
        if change.action is not Action.KEEP or change.reason
    ]
    for change in detail.changes:
        drift += [f"    {visible(f.path)}: {f.old} → {f.new}" for f in change.fields[:12]]
        drift += [f"  foreign: {visible(f.text)} added by `{visible(f.manager)}`" for f in change.foreign]
    if drift:
        blocks.append("\n".join(["differs from its file:", *drift]))
    if detail.troubles:
        lines = [f"  {t.pod}: {t.reason}, {visible(t.message)}" for t in detail.troubles[:10]]
        more = len(detail.troubles) - 10
        lines += [f"  … and {more} more"] if more > 0 else []
        blocks.append("\n".join([ink("trouble:", "red", paint=paint), *lines]))
    if detail.pods:
        rows = [("PEER", "STATE", "RESTARTS", "NODE")]
        rows += [(p.name, p.state, str(p.restarts), p.node or "-") for p in detail.pods]
        blocks.append(table(rows))
    if detail.events:
        lines = [
            f"  {e.at}  {e.kind}/{e.name}  {e.reason}: {visible(e.message)[:120]}" for e in detail.events
        ]
        blocks.append("\n".join(["recent events:", *lines]))
    return "\n\n".join(blocks)


def format_sandbox(
    *,
    running: bool,
    server: str | None,
    nodes: int,
    parts: Sequence[tuple[str, int | None, bool, str]],
) -> str:
    """Return the sandbox's state: one line, then its parts (name, pid, alive, log)."""
    if not parts:
        return "sandbox  not there; start it with `nimlab sandbox up`"
    word = "up" if running else "broken; `nimlab sandbox up` repairs it"
    rows = [("PART", "PID", "STATE", "LOG")]
    rows += [(n, str(pid or "-"), "running" if ok else "dead", log) for n, pid, ok, log in parts]
    return f"sandbox  {word}: {server}, {nodes} simulated nodes\n\n{table(rows)}"
