"""Samples → Markdown tables: medians, ratios to nimlab, requests by verb, peak memory. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from bench.lab import Step
from bench.rounds import Sample
from bench.tools import NAMES, NIMLAB, TITLES

# These keys of `Sample.requests` are not verbs: see `Server.counts`.
_NOT_VERBS: Final = ("dry run", "bytes")
_NOT_MEASURED: Final = "-"


def format_facts(facts: Mapping[str, str]) -> str:
    """Return the versions and settings as a Markdown list."""
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


def format_tables(samples: Sequence[Sample]) -> str:
    """Return one table per step and measure, and the list of failures."""
    parts = []
    for step in Step:
        title = step.value.capitalize()
        parts.append(_grid(f"### {title}: seconds", samples, step, lambda s: _seconds(s, samples)))
        parts.append(_grid(f"### {title}: requests", samples, step, _requests))
    parts.append(_grid("### Peak memory, any step: MB", samples, None, _peak))
    parts.append(_grid("### Nothing to do: CPU seconds of the tool", samples, Step.NOOP, _cpu))
    parts.append(
        _grid("### Nothing to do: kB of all responses to GET and LIST", samples, Step.NOOP, _response_kb)
    )
    parts.append(_failures(samples))
    return "\n\n".join(part for part in parts if part)


def median_s(samples: Sequence[Sample]) -> float | None:
    """Return the median wall clock of the samples that succeeded."""
    times = [s.cost.wall_s for s in samples if s.cost]
    return statistics.median(times) if times else None


def median_requests(samples: Sequence[Sample]) -> float | None:
    """Return the median number of requests of the samples that succeeded."""
    totals = [total(s.requests) for s in samples if s.cost]
    return statistics.median(totals) if totals else None


def pick(samples: Sequence[Sample], name: str, size: int, step: Step | None) -> list[Sample]:
    """Return the samples of one tool, one size and one step; if `step` is None, of all steps."""
    return [s for s in samples if s.name == name and s.size == size and step in (None, s.step)]


def sizes_of(samples: Sequence[Sample]) -> list[int]:
    """Return the measured sizes in ascending order."""
    return sorted({s.size for s in samples})


def _grid(
    title: str, samples: Sequence[Sample], step: Step | None, show: Callable[[Sequence[Sample]], str]
) -> str:
    """Return a table with one row per tool and one column per size; empty if nothing was measured."""
    sizes = sizes_of(samples)
    objects = {s.size: max(t.objects for t in samples if t.size == s.size) for s in samples}
    rows = []
    for name in NAMES:
        columns = [pick(samples, name, size, step) for size in sizes]
        if any(columns):
            cells = (show(column) if any(s.cost for s in column) else _NOT_MEASURED for column in columns)
            rows.append([TITLES[name], *cells])
    if not rows:
        return ""
    head = ["experiments (objects)", *(f"{size:,} ({objects[size]:,})" for size in sizes)]
    rule = ["---", *("---:" for _ in sizes)]
    lines = "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))
    return f"{title}\n\n{lines}"


def _seconds(cell: Sequence[Sample], samples: Sequence[Sample]) -> str:
    """Return the median, the minimum and maximum, and the ratio to nimlab's median."""
    median = median_s(cell) or 0.0
    times = [s.cost.wall_s for s in cell if s.cost]
    spread = f" [{min(times):.2f}-{max(times):.2f}]" if len(times) > 1 else ""
    nimlab_s = median_s(pick(samples, NIMLAB, cell[0].size, cell[0].step))
    ratio = f" (x {median / nimlab_s:.1f})" if nimlab_s and cell[0].name != NIMLAB else ""
    return f"{median:.2f}{spread}{ratio}"


def _requests(cell: Sequence[Sample]) -> str:
    """Return the median of the totals, and the number of requests per verb in the last turn."""
    last = [s for s in cell if s.cost][-1].requests
    verbs = [f"{count} {verb}" for verb, count in last.items() if count and verb not in _NOT_VERBS]
    dry_runs = f"; {last['dry run']} of them dry runs" if last.get("dry run") else ""
    return f"**{median_requests(cell) or 0:.0f}**: {', '.join(verbs)}{dry_runs}"


def _peak(cell: Sequence[Sample]) -> str:
    return f"{max(s.cost.peak_bytes for s in cell if s.cost) / 1e6:.0f}"


def _cpu(cell: Sequence[Sample]) -> str:
    return f"{statistics.median(s.cost.cpu_s for s in cell if s.cost):.2f}"


def _response_kb(cell: Sequence[Sample]) -> str:
    return f"{statistics.median(s.requests['bytes'] for s in cell if s.cost) / 1e3:,.0f}"


def total(requests: Mapping[str, int]) -> int:
    """Return the number of requests of all verbs."""
    return sum(count for verb, count in requests.items() if verb not in _NOT_VERBS)


def _failures(samples: Sequence[Sample]) -> str:
    lines = [
        f"- {TITLES[s.name]}, {s.size:,} experiments, {s.step.value}, round {s.round}: {s.error}"
        for s in samples
        if s.error
    ]
    return "\n".join(["### Failures", "", *lines]) if lines else ""
