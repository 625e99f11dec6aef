"""How far a build is: lines of `go` -> counts and the time that is left.

Pure; the clock is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

# Less than this and the estimate jumps about.
_ENOUGH_S: Final = 5.0
_ENOUGH_PACKAGES: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Packages compiled: of the program that is built now, and of those before it."""

    totals: tuple[int, ...]  # packages that each program adds to those before it, in the order of building
    current: int = 0  # index of the program that is built now
    done: int = 0  # its packages compiled
    compiled: int = 0  # packages compiled of all programs

    @property
    def total(self) -> int:
        """How many packages the program that is built now adds."""
        return self.totals[self.current]

    def one_more(self) -> Progress:
        """Count a compiled package; never past the total."""
        return replace(self, done=min(self.done + 1, self.total), compiled=self.compiled + 1)

    def next_program(self) -> Progress:
        """Go on with the next program; what wasn't compiled was there already."""
        return replace(self, current=self.current + 1, done=0)

    def eta_s(self, elapsed_s: float) -> float | None:
        """Return the seconds left for all programs, at the speed so far; None if too early."""
        if elapsed_s < _ENOUGH_S or self.compiled < _ENOUGH_PACKAGES:
            return None
        left = sum(self.totals[self.current :]) - self.done
        return elapsed_s / self.compiled * left


def count_new_packages(packages: tuple[frozenset[str], ...]) -> tuple[int, ...]:
    """Return how many packages each program adds to those before it."""
    seen: set[str] = set()
    counts = []
    for own in packages:
        counts.append(len(own - seen))
        seen |= own
    return tuple(counts)


def is_package(line: str) -> bool:
    """Tell whether a line of `go build -v` is a package, not a note or an error."""
    return bool(line) and " " not in line and "\t" not in line and not line.startswith("#")


def is_download(line: str) -> bool:
    """Tell whether a line of `go` says that a module is fetched."""
    return line.startswith("go: downloading ")
