"""What happened -> one line of JSON on stderr.

In: a level, an event's fixed name and its fields. Out: one line. Not done here: levels to choose, files,
rotation. A line is written when something changes, never per probe or round, so that a thousand sidecars stay
quiet.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from enum import Enum
from typing import Protocol

Field = str | int | float | None


class Level(Enum):
    """How much a line matters."""

    INFO = "info"
    WARNING = "warning"  # measuring goes on, with less
    ERROR = "error"  # the process ends


class Log(Protocol):
    """Where lines go."""

    def __call__(self, level: Level, event: str, **fields: Field) -> None:
        """Write one line."""


def format_line(wall_s: float, level: Level, event: str, **fields: Field) -> str:
    """Return the line without its end. Pure."""
    time = datetime.fromtimestamp(wall_s, UTC).isoformat(timespec="milliseconds")
    return json.dumps({"time": time, "level": level.value, "event": event, **fields})


def log_to_stderr(level: Level, event: str, **fields: Field) -> None:
    """Write one line, at this moment's time."""
    now_s = datetime.now(UTC).timestamp()
    sys.stderr.write(format_line(now_s, level, event, **fields) + "\n")
    sys.stderr.flush()
