"""Samples -> Markdown: medians, ratios to nimlab, requests by verb, peak memory. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from bench.lab import Step
from bench.peers import NAMES, NIMLAB, TITLES
from bench.rounds import Sample

_APART: Final = ("dry run", "bytes")  # a share of the patches, and no requests
_NONE: Final = "-"


def format_facts(facts: Mapping[str, str]) -> str:
    """Return what the figures depend on, as a list."""
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


def format_tables(samples: Sequence[Sample]) -> str:
    """Return a table for each step and measure, and what failed."""
    parts = []
    for step in Step:
        title = step.value.capitalize()
        parts.append(_grid(f"### {title}: seconds", samples, step, lambda s: _seconds(s, samples)))
        parts.append(_grid(f"### {title}: requests", samples, step, _requests))
    parts.append(_grid("### Peak memory, any step: MB", samples, None, _peak))
    parts.append(_grid("### Nothing to do: CPU seconds of the tool", samples, Step.NOOP, _cpu))
    parts.append(
        _grid("### Nothing to do: kB of GET and LIST that the server answered", samples, Step.NOOP, _answered)
    )
    parts.append(_failures(samples))
    return "\n\n".join(part for part in parts if part)


def median_s(samples: Sequence[Sample]) -> float | None:
    """Return the median wall clock of those samples that have one."""
    times = [s.cost.wall_s for s in samples if s.cost]
    return statistics.median(times) if times else None


def median_requests(samples: Sequence[Sample]) -> float | None:
    """Return the median number of requests of the samples that succeeded."""
    totals = [total(s.requests) for s in samples if s.cost]
    return statistics.median(totals) if totals else None


def pick(samples: Sequence[Sample], name: str, size: int, step: Step | None) -> list[Sample]:
    """Return one tool's samples at a size, of a step or of all."""
    return [s for s in samples if s.name == name and s.size == size and step in (None, s.step)]


def sizes_of(samples: Sequence[Sample]) -> list[int]:
    """Return the sizes that were measured, ascending."""
    return sorted({s.size for s in samples})


def _grid(
    title: str, samples: Sequence[Sample], step: Step | None, show: Callable[[Sequence[Sample]], str]
) -> str:
    """Return a table with a row a tool and a column a size; empty if nothing was measured."""
    sizes = sizes_of(samples)
    objects = {s.size: max(t.objects for t in samples if t.size == s.size) for s in samples}
    rows = []
    for name in NAMES:
        found = [pick(samples, name, size, step) for size in sizes]
        if any(found):
            rows.append([TITLES[name], *(show(one) if any(s.cost for s in one) else _NONE for one in found)])
    if not rows:
        return ""
    head = ["experiments (objects)", *(f"{size:,} ({objects[size]:,})" for size in sizes)]
    rule = ["---", *("---:" for _ in sizes)]
    lines = "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))
    return f"{title}\n\n{lines}"


def _seconds(found: Sequence[Sample], samples: Sequence[Sample]) -> str:
    """Return the median, its range, and how many times nimlab's it is."""
    median = median_s(found) or 0.0
    times = [s.cost.wall_s for s in found if s.cost]
    spread = f" [{min(times):.2f}-{max(times):.2f}]" if len(times) > 1 else ""
    ours = median_s(pick(samples, NIMLAB, found[0].size, found[0].step))
    ratio = f" (x {median / ours:.1f})" if ours and found[0].name != NIMLAB else ""
    return f"{median:.2f}{spread}{ratio}"


def _requests(found: Sequence[Sample]) -> str:
    """Return the total, and the verbs of the last turn."""
    last = [s for s in found if s.cost][-1].requests
    verbs = [f"{count} {verb}" for verb, count in last.items() if count and verb not in _APART]
    dry = f"; {last['dry run']} of them dry" if last.get("dry run") else ""
    return f"**{median_requests(found) or 0:.0f}**: {', '.join(verbs)}{dry}"


def _peak(found: Sequence[Sample]) -> str:
    return f"{max(s.cost.peak_bytes for s in found if s.cost) / 1e6:.0f}"


def _cpu(found: Sequence[Sample]) -> str:
    return f"{statistics.median(s.cost.cpu_s for s in found if s.cost):.2f}"


def _answered(found: Sequence[Sample]) -> str:
    return f"{statistics.median(s.requests['bytes'] for s in found if s.cost) / 1e3:,.0f}"


def total(requests: Mapping[str, int]) -> int:
    """Return how many requests there were, of all verbs."""
    return sum(count for verb, count in requests.items() if verb not in _APART)


def _failures(samples: Sequence[Sample]) -> str:
    lines = [
        f"- {TITLES[s.name]}, {s.size:,} experiments, {s.step.value}, round {s.round}: {s.error}"
        for s in samples
        if s.error
    ]
    return "\n".join(["### What failed", "", *lines]) if lines else ""
