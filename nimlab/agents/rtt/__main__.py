"""Entry point of the process: parse settings, run the exporter, return the exit code.

Exit codes: 0 after SIGTERM or SIGINT, 1 if a port is not available, 2 for wrong settings, 70 for a bug.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from nimlab.agents.rtt.clock import Clock
from nimlab.agents.rtt.config import Config, ConfigError, parse_config
from nimlab.agents.rtt.log import Level, log_to_stderr
from nimlab.agents.rtt.main_loop import run


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run until a signal arrives; return the exit code."""
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
    except Exception:  # noqa: BLE001 -- process boundary: log any unexpected error as a bug
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
    """Log an error that no code handled. Such an error is a bug, but the process continues."""
    error = context.get("exception")
    details = "".join(traceback.format_exception(error)) if isinstance(error, BaseException) else ""
    log_to_stderr(Level.ERROR, "bug", what=f"{context.get('message')}\n{details}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
