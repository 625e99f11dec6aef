"""What the torture has counted, over all its tests, told in one line at the end."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Tally:
    """Counts of one run, and the seed that repeats it."""

    seed: int
    planned: int = 0
    served: int = 0
    foreign_deleted: int = 0
    ours_left: int = 0

    def line(self) -> str:
        """The counts in words."""
        return (
            f"torture: {self.planned} situations planned (seed {self.seed}), {self.served} on the server: "
            f"{self.foreign_deleted} foreign objects deleted, {self.ours_left} of ours left"
        )
