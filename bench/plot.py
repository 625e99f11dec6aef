"""Samples → a plot: seconds and requests against the number of experiments, with logarithmic axes.

matplotlib is an optional dependency; without it, no plot is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from bench.lab import Step
from bench.rounds import Sample
from bench.table import median_requests, median_s, pick, sizes_of
from bench.tools import NAMES, NIMLAB, TITLES

_PANELS: Final[Sequence[tuple[str, Step, Callable[[Sequence[Sample]], float | None]]]] = (
    ("nothing to do: seconds", Step.NOOP, median_s),
    ("nothing to do: requests", Step.NOOP, median_requests),
    ("first apply: seconds", Step.FIRST, median_s),
)


def draw(samples: Sequence[Sample], path: Path) -> bool:
    """Write the plot as a PNG file; return False if matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    sizes = sizes_of(samples)
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    for axes, (title, step, value) in zip(figure.subplots(1, len(_PANELS)), _PANELS, strict=True):
        for name in NAMES:
            points = [(size, value(pick(samples, name, size, step))) for size in sizes]
            measured = [(size, y) for size, y in points if y is not None]
            if measured:
                width = 2.5 if name == NIMLAB else 1.2
                axes.plot(*zip(*measured, strict=True), marker="o", linewidth=width, label=TITLES[name])
        axes.set(title=title, xlabel="experiments", xscale="log", yscale="log")
        axes.set_xticks(sizes, labels=[f"{size:,}" for size in sizes])
        axes.minorticks_off()
        axes.grid(visible=True, alpha=0.3)
    if figure.axes[0].lines:
        figure.axes[0].legend(frameon=False)
    figure.savefig(path, dpi=120)
    return True
