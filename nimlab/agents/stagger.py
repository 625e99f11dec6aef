"""Start delay: an init container that waits, so that the peers of an experiment start one after another.

In: the pod's name in `POD_NAME`, the time between two consecutive starts, and the number of peers in the
preceding roles. Out: exit code 0 after the delay, or 2 if the settings are wrong. This module imports only
the standard library.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence


def delay_ms(pod_name: str, *, step_ms: int, first: int) -> int:
    """Return the delay of a pod: its index among all peers, multiplied by the step.

    `first` is the number of peers in the preceding roles. Raises ValueError if the name does not end with an
    ordinal.
    """
    _, hyphen, ordinal = pod_name.rpartition("-")
    if not hyphen or not (ordinal.isascii() and ordinal.isdigit()):
        raise ValueError(f"POD_NAME must end with `-` and a number, but is `{pod_name}`")
    return (first + int(ordinal)) * step_ms


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> int:
    """Wait and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="nimlab.agents.stagger", description="Wait for this peer's turn to start."
    )
    parser.add_argument("--step-ms", type=int, required=True, help="milliseconds between two peers")
    parser.add_argument("--first", type=int, default=0, help="number of peers in the preceding roles")
    options = parser.parse_args(arguments)
    if options.step_ms < 0 or options.first < 0:
        parser.error("--step-ms and --first must be at least 0")
    try:
        wait_ms = delay_ms(environment.get("POD_NAME", ""), step_ms=options.step_ms, first=options.first)
    except ValueError as error:
        parser.error(str(error))
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # by default, process 1 of a container ignores SIGTERM
    print(f"stagger  {wait_ms} ms until the node starts", flush=True)  # noqa: T201 -- the container's log
    time.sleep(wait_ms / 1000)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
