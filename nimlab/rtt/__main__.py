"""The process: arguments and environment -> exit code.

0 ended by SIGTERM or SIGINT · 1 a port can't be had · 2 wrong settings · 70 a bug. Not done here: anything
else.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from nimlab.rtt.clock import Clock
from nimlab.rtt.config import Config, ConfigError, parse_config
from nimlab.rtt.exporter import run
from nimlab.rtt.log import Level, log_to_stderr


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Export until a signal comes; return the exit code."""
    try:
        config = parse_config(argv, environ)
    except ConfigError as error:
        for problem in error.problems:
            log_to_stderr(Level.ERROR, "bad-setting", what=problem)
        return 2
    try:
        asyncio.run(_run(config))
    except OSError as error:
        log_to_stderr(Level.ERROR, "cannot-listen", what=str(error))
        return 1
    except Exception:  # noqa: BLE001 -- the one boundary: what isn't foreseen is a bug, and says that
        log_to_stderr(Level.ERROR, "bug", what=traceback.format_exc())
        return 70
    return 0


async def _run(config: Config) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_log_stray)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await run(config, clock=Clock(), log=log_to_stderr, stop=stop)


def _log_stray(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Say what went wrong where nobody waits for it; it is a bug, too, but the other parts go on."""
    error = context.get("exception")
    details = "".join(traceback.format_exception(error)) if isinstance(error, BaseException) else ""
    log_to_stderr(Level.ERROR, "bug", what=f"{context.get('message')}\n{details}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
