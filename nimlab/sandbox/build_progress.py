"""Progress of a build: output lines of `go` → counts of packages and the remaining time.

Pure: the elapsed time is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

# Before both limits are reached, an estimate would not be reliable.
_MIN_ELAPSED_S: Final = 5.0
_MIN_PACKAGES: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Number of compiled packages, for the current program and for all programs."""

    totals: tuple[int, ...]  # for each program in build order: number of packages that no earlier one needs
    current: int = 0  # index of the program that is being built
    done: int = 0  # compiled packages of this program
    compiled: int = 0  # compiled packages of all programs

    @property
    def total(self) -> int:
        """Number of packages that the current program needs and no earlier program needed."""
        return self.totals[self.current]

    def add_package(self) -> Progress:
        """Count one compiled package; `done` never exceeds the total."""
        return replace(self, done=min(self.done + 1, self.total), compiled=self.compiled + 1)

    def next_program(self) -> Progress:
        """Continue with the next program, even if `go` took packages of this one from its build cache."""
        return replace(self, current=self.current + 1, done=0)

    def eta_s(self, elapsed_s: float) -> float | None:
        """Return the estimated remaining seconds for all programs; None if it is too early to estimate."""
        if elapsed_s < _MIN_ELAPSED_S or self.compiled < _MIN_PACKAGES:
            return None
        remaining = sum(self.totals[self.current :]) - self.done
        return elapsed_s / self.compiled * remaining


def count_new_packages(packages: tuple[frozenset[str], ...]) -> tuple[int, ...]:
    """Return, for each program, the number of its packages that no earlier program needs."""
    seen: set[str] = set()
    counts = []
    for program_packages in packages:
        counts.append(len(program_packages - seen))
        seen |= program_packages
    return tuple(counts)


def is_package(line: str) -> bool:
    """Return True if a line of `go build -v` names a package; False for notes and errors."""
    return bool(line) and " " not in line and "\t" not in line and not line.startswith("#")


def is_download(line: str) -> bool:
    """Return True if a line of `go` reports the download of a module."""
    return line.startswith("go: downloading ")
