"""Samples → a table of the performance targets (issue 6) and whether the figures meet them. Pure.

Targets without measured figures are omitted. Ratios and counts are comparable between machines. The targets
in seconds apply to an idle machine like that of docs/performance.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from bench.lab import Step
from bench.rounds import Sample
from bench.table import median_requests, median_s, pick, sizes_of
from bench.tools import NIMLAB
from nimlab.cluster.kube.api_client import PAGE_SIZE
from nimlab.objects.applyset import ApplySet

_KINDS: Final = ApplySet(name="experiments", namespace="lab").kinds
_SET_READS: Final = 2  # one request reads the apply-set's parent, and one reads its lock
_MEDIUM: Final = 334
_LARGE: Final = 1000


def format_targets(samples: Sequence[Sample]) -> str:
    """Return the targets as a Markdown table; empty if no target can be evaluated."""
    rows = [*_ratios(samples), *_requests(samples), *_limits(samples)]
    if not rows:
        return ""
    lines = [
        f"| {target} | {bound} | {measured} | {'yes' if is_met else '**no**'} |"
        for target, bound, measured, is_met in rows
    ]
    return "\n".join(
        ["### Targets", "", "| target | at most | measured | met |", "| --- | ---: | ---: | --- |", *lines]
    )


_Row = tuple[str, str, str, bool]


def _ratios(samples: Sequence[Sample]) -> Iterator[_Row]:
    noop_s = _seconds(samples, NIMLAB, _MEDIUM, Step.NOOP)
    cold_s = _seconds(samples, NIMLAB, _MEDIUM, Step.COLD)
    for name, title, bound in (("flux", "Flux's engine", 1 / 4), ("helm", "Helm", 1 / 10)):
        other_s = _seconds(samples, name, _MEDIUM, Step.NOOP)
        for cache, nimlab_s in (("", noop_s), (", empty cache", cold_s)):
            if nimlab_s and other_s:
                target = f"nothing to do{cache}, {_MEDIUM} experiments: ratio to the time of {title}"
                yield _row(target, bound, nimlab_s / other_s)
    large_s = _seconds(samples, NIMLAB, _LARGE, Step.NOOP)
    if noop_s and large_s:
        yield _row(f"nothing to do, ratio of {_LARGE:,} experiments to {_MEDIUM}", 3.2, large_s / noop_s)
    for size in sizes_of(samples):
        nimlab_s, flux_s = (_seconds(samples, name, size, Step.FIRST) for name in (NIMLAB, "flux"))
        if size >= _MEDIUM and nimlab_s and flux_s:
            target = f"first apply, {size:,} experiments: ratio to the time of Flux's engine"
            yield _row(target, 1.0, nimlab_s / flux_s)


def _requests(samples: Sequence[Sample]) -> Iterator[_Row]:
    extra_of_one_change = {}
    for size in sizes_of(samples):
        noop = median_requests(pick(samples, NIMLAB, size, Step.NOOP))
        one_change = median_requests(pick(samples, NIMLAB, size, Step.ONE))
        if noop is None:
            continue
        objects = max(s.objects for s in pick(samples, NIMLAB, size, Step.NOOP))
        used_kinds = round(objects / size)  # every experiment has one object of each kind that it uses
        # After a full page, another page is always read, because the server filters each page by labels.
        pages = used_kinds * (size // PAGE_SIZE + 1) + len(_KINDS) - used_kinds
        yield (
            f"requests, nothing to do, {size:,} experiments: at most 2, plus one per page of each kind",
            f"{_SET_READS + pages}",
            f"{noop:.0f}",
            noop <= _SET_READS + pages,
        )
        if one_change is not None:
            extra_of_one_change[size] = one_change - noop
    if len(extra_of_one_change) > 1:
        smallest, largest = min(extra_of_one_change), max(extra_of_one_change)
        yield (
            "additional requests for one change: no more in a large lab than in a small one",
            f"{extra_of_one_change[smallest]:.0f}",
            f"{extra_of_one_change[largest]:.0f}",
            max(extra_of_one_change.values()) <= min(extra_of_one_change.values()),
        )


def _limits(samples: Sequence[Sample]) -> Iterator[_Row]:
    peaks = [s.cost.peak_bytes for s in pick(samples, NIMLAB, _LARGE, None) if s.cost]
    if peaks:
        yield (
            f"peak memory, {_LARGE:,} experiments",
            "400 MB",
            f"{max(peaks) / 1e6:.0f} MB",
            max(peaks) <= 400e6,
        )
    check_s = _seconds(samples, NIMLAB, _LARGE, Step.CHECK)
    if check_s:
        yield (f"`validate` of {_LARGE:,} files", "2.5 s", f"{check_s:.2f} s", check_s <= 2.5)
    help_s = median_s([s for s in samples if s.name == NIMLAB and s.step is Step.HELP])
    if help_s:
        yield ("`--help`", "0.25 s", f"{help_s:.2f} s", help_s <= 0.25)


def _seconds(samples: Sequence[Sample], name: str, size: int, step: Step) -> float | None:
    return median_s(pick(samples, name, size, step))


def _row(target: str, bound: float, measured: float) -> _Row:
    return (target, f"{bound:.2f}", f"{measured:.2f}", measured <= bound)
