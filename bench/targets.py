"""Samples -> what was promised, and whether the figures keep it (issue 6). Pure.

A promise whose figures weren't measured isn't told. Ratios and counts travel from machine to machine; the
promises in seconds hold for one like that of docs/performance.md, left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from bench.lab import Step
from bench.peers import NIMLAB
from bench.rounds import Sample
from bench.table import median_requests, median_s, pick, sizes_of
from nimlab.cluster.kube.client import PAGE
from nimlab.objects.applyset import ApplySet

_KINDS: Final = ApplySet(name="experiments", namespace="lab").kinds
_MARKS: Final = 2  # the set's parent and its lock
_MEDIUM: Final = 334
_LARGE: Final = 1000


def format_targets(samples: Sequence[Sample]) -> str:
    """Return the promises as a Markdown table; empty if nothing was measured that decides one."""
    rows = [*_ratios(samples), *_requests(samples), *_limits(samples)]
    if not rows:
        return ""
    lines = [
        f"| {what} | {asked} | {found} | {'yes' if kept else '**no**'} |" for what, asked, found, kept in rows
    ]
    return "\n".join(
        ["### Promises", "", "| promise | at most | measured | kept |", "| --- | ---: | ---: | --- |", *lines]
    )


_Row = tuple[str, str, str, bool]


def _ratios(samples: Sequence[Sample]) -> Iterator[_Row]:
    noop = _seconds(samples, NIMLAB, _MEDIUM, Step.NOOP)
    cold = _seconds(samples, NIMLAB, _MEDIUM, Step.COLD)
    for peer, title, bound in (("flux", "Flux's engine", 1 / 4), ("helm", "Helm", 1 / 10)):
        theirs = _seconds(samples, peer, _MEDIUM, Step.NOOP)
        for how, ours in (("", noop), (", nothing recalled", cold)):
            if ours and theirs:
                what = f"nothing to do{how}, {_MEDIUM} experiments, of the time of {title}"
                yield _row(what, bound, ours / theirs)
    large = _seconds(samples, NIMLAB, _LARGE, Step.NOOP)
    if noop and large:
        yield _row(f"nothing to do, {_LARGE:,} experiments to {_MEDIUM}", 3.2, large / noop)
    for size in sizes_of(samples):
        ours, theirs = (_seconds(samples, name, size, Step.FIRST) for name in (NIMLAB, "flux"))
        if size >= _MEDIUM and ours and theirs:
            yield _row(f"first apply, {size:,} experiments, of the time of Flux's engine", 1.0, ours / theirs)


def _requests(samples: Sequence[Sample]) -> Iterator[_Row]:
    own = {}
    for size in sizes_of(samples):
        noop = median_requests(pick(samples, NIMLAB, size, Step.NOOP))
        one = median_requests(pick(samples, NIMLAB, size, Step.ONE))
        if noop is None:
            continue
        objects = max(s.objects for s in pick(samples, NIMLAB, size, Step.NOOP))
        used = round(objects / size)  # every experiment has one object of each kind that it uses
        # A page that is full may not be the last: what follows it bears other labels, which only shows then.
        pages = used * (size // PAGE + 1) + len(_KINDS) - used
        yield (
            f"requests, nothing to do, {size:,} experiments: 2 and the pages of the kinds",
            f"{_MARKS + pages}",
            f"{noop:.0f}",
            noop <= _MARKS + pages,
        )
        if one is not None:
            own[size] = one - noop
    if len(own) > 1:
        most, least = max(own.values()), min(own.values())
        what = (
            "requests of one change beside those of nothing to do: no more in a large lab than in a small one"
        )
        yield (what, f"{own[min(own)]:.0f}", f"{own[max(own)]:.0f}", most <= least)


def _limits(samples: Sequence[Sample]) -> Iterator[_Row]:
    peaks = [s.cost.peak_bytes for s in pick(samples, NIMLAB, _LARGE, None) if s.cost]
    if peaks:
        yield (
            f"peak memory, {_LARGE:,} experiments",
            "400 MB",
            f"{max(peaks) / 1e6:.0f} MB",
            max(peaks) <= 400e6,
        )
    check = _seconds(samples, NIMLAB, _LARGE, Step.CHECK)
    if check:
        yield (f"`validate` of {_LARGE:,} files", "2.5 s", f"{check:.2f} s", check <= 2.5)
    helps = [s for s in samples if s.name == NIMLAB and s.step is Step.HELP]
    help_s = median_s(helps)
    if help_s:
        yield ("`--help`", "0.25 s", f"{help_s:.2f} s", help_s <= 0.25)


def _seconds(samples: Sequence[Sample], name: str, size: int, step: Step) -> float | None:
    return median_s(pick(samples, name, size, step))


def _row(what: str, bound: float, found: float) -> _Row:
    return (what, f"{bound:.2f}", f"{found:.2f}", found <= bound)
