"""Counters of the tests of prune safety: the number of situations, and the number of wrong results."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """Counters of one test, and the seed with which its random choices can be repeated."""

    seed: int
    planned: int = 0
    served: int = 0
    foreign_deleted: int = 0
    ours_left: int = 0
