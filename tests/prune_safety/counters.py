"""Counters of the tests of prune safety: how many cases were tested, and how many results were wrong."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """Counters of one test, and the seed with which its random choices can be repeated.

    `planned` counts random states of a lab, and `served` counts objects on the server. `foreign_deleted` and
    `ours_left` count wrong results: foreign objects that were deleted, and our objects that were not deleted.
    """

    seed: int
    planned: int = 0
    served: int = 0
    foreign_deleted: int = 0
    ours_left: int = 0
