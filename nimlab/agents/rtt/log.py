"""Write log events to stderr as one JSON object per line.

A line is written only when something changes, not for each probe or round, so a thousand sidecars log little.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from enum import Enum
from typing import Protocol

Field = str | int | float | None


class Level(Enum):
    """Severity of a line."""

    INFO = "info"
    WARNING = "warning"  # probing continues with restrictions
    ERROR = "error"  # a wrong setting, an unavailable port or a bug


class Log(Protocol):
    """A function that writes one line."""

    def __call__(self, level: Level, event: str, **fields: Field) -> None:
        """Write one line."""


def format_line(wall_s: float, level: Level, event: str, **fields: Field) -> str:
    """Return the line without its newline. Pure."""
    time = datetime.fromtimestamp(wall_s, UTC).isoformat(timespec="milliseconds")
    return json.dumps({"time": time, "level": level.value, "event": event, **fields})


def log_to_stderr(level: Level, event: str, **fields: Field) -> None:
    """Write one line with the current time."""
    now_s = datetime.now(UTC).timestamp()
    sys.stderr.write(format_line(now_s, level, event, **fields) + "\n")
    sys.stderr.flush()
