"""The benchmark: equal seeds give equal experiments, and a missed target is reported as missed."""

from __future__ import annotations

import pytest

from bench.lab import Step, plan_steps
from bench.measure import Cost
from bench.rounds import Sample
from bench.targets import format_targets


def sample(name: str, size: int, step: Step, seconds: float, requests: int = 10) -> Sample:
    """Return the sample of a step of the benchmark that took `seconds`."""
    return Sample(
        name=name,
        size=size,
        objects=4 * size,
        step=step,
        round=1,
        cost=Cost(wall_s=seconds, cpu_s=seconds, peak_bytes=10**8),
        requests={"list": requests, "bytes": 10**6},
    )


def test_equal_seeds_give_equal_experiments_and_each_step_changes_them() -> None:
    steps = plan_steps(5, seed=3)
    assert steps == plan_steps(5, seed=3)
    assert steps != plan_steps(5, seed=4)
    first, one_changed, one_removed, all_changed = (
        steps[s] for s in (Step.FIRST, Step.ONE, Step.REMOVED, Step.ALL)
    )
    assert sum(a != b for a, b in zip(first, one_changed, strict=True)) == 1
    assert len(one_removed) == 4
    assert set(one_removed) < set(one_changed)
    assert not set(all_changed) & set(one_removed)


GOOD = [
    sample("nimlab", 334, Step.NOOP, 1.0),
    sample("flux", 334, Step.NOOP, 4.0),
    sample("helm", 334, Step.NOOP, 10.0),
    sample("nimlab", 1000, Step.NOOP, 3.2, requests=14),
    sample("nimlab", 334, Step.ONE, 1.1, requests=17),
    sample("nimlab", 1000, Step.ONE, 3.3, requests=21),
    sample("nimlab", 334, Step.FIRST, 5.0),
    sample("flux", 334, Step.FIRST, 5.0),
    sample("nimlab", 1000, Step.CHECK, 2.5),
    sample("nimlab", 1000, Step.HELP, 0.25),
]


def test_met_targets_are_reported_as_met() -> None:
    lines = format_targets(GOOD).splitlines()[4:]
    assert len(lines) == 10
    assert all(line.endswith("| yes |") for line in lines)


@pytest.mark.parametrize(
    ("worse", "target"),
    [
        (sample("nimlab", 334, Step.NOOP, 1.01), "Flux's engine"),
        (sample("helm", 334, Step.NOOP, 9.9), "Helm"),
        (sample("nimlab", 1000, Step.NOOP, 3.3, requests=14), "1,000 experiments to 334"),
        (sample("nimlab", 334, Step.NOOP, 1.0, requests=11), "334 experiments: at most 2"),
        (sample("nimlab", 1000, Step.ONE, 3.3, requests=22), "no more in a large lab"),
        (sample("nimlab", 334, Step.FIRST, 5.1), "first apply"),
        (sample("nimlab", 1000, Step.CHECK, 2.6), "`validate`"),
        (sample("nimlab", 1000, Step.HELP, 0.26), "`--help`"),
    ],
)
def test_each_missed_target_is_reported(worse: Sample, target: str) -> None:
    others = [s for s in GOOD if (s.name, s.size, s.step) != (worse.name, worse.size, worse.step)]
    missed = [line for line in format_targets([*others, worse]).splitlines() if "**no**" in line]
    assert any(target in line for line in missed)


def test_targets_without_figures_are_omitted() -> None:
    assert format_targets([sample("flux", 334, Step.NOOP, 1.0)]) == ""
