"""Hold a peer back until it is its turn: an init container that waits, then ends.

In: the pod's name in `POD_NAME`, the time between two peers, and the number of peers in the roles before.
Out: nothing; exit code 0 once the time is over, 2 if the settings are wrong. It runs in the pod, alone with
Python's own library.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence


def delay_ms(pod_name: str, *, step_ms: int, first: int) -> int:
    """Return how long a pod waits: its place among all peers times the step.

    Raises ValueError if the name does not end with an ordinal.
    """
    _, hyphen, ordinal = pod_name.rpartition("-")
    if not hyphen or not (ordinal.isascii() and ordinal.isdigit()):
        raise ValueError(f"POD_NAME is `{pod_name}`, and must end with `-` and a number")
    return (first + int(ordinal)) * step_ms


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> int:
    """Wait, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="nimlab.agents.stagger", description="Wait for this peer's turn to start."
    )
    parser.add_argument("--step-ms", type=int, required=True, help="milliseconds between two peers")
    parser.add_argument("--first", type=int, default=0, help="number of peers in the roles before")
    asked = parser.parse_args(arguments)
    if asked.step_ms < 0 or asked.first < 0:
        parser.error("--step-ms and --first must be at least 0")
    try:
        wait_ms = delay_ms(environment.get("POD_NAME", ""), step_ms=asked.step_ms, first=asked.first)
    except ValueError as error:
        parser.error(str(error))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the first process of a container ignores it
    print(f"stagger  {wait_ms} ms until the node starts", flush=True)  # noqa: T201 -- the container's log
    time.sleep(wait_ms / 1000)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
